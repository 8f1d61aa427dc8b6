# SPDX-License-Identifier: GPL-2.0-only
"""Writes (vmdk_pwritev, get_whole_cluster, vmdk_co_pwrite_zeroes).

A write goes on run by run, a run being grains of one table that need the same:

    the entries say     what is done
    grains              the data go there, and that is all
    nothing, zeroes     new grains at the end of the file: 1. data, with all that else belongs into
                        the grains  2. a flush  3. the entries  4. those of the redundant table
    compressed          only where nothing is yet (compressed.py): 1. packed, side by side  2. data,
                        one behind the other  3. a flush  4. the entries

After the first write of all the CID is written (state.py, R2).

R1  Data are safe in the file before an entry names their grain. Where the entry alone survived a
    power cut, what was copied from the backing file would be lost. And the grain would lie
    beyond the end of the file, where the next one is put: then two share it.
R2  New grains are written with the lock held, whole, in one request.
R3  A grain that is there is written without the lock: it never moves.
R4  No grain is written that begins where the header says that there are tables.
R5  Zeroes are written all in one way or not at all; ENOTSUP lets the core write them as data.
Who may call it: coroutines in the node's context.

Discussion: QEMU flushes as often, but after the entries. That keeps an entry from being lost
which the guest has not flushed yet. It does not keep an entry from being there without its
grain.
"""

from __future__ import annotations

import errno
from array import array

from block.core import debug
from block.core import flags as f
from block.core.align import blockalign
from block.core.error import BlockError
from block.core.iov import iov_slice, zero_iov
from block.core.packed import packed_at_once
from block.formats.vmdk.compressed import co_pack_grains, co_write_grains
from block.formats.vmdk.layout import GTE_ZEROED, SECTOR
from block.formats.vmdk.read import extent_at, find
from block.formats.vmdk.tables import (
    allocate,
    ensure_table,
    is_zero_entry,
    run_of,
    set_entries,
    table_at,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from block.core.iov import Iov
    from block.formats.vmdk.extent import Extent
    from block.formats.vmdk.state import VmdkState


async def co_pwritev(s: VmdkState, offset: int, nbytes: int, qiov: Iov) -> None:
    """Writes a vector (vmdk_co_pwritev)."""
    done = 0
    while done < nbytes:
        extent = extent_at(s, offset + done)
        position = offset + done - extent.start
        size = min(nbytes - done, extent.length - position)
        done += await _write_part(s, extent, position, size, iov_slice(qiov, done, size))
    await s.update_cid()


async def _write_part(s: VmdkState, extent: Extent, position: int, nbytes: int, part: Iov) -> int:
    """Writes the first run of what goes to one extent; returns its length."""
    if extent.flat:
        await debug.debug_event(extent.file.bs, debug.WRITE_AIO)
        await extent.file.co_pwritev(extent.flat_offset + position, nbytes, part)
        return nbytes
    if extent.compressed:
        return await _write_compressed(s, extent, position, nbytes, part)
    entry, size = await find(s, extent, position, nbytes)
    if not extent.holds_data(entry):
        async with s.lock:
            return await _write_new(s, extent, position, nbytes, part)
    await _overwrite(extent, entry, position, iov_slice(part, 0, size), size)
    return size


async def _overwrite(extent: Extent, entry: int, position: int, part: Iov, size: int) -> None:
    """Writes into grains that are there (R3, R4)."""
    if entry < extent.first_sector:
        message = f"grain at sector {entry}, header.overHead is {extent.first_sector}"
        raise extent.error(message)
    inside = position % extent.table_span % extent.grain
    await debug.debug_event(extent.file.bs, debug.WRITE_AIO)
    await extent.file.co_pwritev(entry * SECTOR + inside, size, part)


# -- new grains, with the lock


async def _write_new(s: VmdkState, extent: Extent, position: int, nbytes: int, part: Iov) -> int:
    """Writes a run into new grains, and links them (R1, R2)."""
    s.check_parent()
    table = await ensure_table(extent, position)
    entry, size = run_of(extent, table, position, nbytes)
    if extent.holds_data(entry):  # somebody was faster
        await _overwrite(extent, entry, position, iov_slice(part, 0, size), size)
        return size
    inside = position % extent.table_span % extent.grain
    size = min(size, max(extent.grain, f.REQUEST_MAX_BYTES - extent.grain) - inside)
    count = -(-(inside + size) // extent.grain)
    start, tail = position - inside, count * extent.grain - inside - size
    sector = allocate(extent, count * extent.grain)
    copies = s.bs.backing is not None and not is_zero_entry(extent, entry)
    whole = [
        *await _edge(s, extent, start, inside, copies),
        *iov_slice(part, 0, size),
        *await _edge(s, extent, position + size, tail, copies),
    ]
    await debug.debug_event(extent.file.bs, debug.WRITE_AIO)
    await extent.file.co_pwritev_new(sector * SECTOR, count * extent.grain, whole)
    await extent.file.co_flush()
    step = extent.grain_sectors
    await set_entries(extent, start, array("I", range(sector, sector + count * step, step)))
    return size


async def _edge(s: VmdkState, extent: Extent, position: int, size: int, copies: bool) -> Iov:
    """What belongs before or behind the data: the backing file's bytes, or zeroes.

    A last grain may reach beyond the end of its extent. There the disk has nothing.
    """
    inside = min(size, extent.length - position) if copies else 0
    if inside <= 0:
        return zero_iov(size)
    assert s.bs.backing is not None, "only a backing file is copied from"
    buffer = blockalign(inside)
    await debug.debug_event(extent.file.bs, debug.COW_READ)
    await s.bs.backing.co_preadv(extent.start + position, inside, [buffer])
    return [buffer, *zero_iov(size - inside)]


# -- compressed grains


async def _write_compressed(
    s: VmdkState, extent: Extent, position: int, nbytes: int, part: Iov
) -> int:
    """Writes grains of one table, which must be whole, or the disk's last (vmdk_write_extent)."""
    size = min(nbytes, packed_at_once(extent.grain), extent.table_end(position) - position)
    if position + size < extent.length:
        size -= size % extent.grain
    if not size or position % extent.table_span % extent.grain:
        message = "Only whole grains can be written to a streamOptimized image"
        raise BlockError(errno.EINVAL, message, s.bs.node_name, "vmdk", extent.start + position)
    grains = await co_pack_grains(s, extent, size, part)
    async with s.lock:
        await _check_unused(s, extent, position, size)
        sectors = await co_write_grains(extent, (extent.start + position) // SECTOR, grains)
        await extent.file.co_flush()
        await set_entries(extent, position, array("I", sectors))
    return size


async def _check_unused(s: VmdkState, extent: Extent, position: int, nbytes: int) -> None:
    """Raises where a compressed grain would be written a second time (compressed.py, R1)."""
    entry, size = run_of(extent, await ensure_table(extent, position), position, nbytes)
    if entry or size < nbytes:
        message = "Could not write to allocated cluster for streamOptimized"
        at = extent.start + position + (0 if entry else size)
        raise BlockError(errno.EIO, message, s.bs.node_name, "vmdk", at)


# -- zeroes


async def co_pwrite_zeroes(s: VmdkState, offset: int, nbytes: int) -> None:
    """Writes zeroes by entries, where grains are whole and the header allows it (R5)."""
    async with s.lock:
        for extent, position, size in _parts(s, offset, nbytes):
            if not await _can_zero(s, extent, position, size):
                message = "No efficient zero writes"
                raise BlockError(errno.ENOTSUP, message, s.bs.node_name, "vmdk", offset)
        for extent, position, size in _parts(s, offset, nbytes):
            await _zero(extent, position, size)
    await s.update_cid()


def _parts(s: VmdkState, offset: int, nbytes: int) -> Iterator[tuple[Extent, int, int]]:
    """What a range is in each extent that it touches: extent, offset there, bytes."""
    while nbytes:
        extent = extent_at(s, offset)
        size = min(nbytes, extent.end - offset)
        yield extent, offset - extent.start, size
        offset, nbytes = offset + size, nbytes - size


async def _can_zero(s: VmdkState, extent: Extent, position: int, nbytes: int) -> bool:
    """Whether whole grains can be zero without being written. Without zero grains only those
    can that are not there, and that no backing file has."""
    if extent.flat:
        return True
    end = position + nbytes
    if extent.compressed or position % extent.grain:
        return False
    if end % extent.grain and end != extent.length:
        return False
    while not extent.zero_grains and position < end:
        table = await table_at(extent, position)
        entry, size = run_of(extent, table, position, end - position)
        if entry or s.bs.backing is not None:
            return False
        position += size
    return True


async def _zero(extent: Extent, position: int, nbytes: int) -> None:
    if extent.flat:
        await extent.file.co_pwrite_zeroes(extent.flat_offset + position, nbytes)
        return
    end = position + nbytes
    while extent.zero_grains and position < end:
        table = await ensure_table(extent, position)
        stop = min(end, extent.table_end(position))
        entry, size = run_of(extent, table, position, stop - position)
        if entry != GTE_ZEROED or size < stop - position:
            count = -(-(stop - position) // extent.grain)
            await set_entries(extent, position, array("I", [GTE_ZEROED]) * count)
        position = stop
