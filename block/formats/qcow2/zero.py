# SPDX-License-Identifier: GPL-2.0-only
"""Zero clusters and discard (qcow2_subcluster_zeroize, qcow2_cluster_discard).

    an entry becomes      write of zeroes            discard
    unallocated           zero                       zero with a backing file, else as it is
    zero, with a cluster  as it is                   zero, the cluster freed
    data                  zero, keeps its cluster    zero, the cluster freed
    compressed            zero, the cluster freed    zero, the cluster freed

(With MAY_UNMAP a write of zeroes frees clusters too. Version 2 has no zero entries: a discard
leaves unallocated ones, and only without a backing file.)

R1  All entries of a slice are changed between two awaits, then the clusters are freed: no read
    finds an entry whose cluster is gone.
R2  Nobody may be writing to a cluster that is freed: write.settle.
R3  What is smaller than a cluster, or a subcluster where there are such, is zeroed here only
    where the rest of it reads as zeroes; else ENOTSUP, and the core writes zeroes.
R4  Freed clusters are discarded in the file, merged into long ranges, before the lock is let go:
    later they could be somebody's. So no wait for others stands between freeing and that.
R5  A request that ends within a cluster, at the end of the disk, takes all of that cluster; but not
    if the disk has grown while it waited for the lock: somebody may have written there.
Who may call it: coroutines in the node's context.
"""

from __future__ import annotations

import errno
from array import array

from block.core import flags as f
from block.core.error import BlockError
from block.core.status import co_block_status_above
from block.formats.qcow2 import datafile, subcluster
from block.formats.qcow2.cluster import (
    bytes_without_table,
    check_entry,
    load_slice,
    lookup,
    writable_slice,
)
from block.formats.qcow2.free import free_entry, pass_down
from block.formats.qcow2.layout import OFFSET_MASK, OFLAG_ZERO
from block.formats.qcow2.state import COMPRESSED, HOLES, NORMAL, ZERO_ALLOC, ZEROES
from block.formats.qcow2.write import settle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.core.node import BlockDriverState
    from block.formats.qcow2.cache import Table
    from block.formats.qcow2.state import Qcow2State

    # the new entry for an old one
    Change = Callable[[int], int]


def _unsupported() -> BlockError:
    return BlockError(errno.ENOTSUP, driver="qcow2")


async def co_pwrite_zeroes(bs: BlockDriverState, offset: int, nbytes: int, flags: int) -> None:
    """Writes zeroes by changing entries only (qcow2_co_pwrite_zeroes)."""
    s: Qcow2State = bs.opaque
    head = offset & s.subcluster_mask
    end = offset + nbytes
    tail = -end & s.subcluster_mask
    if end == bs.total_sectors << 9:
        tail = 0
    if head or tail:
        before = await _is_zero(bs, offset - head, head)
        if not (before and await _is_zero(bs, end, tail)):
            raise _unsupported()
    async with s.lock:
        _check_end(s, end + tail, s.subcluster_mask)
        if head or tail:
            # A write may have come in between, or be on its way to the rest of the cluster.
            while await settle(s, offset - head, end + tail):
                continue
            kind, _, _ = await lookup(s, offset - head, s.subcluster_size)
            if kind not in HOLES + ZEROES:
                raise _unsupported()
        await zeroize(s, offset - head, head + nbytes + tail, flags)


async def _is_zero(bs: BlockDriverState, offset: int, nbytes: int) -> bool:
    """Whether a range reads as zeroes, by the tables alone (is_zero)."""
    nbytes = min(nbytes, max(0, (bs.total_sectors << 9) - offset))
    while nbytes:
        ret, size, _, _ = await co_block_status_above(bs, None, True, offset, nbytes)
        if not ret & f.BDRV_BLOCK_ZERO or not size:
            return False
        offset, nbytes = offset + size, nbytes - size
    return True


async def zeroize(s: Qcow2State, offset: int, nbytes: int, flags: int) -> None:
    """Makes whole clusters, or subclusters, read as zeroes; with the lock
    (qcow2_subcluster_zeroize)."""
    end = offset + nbytes
    if datafile.is_raw(s):
        await _zero_data_file(s, offset, nbytes, flags)
    if s.version < 3:
        if s.bs.backing is not None:
            raise _unsupported()
        await discard(s, offset, nbytes)
        return
    may_unmap = bool(flags & f.REQ_MAY_UNMAP)

    def change(entry: int) -> int:
        kind = s.cluster_type(entry)
        if kind == COMPRESSED or (may_unmap and kind in (NORMAL, ZERO_ALLOC)):
            return OFLAG_ZERO
        return entry | OFLAG_ZERO

    start = min(end, offset + -offset % s.cluster_size)
    stop = end if end >= s.bs.total_sectors << 9 else max(start, s.start_of_cluster(end))
    await _zero_part(s, offset, start - offset)
    await _change_all(s, start, stop - start, change, holes=True)
    await _zero_part(s, stop, end - stop)


async def _zero_part(s: Qcow2State, offset: int, nbytes: int) -> None:
    """Zeroes some subclusters of one cluster (zero_l2_subclusters)."""
    if not nbytes:
        return
    table = await writable_slice(s, offset)
    while await settle(s, offset, offset + nbytes):
        table = await writable_slice(s, offset)
    await check_entry(s, table, offset)
    if not subcluster.mark_zero(s, table, offset, nbytes):
        raise _unsupported()
    s.l2_cache.mark_dirty(table)


async def _zero_data_file(s: Qcow2State, offset: int, nbytes: int, flags: int) -> None:
    """The guest's data in their own file must be zero, too (datafile.py, R2). Behind the end of the
    disk they are: there the file grows when the disk does."""
    while await settle(s, offset, offset + nbytes):
        continue
    nbytes = min(nbytes, (s.bs.total_sectors << 9) - offset)
    if nbytes > 0:
        await s.data.co_pwrite_zeroes(offset, nbytes, flags & f.REQ_MAY_UNMAP)


async def co_pdiscard(bs: BlockDriverState, offset: int, nbytes: int) -> None:
    """Discards whole clusters (qcow2_co_pdiscard)."""
    s: Qcow2State = bs.opaque
    if s.version < 3 and bs.backing is not None:
        raise _unsupported()
    at_end = offset + nbytes == bs.total_sectors << 9
    if offset & s.cluster_mask or ((offset + nbytes) & s.cluster_mask and not at_end):
        raise _unsupported()
    async with s.lock:
        _check_end(s, offset + nbytes, s.cluster_mask)
        await discard(s, offset, nbytes)


def _check_end(s: Qcow2State, end: int, mask: int) -> None:
    """Raises where a range does not end any more where it seemed to (R5)."""
    if end & mask and end != s.bs.total_sectors << 9:
        raise _unsupported()


async def discard(s: Qcow2State, offset: int, nbytes: int) -> None:
    """Lets whole clusters go; with the lock (qcow2_cluster_discard)."""
    if datafile.is_raw(s):
        await _zero_data_file(s, offset, nbytes, f.REQ_MAY_UNMAP)
    nothing = OFLAG_ZERO if s.version >= 3 else 0

    def change(entry: int) -> int:
        allocated = s.cluster_type(entry) in (NORMAL, ZERO_ALLOC, COMPRESSED)
        return nothing if allocated or s.bs.backing is not None else entry

    await _change_all(s, offset, nbytes, change)


async def forget(s: Qcow2State, offset: int, nbytes: int) -> None:
    """As if nobody had ever written there: whole clusters become unallocated, in version 3 and
    over a backing file, too (full_discard). They are discarded in the file; with the lock."""
    await _change_all(s, offset, nbytes, lambda entry: 0, forgets=True)


async def _change_all(
    s: Qcow2State,
    offset: int,
    nbytes: int,
    change: Change,
    *,
    forgets: bool = False,
    holes: bool = False,
) -> None:
    """Applies a change to the entries of all clusters of a range, slice by slice.

    Clusters without an L2 table get one if there is a backing file, or for `holes`.
    """
    end = offset + nbytes
    while offset < end:
        if forgets and not s.l1_table[offset >> s.l1_shift] & OFFSET_MASK:
            offset += bytes_without_table(s, offset, end - offset)
            continue
        stop = min(end, ((offset >> s.slice_shift) + 1) << s.slice_shift)
        places: list[int] | None = [] if forgets or s.pass_discard else None
        count = s.clusters(stop - offset)
        if holes or s.bs.backing is not None or await load_slice(s, offset) is not None:
            freed = await _change_slice(s, offset, count, change)
        else:
            freed = []  # reads as zeroes already
        for entry in freed:
            await free_entry(s, entry, places)
        if places:
            await pass_down(s, places, s.data)
        offset = stop


async def _change_slice(s: Qcow2State, offset: int, count: int, change: Change) -> list[int]:
    """Changes entries of one slice; returns the old ones that pointed to a cluster let go."""
    table = await writable_slice(s, offset)
    while await settle(s, offset, offset + (count << s.cluster_bits)):
        table = await writable_slice(s, offset)
    freed: list[int] = []
    index = s.slice_index(offset)
    if table.bitmaps is None and not any(table.cells[index : index + count]):
        _fill_holes(s, table, index, count, change(0))
        return freed
    for at in range(index, index + count):
        old = table.cells[at] if table.bitmaps is None else subcluster.plain_entry(table, at)
        new = change(old)
        if new != old:
            _set_entry(table, at, new)
            s.l2_cache.mark_dirty(table)
            if old & s.place_flags and not new & s.place_flags:
                freed.append(old)
    return freed


def _fill_holes(s: Qcow2State, table: Table, index: int, count: int, entry: int) -> None:
    """The quick way for entries that are all 0."""
    if entry:
        table.cells[index : index + count] = array("Q", [entry]) * count
        s.l2_cache.mark_dirty(table)


def _set_entry(table: Table, index: int, entry: int) -> None:
    if table.bitmaps is None:
        table.cells[index] = entry
    else:
        subcluster.set_plain_entry(table, index, entry)
