# SPDX-License-Identifier: GPL-2.0-only
"""Which parts of a buffer are zeroes, for whoever writes only the others (qemu-img.c,
is_allocated_sectors_min).

R1  The buffer is looked at in blocks. A block counts as zeroes if all of it is; one that is cut
    off by the buffer's end counts as data.
R2  Between data, fewer zeroes than `least` are data, too: one long write costs less than two.

Pure functions; any thread.

Discussion: most data begin or end with something, which two comparisons find out. Only where they
do not, a block is copied, to be compared by memcmp: memoryviews are compared byte by byte.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Run = tuple[bool, int, int]


def runs(view: memoryview, offset: int, least: int, block: int) -> Iterator[Run]:
    """Yields (holds data, start, end) for the runs of a buffer.

    `offset` is where the buffer goes; there blocks are aligned. `block` is a power of two.
    """
    found = list(_block_runs(view, offset, block))  # data and zeroes by turns
    at = 0
    while at < len(found):
        is_data, start, end = found[at]
        at += 1
        while is_data and at + 1 < len(found) and found[at][2] - found[at][1] < least:  # R2
            end = found[at + 1][2]
            at += 2
        yield is_data, start, end


def _block_runs(view: memoryview, offset: int, block: int) -> Iterator[Run]:
    """The same, run by run of whole blocks (is_allocated_sectors)."""
    size = len(view)
    start, current = 0, None
    for first, end in _blocks(size, offset, block):
        is_data = bool((offset + end) % block) or not is_zero(view, first, end)
        if current is not None and is_data != current:
            yield current, start, first
            start = first
        current = is_data
    if current is not None:
        yield current, start, size


def _blocks(size: int, offset: int, block: int) -> Iterator[tuple[int, int]]:
    start = 0
    while start < size:
        end = min(size, start + block - (offset + start) % block)
        yield start, end
        start = end


def is_zero(view: memoryview, start: int, end: int) -> bool:
    """Whether a range holds nothing but zeroes (buffer_is_zero)."""
    if view[start] or view[end - 1]:
        return False
    data = bytes(view[start:end])
    return data == bytes(len(data))
