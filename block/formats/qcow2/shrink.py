# SPDX-License-Identifier: GPL-2.0-only
"""A shorter disk (qcow2_shrink_l1_table, qcow2_shrink_reftable, qcow2_get_last_cluster).

    1. L2 entries behind the new end become unallocated, their clusters are freed
    2. L1 entries that are not needed become 0, their L2 tables are freed
    3. refcount blocks that count nothing are taken out of the refcount table
    4. the file ends behind its last cluster in use
    5. the header gets the new size (truncate.py)

R1  L1 and L2 entries are in the file, flushed, before refcount blocks go; those before the file
    is cut. A crash in between leaves a disk of the old length whose end reads as unallocated.
R2  L1 table and refcount table stay where they are, as long as they are: entries become 0.
R3  Where the refcount table cannot be written, it is as it was (switch.py): blocks that are still
    used here must not be missing there.
Who may call it: coroutines in the node's context that hold the image's lock.
"""

from __future__ import annotations

from block.core import debug
from block.core.report import warn_report
from block.formats.qcow2.cache import to_disk
from block.formats.qcow2.corrupt import (
    OL_ACTIVE_L1,
    OL_REFTABLE,
    check_overlap,
    signal_corruption,
)
from block.formats.qcow2.dirty import flush_caches
from block.formats.qcow2.free import free_clusters, pass_down
from block.formats.qcow2.layout import ENTRY_SIZE, OFFSET_MASK, REFTABLE_OFFSET_MASK
from block.formats.qcow2.refcount import get_cell, last_used, load_block, set_cell
from block.formats.qcow2.switch import switch
from block.formats.qcow2.zero import forget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

    from block.formats.qcow2.state import Qcow2State


async def shrink(s: Qcow2State, old: int, size: int) -> None:
    """Lets go of all that lies behind the new end; all but the header is written then."""
    start = size + -size % s.cluster_size
    if start < old:
        await forget(s, start, old - start)
    await _drop_l2_tables(s, s.l1_entries(size))
    await flush_caches(s)
    await _drop_refblocks(s)
    await flush_caches(s)
    await _cut_file(s)


async def _drop_l2_tables(s: Qcow2State, keep: int) -> None:
    """Empties the L1 table from an index on (qcow2_shrink_l1_table).

    Where the write fails, the entries are gone from memory all the same: who knows what is on the
    disk? Then the tables are leaked.
    """
    entries = s.l1_table[keep:]
    if not any(entries):
        return
    zeroes = memoryview(bytes(ENTRY_SIZE * len(entries)))
    at = s.l1_offset + ENTRY_SIZE * keep
    await check_overlap(s, at, len(zeroes), OL_ACTIVE_L1)
    await debug.debug_event(s.file.bs, debug.L1_SHRINK_WRITE_TABLE)
    try:
        await s.file.co_pwritev(at, len(zeroes), [zeroes])
        await s.file.co_flush()
    finally:
        for index in range(keep, len(s.l1_table)):
            s.l1_table[index] = 0
    await debug.debug_event(s.file.bs, debug.L1_SHRINK_FREE_L2_CLUSTERS)
    places: list[int] = []
    for entry in entries:
        place = entry & OFFSET_MASK
        if place & s.cluster_mask:
            await signal_corruption(s, f"Cannot free unaligned cluster {place:#x}", fatal=False)
        elif place:
            s.l2_clusters().discard(place)
            await free_clusters(s, place, s.cluster_size, places)
    await pass_down(s, places)


async def _drop_refblocks(s: Qcow2State) -> None:
    """Takes blocks that count nothing but themselves out of the table (qcow2_shrink_reftable)."""
    table = s.reftable[:]
    dropped = {}
    for index, entry in enumerate(s.reftable):
        place = entry & REFTABLE_OFFSET_MASK
        if place:
            block = await load_block(s, index << s.refblock_bits)
            assert block is not None, "the table has an entry for it"
            if _counts_nothing(s, block.cells, index, place >> s.cluster_bits):
                table[index] = 0
                dropped[index] = place
    if not dropped:
        return
    data = to_disk(table)
    await check_overlap(s, s.reftable_offset, len(data), OL_REFTABLE)
    await switch(s, s.reftable_offset, data)
    s.reftable = table
    s.refblock_clusters().difference_update(dropped.values())
    s.suspects = None
    await _free_blocks(s, dropped)


def _counts_nothing(s: Qcow2State, cells: array[int], index: int, cluster: int) -> bool:
    if cluster >> s.refblock_bits != index:
        return not any(cells)
    at = cluster & (1 << s.refblock_bits) - 1
    own = get_cell(s, cells, at)
    set_cell(s, cells, at, 0)
    empty = not any(cells)
    set_cell(s, cells, at, own)
    return empty


async def _free_blocks(s: Qcow2State, dropped: dict[int, int]) -> None:
    """Frees the blocks themselves. Who counted itself is not counted any more."""
    places: list[int] = []
    for place in dropped.values():
        cluster = place >> s.cluster_bits
        if cluster >> s.refblock_bits in dropped:
            s.refcount_cache.forget(place, s.cluster_size)
            s.free_cluster = min(s.free_cluster, cluster)
            places.append(place)
        else:
            await free_clusters(s, place, s.cluster_size, places)
    await pass_down(s, places)


async def _cut_file(s: Qcow2State) -> None:
    """Ends the file behind the last cluster in use. Who cannot do that has a longer file."""
    end = await end_of_clusters(s)
    if end < s.file.bs.getlength():
        try:
            await s.file.co_truncate(end)
        except OSError as error:
            warn_report(f"Failed to truncate the tail of the image: {error}")


async def end_of_clusters(s: Qcow2State) -> int:
    """Where the last cluster ends that is in use (qcow2_get_last_cluster)."""
    last = s.clusters(s.file.bs.getlength()) - 1
    for index in range(last >> s.refblock_bits, -1, -1):
        block = await load_block(s, index << s.refblock_bits)
        if block is None:
            continue
        at = _last_counted(s, block.cells)
        if at >= 0:
            return min((index << s.refblock_bits) + at, last) + 1 << s.cluster_bits
    raise await signal_corruption(s, "There are no references in the refcount table.")


def _last_counted(s: Qcow2State, cells: array[int]) -> int:
    """The index of the last cluster that a block counts; -1: none."""
    at = last_used(cells)
    if s.refcount_order >= 3 or at < 0:
        return at
    per_byte = 8 >> s.refcount_order
    at = at * per_byte + per_byte - 1
    while not get_cell(s, cells, at):
        at -= 1
    return at
