# SPDX-License-Identifier: GPL-2.0-only
"""Reading what can be read of a source that cannot be read as a whole (convert --salvage).

A range that cannot be read is halved, and so are its halves, down to single sectors:

    [ 16 sectors: error                         ]
    [ 8: error            ] [ 8                 ]
    [ 4      ] [ 4: error ]
               [ 2 ][ 2: ]
                    [1][1: error] -> zeroes, and a warning

R1  Of what cannot be read every sector is zeroes, and is warned about, in the order of the disk;
    every other sector is what the source has (convert_co_read of qemu-img.c).
R2  It is halved where the sector's number has the most zero bits at its end. So a cluster of the
    source is cut only when it holds such a sector.
Called in the main thread, in a coroutine.

Discussion: QEMU reads sector by sector once the whole range has failed. Then each sector of a
packed cluster unpacks all of it: 4,096 times 64 KiB for one bad sector in 2 MiB. Here these are
25 reads. Where all sectors are bad, it is two reads for each.
"""

from __future__ import annotations

from block.core.flags import SECTOR_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.core.backend import BlockBackend


async def co_salvage(
    blk: BlockBackend, offset: int, view: memoryview, warn: Callable[[int, OSError], None]
) -> None:
    """Fills a buffer of whole sectors from `offset` on; `warn` hears of each bad one (R1)."""
    parts = [(offset // SECTOR_SIZE, (offset + len(view)) // SECTOR_SIZE)]  # the next one is last
    while parts:
        first, end = parts.pop()
        start = first * SECTOR_SIZE - offset
        part = view[start : end * SECTOR_SIZE - offset]
        try:
            await blk.co_preadv(offset + start, len(part), [part])
        except OSError as error:
            if end - first == 1:
                warn(offset + start, error)
                part[:] = bytes(len(part))
            else:
                middle = _middle(first, end)
                parts += [(middle, end), (first, middle)]


def _middle(first: int, end: int) -> int:
    """Where to halve a range of two sectors or more (R2)."""
    bits = (first ^ (end - 1)).bit_length() - 1
    return (end - 1) >> bits << bits
