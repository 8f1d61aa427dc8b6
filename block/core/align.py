# SPDX-License-Identifier: GPL-2.0-only
"""Requests that do not fit: padding to the alignment, and splitting (bdrv_pad_request).

    |---- align ----|---- align ----|---- align ----|
         head |<-------- request -------->|  tail
    buf:  [head block ......][...... tail block]        (one block if they meet)

R1  A bounce buffer is page-aligned, since O_DIRECT may need that of it.
R2  The middle of a request is not copied: only head and tail come from the buffer.
R3  What needs reading before it can be written is read by a serialising request.
R4  Each part of a request makes it shorter: it is at least one block, however tiny the
    views are.
Who may call it: coroutines in the node's context.

What once went wrong: whether views were too tiny was asked of a request before it was cut.
A cut through a view makes a tinier one; the part from there on was rounded down to no
block, and the loop turned for ever.
"""

from __future__ import annotations

from block.core.iov import iov_size, iov_slice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from block.core.iov import Iov


def blockalign(nbytes: int) -> memoryview:
    """Returns a page-aligned buffer of zeroes (qemu_blockalign)."""
    from mmap import mmap

    return memoryview(mmap(-1, max(nbytes, 1)))[:nbytes]


class Padding:
    """What a request needs before and behind it to become aligned (BdrvRequestPadding)."""

    __slots__ = ("align", "buf", "head", "merged", "tail")

    def __init__(self, offset: int, nbytes: int, align: int) -> None:
        self.align = align
        self.head = offset % align
        self.tail = -(offset + nbytes) % align
        total = self.head + nbytes + self.tail
        # One block if head and tail lie in the same, or side by side: then one read does.
        size = align if total == align or not (self.head and self.tail) else 2 * align
        self.merged = total == size
        self.buf = blockalign(size)

    @property
    def tail_buf(self) -> memoryview:
        """The last block of the buffer."""
        return self.buf[len(self.buf) - self.align :]

    def extend(self, qiov: Iov) -> Iov:
        """Puts head and tail around a vector (qemu_iovec_init_extended)."""
        result: Iov = [self.buf[: self.head]] if self.head else []
        result += qiov
        if self.tail:
            result.append(self.buf[len(self.buf) - self.tail :])
        return result


def split(
    qiov: Iov, nbytes: int, max_transfer: int, max_iov: int, align: int
) -> Iterator[tuple[int, int, Iov]]:
    """Cuts a request into parts that the limits allow: (start, bytes, vector).

    `max_transfer` is a multiple of `align`. Where `max_iov` views are shorter than a block,
    the part has more views: those want a bounce buffer (R4).
    """
    assert max_transfer >= align, "a block is longer than max_transfer"
    start = 0
    while start < nbytes:
        size = min(nbytes - start, max_transfer)
        part = iov_slice(qiov, start, size)
        if len(part) > max_iov:
            whole_blocks = iov_size(part[:max_iov]) // align * align
            if whole_blocks:
                size, part = whole_blocks, iov_slice(part, 0, whole_blocks)
        yield start, size, part
        start += size
