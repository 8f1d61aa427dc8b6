# SPDX-License-Identifier: GPL-2.0-only
"""Reads, and the question where bytes are (vmdk_co_preadv, vmdk_co_block_status).

    the extent is        the entry says     it is read from
    flat                                    the extent's file
    sparse               a grain            the extent's file, unpacked if it is compressed
                         zeroes             nowhere
                         nothing            the backing file; without one, nowhere

R1  try_preadv answers where one grain holds all that is wanted and its table is in memory.
    Everything else, failures too, is the coroutine's.
R2  A table that is in memory is read without the lock (tables.py, R2).
R3  Nothing is read from a backing file that is not the right one (state.py, R3).
Who may call it: at home in the node's context.

What goes wrong in QEMU, as its source reads: where an extent ends within a grain, a request goes
on to the end of the grain, past the end of the extent. What the next extent holds is not read.
"""

from __future__ import annotations

from bisect import bisect_right

from block.core import debug, io
from block.core import flags as f
from block.core.iov import iov_memset_zero, iov_slice
from block.formats.vmdk.compressed import co_preadv_grains
from block.formats.vmdk.layout import GTE_ZEROED, SECTOR
from block.formats.vmdk.tables import is_zero_entry, run_of, table_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.iov import Iov
    from block.core.node import BlockDriverState
    from block.core.status import Status
    from block.formats.vmdk.extent import Extent
    from block.formats.vmdk.state import VmdkState
    from block.formats.vmdk.tables import Run


def extent_at(s: VmdkState, offset: int) -> Extent:
    """The extent that holds an offset of the disk (find_extent); the core has checked it."""
    return s.extents[bisect_right(s.ends, offset)]


def try_preadv(bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> int | None:
    """Reads at once, or declines (R1)."""
    s: VmdkState = bs.opaque
    extent = s.extents[0 if offset < s.ends[0] else bisect_right(s.ends, offset)]
    position = offset - extent.start
    if position + nbytes > extent.length:
        return None
    if extent.flat:
        return io.try_preadv(extent.file, extent.flat_offset + position, nbytes, qiov)
    table = extent.tables.get(extent.directory[position // extent.table_span])
    if table is None or extent.compressed:
        return None
    index, inside = divmod(position % extent.table_span, extent.grain)
    if inside + nbytes > extent.grain:
        return None
    entry = table.cells[index]
    table.recent = True
    if entry > GTE_ZEROED:
        return io.try_preadv(extent.file, entry * SECTOR + inside, nbytes, qiov)
    if entry or bs.backing is None or not s.cid_checked:
        return None
    return io.try_preadv(bs.backing, offset, nbytes, qiov)


async def find(s: VmdkState, extent: Extent, position: int, nbytes: int) -> Run:
    """What a sparse extent holds at an offset; with the lock only if it must be (R2)."""
    place = extent.directory[position // extent.table_span]
    table = extent.tables.get(place)
    if table is None and place:
        async with s.lock:
            return run_of(extent, await table_at(extent, position), position, nbytes)
    if table is not None:
        table.recent = True
    return run_of(extent, table, position, nbytes)


async def co_preadv(s: VmdkState, offset: int, nbytes: int, qiov: Iov) -> None:
    """Reads, extent by extent, run by run (vmdk_co_preadv)."""
    done = 0
    while done < nbytes:
        extent = extent_at(s, offset + done)
        position = offset + done - extent.start
        size = min(nbytes - done, extent.length - position)
        if extent.flat:
            part = iov_slice(qiov, done, size)
            await debug.debug_event(extent.file.bs, debug.READ_AIO)
            await extent.file.co_preadv(extent.flat_offset + position, size, part)
        else:
            entry, size = await find(s, extent, position, size)
            part = iov_slice(qiov, done, size)
            size = await _read_run(s, extent, position, entry, size, part)
        done += size


async def _read_run(
    s: VmdkState, extent: Extent, position: int, entry: int, size: int, part: Iov
) -> int:
    """Reads a run, or as much of it as lies together; returns how much that was."""
    backing = s.bs.backing
    if extent.holds_data(entry):
        if extent.compressed:
            return await co_preadv_grains(s, extent, entry, position, size, part)
        inside = position % extent.table_span % extent.grain
        await debug.debug_event(extent.file.bs, debug.READ_AIO)
        await extent.file.co_preadv(entry * SECTOR + inside, size, part)
    elif backing is not None and not entry:
        s.check_parent()
        await debug.debug_event(s.file.bs, debug.READ_BACKING_AIO)
        await backing.co_preadv(extent.start + position, size, part)
    else:
        iov_memset_zero(part)
    return size


async def co_block_status(s: VmdkState, offset: int, nbytes: int) -> Status:
    """Says of a run where it is (vmdk_co_block_status)."""
    extent = extent_at(s, offset)
    position = offset - extent.start
    size = min(nbytes, extent.length - position)
    found = f.BDRV_BLOCK_DATA | f.BDRV_BLOCK_OFFSET_VALID
    if extent.flat:
        place = extent.flat_offset + position
        return found | f.BDRV_BLOCK_RECURSE, size, place, extent.file.bs
    entry, size = await find(s, extent, position, size)
    if not extent.holds_data(entry):
        return f.BDRV_BLOCK_ZERO if is_zero_entry(extent, entry) else 0, size, 0, None
    if extent.compressed:
        return f.BDRV_BLOCK_DATA, size, 0, extent.file.bs
    inside = position % extent.table_span % extent.grain
    return found, size, entry * SECTOR + inside, extent.file.bs
