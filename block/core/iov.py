# SPDX-License-Identifier: GPL-2.0-only
"""I/O vectors: lists of byte memoryviews (QEMU's QEMUIOVector, util/iov.c).

R1  A vector is never copied as data on the way down; parts of it are new views of the
    same memory (DESIGN.md, rule 8).
R2  Every view is of format "B" and contiguous; `as_iov` sees to it at the edges.
Who may call it: anyone; the functions hold no state.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    from _typeshed import ReadableBuffer

Iov: TypeAlias = "list[memoryview]"

MANY_ZEROES = bytes(64 * 1024)


def iov_size(iov: Iterable[memoryview]) -> int:
    """Returns the bytes that a vector holds (iov_size)."""
    total = 0
    for view in iov:
        total += len(view)
    return total


def as_iov(data: ReadableBuffer | Iov) -> Iov:
    """Returns a vector over a buffer, or the vector itself."""
    if isinstance(data, list):
        return data
    view = memoryview(data)
    return [view if view.format == "B" and view.ndim == 1 else view.cast("B")]


def iov_slice(iov: Iov, offset: int, nbytes: int) -> Iov:
    """Returns views of `nbytes` bytes from `offset` on (qemu_iovec_concat)."""
    if len(iov) == 1 and nbytes:
        view = iov[0]
        assert offset + nbytes <= len(view), "iov_slice: range beyond the vector"
        return [view[offset : offset + nbytes]]
    result: Iov = []
    for view in iov:
        if not nbytes:
            break
        size = len(view)
        if offset >= size:
            offset -= size
            continue
        part = view[offset : offset + nbytes]
        result.append(part)
        nbytes -= len(part)
        offset = 0
    assert nbytes == 0, "iov_slice: range beyond the vector"
    return result


def iov_memset_zero(iov: Iov, offset: int = 0, nbytes: int | None = None) -> None:
    """Fills a range with zeroes (qemu_iovec_memset)."""
    if nbytes is None:
        nbytes = iov_size(iov) - offset
    for view in iov_slice(iov, offset, nbytes):
        for start in range(0, len(view), len(MANY_ZEROES)):
            part = view[start : start + len(MANY_ZEROES)]
            part[:] = MANY_ZEROES[: len(part)]


def iov_from_bytes(iov: Iov, offset: int, data: ReadableBuffer) -> int:
    """Copies a buffer into the vector at `offset` (qemu_iovec_from_buf); returns its length."""
    source = memoryview(data).cast("B")
    position = 0
    for view in iov_slice(iov, offset, len(source)):
        view[:] = source[position : position + len(view)]
        position += len(view)
    return position


def iov_to_bytes(iov: Iov, offset: int = 0, nbytes: int | None = None) -> bytes:
    """Returns a copy of a range (qemu_iovec_to_buf)."""
    if nbytes is None:
        nbytes = iov_size(iov) - offset
    return b"".join(iov_slice(iov, offset, nbytes))


def iov_is_zero(iov: Iov) -> bool:
    """Says whether a vector holds nothing but zeroes (qemu_iovec_is_zero)."""
    return all(map(is_zero, iov))


def is_zero(view: memoryview) -> bool:
    """Says whether bytes are nothing but zeroes (buffer_is_zero).

    By bytes.startswith: that is memcmp, and takes a memoryview as it is, while two memoryviews are
    compared byte by byte.
    """
    while len(view) > len(MANY_ZEROES):
        if not MANY_ZEROES.startswith(view[: len(MANY_ZEROES)]):
            return False
        view = view[len(MANY_ZEROES) :]
    return MANY_ZEROES.startswith(view)


def iov_difference(a: Iov, b: Iov) -> int:
    """Returns the offset of the first byte in which two vectors of one size differ, or -1
    (qemu_iovec_compare)."""
    position = 0
    for view in a:
        for start in range(0, len(view), len(MANY_ZEROES)):
            mine = bytes(view[start : start + len(MANY_ZEROES)])
            other = iov_to_bytes(b, position, len(mine))
            if mine != other:
                return position + next(i for i in range(len(mine)) if mine[i] != other[i])
            position += len(mine)
    return -1


def zero_iov(nbytes: int) -> Iov:
    """Returns a read-only vector of zeroes without allocating them all."""
    whole, rest = divmod(nbytes, len(MANY_ZEROES))
    views = [memoryview(MANY_ZEROES)] * whole
    if rest:
        views.append(memoryview(MANY_ZEROES)[:rest])
    return views
