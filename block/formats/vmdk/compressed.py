# SPDX-License-Identifier: GPL-2.0-only
"""Grains of streamOptimized images: a marker, then the grain packed by zlib.

    | first guest sector, 8 bytes | length, 4 bytes | zlib data ... | zeroes up to a whole sector |

Such an image is made to be sent: it is written once, from its beginning to its end.

R1  A grain is written once and as a whole. Where another one follows depends on how well this one
    packs, so there is no place to write it anew.
R2  No more than one grain is ever unpacked, whatever the image says. A grain may be packed shorter
    than it is, if nothing of the rest is read: the last one of an extent.
R3  Grains that follow one another are read at once and unpacked side by side; so are those of a
    write packed, and then written at once (packed.py).
R4  Packed data take two grains at most, with their marker: bad luck makes them longer than plain.
Who may call it: coroutines in the node's context; `co_write_grains` with the lock.
"""

from __future__ import annotations

import errno

from block.core.compress import Zlib
from block.core.debug import READ_COMPRESSED, WRITE_COMPRESSED, debug_event
from block.core.error import BlockError
from block.core.iov import iov_size, iov_slice, zero_iov
from block.core.packed import co_pack, co_read_packed, co_unpack, packed_run
from block.formats.vmdk.layout import GRAIN_MARKER, SECTOR
from block.formats.vmdk.tables import take_sectors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from block.core.iov import Iov
    from block.core.packed import Packed
    from block.formats.vmdk.extent import Extent
    from block.formats.vmdk.state import VmdkState


# -- reads


async def co_preadv_grains(
    s: VmdkState, extent: Extent, entry: int, position: int, nbytes: int, qiov: Iov
) -> int:
    """Reads from a run of compressed grains (run_of), whose first entry is given, as much as
    lies together; returns the bytes read."""
    _, inside = extent.split(position)
    run = packed_run(_places(extent, entry, position), extent.grain, inside, nbytes)
    await debug_event(extent.file.bs, READ_COMPRESSED)
    await co_read_packed(extent.file, run)
    if extent.has_markers:
        for grain in run:
            _cut_to_size(extent, grain)
    await co_unpack(s.bs, Zlib, run, extent.grain, qiov)
    for grain in run:
        if grain.is_bad:
            raise _bad_grain(extent, grain, "cannot be unpacked")
    return run[-1].at + run[-1].nbytes


def _places(extent: Extent, entry: int, position: int) -> Iterator[tuple[int, int]]:
    """Where the grain at an offset lies, and those behind it if their table is in memory (R4)."""
    table = extent.tables.get(extent.directory[position // extent.table_span])
    index, _ = extent.split(position)
    end = extent.file.bs.total_sectors * SECTOR
    for sector in [entry] if table is None else table.cells[index:]:
        place = sector * SECTOR
        yield place, max(SECTOR, min(2 * extent.grain, end - place))


def _cut_to_size(extent: Extent, grain: Packed) -> None:
    """Leaves what the marker says of the bytes that a grain may have."""
    _, length = GRAIN_MARKER.unpack_from(grain.data)
    grain.data = grain.data[GRAIN_MARKER.size :][:length]
    if not 0 < length <= len(grain.data):
        raise _bad_grain(extent, grain, f"is {length} bytes long")


def _bad_grain(extent: Extent, grain: Packed, what: str) -> BlockError:
    """With QEMU's number, which is that of a wrong request."""
    message = f"compressed grain at sector {grain.place // SECTOR} {what}"
    return extent.error(message, errno.EINVAL)


# -- writes


async def co_pack_grains(s: VmdkState, extent: Extent, nbytes: int, qiov: Iov) -> list[bytes]:
    """Packs the grains of a write, which begins with one."""
    if not extent.has_markers:
        message = "vmdk: header.flags tell of no markers: compressed grains cannot be written"
        raise BlockError(errno.EINVAL, message, driver="vmdk")
    grain = extent.grain
    pieces = [iov_slice(qiov, at, min(grain, nbytes - at)) for at in range(0, nbytes, grain)]
    return await co_pack(s.bs, Zlib, pieces)


async def co_write_grains(extent: Extent, guest_sector: int, grains: list[bytes]) -> list[int]:
    """Writes packed grains at the end of the file; returns where (vmdk_write_extent, R1)."""
    records: Iov = []
    sectors: list[int] = []
    for packed in grains:
        marker = GRAIN_MARKER.pack(guest_sector, len(packed))
        length = len(marker) + len(packed)
        padding = zero_iov(-length % SECTOR)
        sectors.append(take_sectors(extent, -(-length // SECTOR)))
        records += [memoryview(marker), memoryview(packed), *padding]
        guest_sector += extent.grain_sectors
    await debug_event(extent.file.bs, WRITE_COMPRESSED)
    await extent.file.co_pwritev(sectors[0] * SECTOR, iov_size(records), records)
    return sectors
