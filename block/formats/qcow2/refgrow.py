# SPDX-License-Identifier: GPL-2.0-only
"""New refcount blocks, and a larger refcount table (alloc_refcount_block, qcow2_refcount_area).

The clusters that these take must be counted, too: by themselves, if need be.

    a new block     is the first free cluster; mostly that lies in the range which it counts
    a larger table  begins where the old one ends to count: [ new blocks | new table ]
                    The new blocks count themselves and the table behind them.

R1  Whatever is made here is on the disk before something points to it: block, then table entry;
    table, then header.
R2  Each step may take the very clusters that the caller meant to use: it searches again.
Who may call it: alloc.py, with the image's lock held.
"""

from __future__ import annotations

import errno
from array import array

from block.core import debug
from block.formats.qcow2.alloc import find_free
from block.formats.qcow2.cache import to_disk
from block.formats.qcow2.corrupt import OL_REFTABLE, signal_corruption, write_checked
from block.formats.qcow2.free import free_table
from block.formats.qcow2.layout import (
    ENTRY_SIZE,
    MAX_REFTABLE_SIZE,
    REFCOUNT_PLACE,
    REFCOUNT_TABLE_AT,
    REFTABLE_OFFSET_MASK,
)
from block.formats.qcow2.refcount import TYPECODES, change_refcounts, set_cell
from block.formats.qcow2.state import refuse
from block.formats.qcow2.switch import switch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.formats.qcow2.state import Qcow2State


async def ensure_blocks(s: Qcow2State, first: int, count: int) -> bool:
    """Makes the next refcount block that adjacent clusters lack. False: none was missing."""
    last = first + count - 1 >> s.refblock_bits
    if last >= len(s.reftable):
        await _grow_table(s, last + 1)
        return True
    for index in range(first >> s.refblock_bits, last + 1):
        if not s.reftable[index] & REFTABLE_OFFSET_MASK:
            await _new_block(s, index)
            return True
    return False


def _empty_block(s: Qcow2State) -> array[int]:
    typecode = TYPECODES[s.refcount_order]
    return array(typecode, bytes(s.cluster_size))


async def _new_block(s: Qcow2State, index: int) -> None:
    """Makes the refcount block with that index in the table."""
    await debug.debug_event(s.file.bs, debug.REFBLOCK_ALLOC)
    await s.l2_cache.flush()
    cluster = await find_free(s, 1)
    if cluster == 0:
        raise await signal_corruption(
            s, "Preventing invalid allocation of refcount block at offset 0"
        )
    home = cluster >> s.refblock_bits
    if home != index and await ensure_blocks(s, cluster, 1):
        s.free_cluster = min(s.free_cluster, cluster)
        return
    cells = _empty_block(s)
    if home == index:
        set_cell(s, cells, cluster & (1 << s.refblock_bits) - 1, 1)
    else:
        await change_refcounts(s, cluster, 1, 1)
        await s.refcount_cache.flush()
    place = cluster << s.cluster_bits
    await debug.debug_event(s.file.bs, debug.REFBLOCK_ALLOC_WRITE)
    await s.refcount_cache.put(place, cells)
    await s.refcount_cache.flush()
    await debug.debug_event(s.file.bs, debug.REFBLOCK_ALLOC_HOOKUP)
    entry = to_disk(array("Q", [place]))
    await _write_sync(s, s.reftable_offset + ENTRY_SIZE * index, entry, OL_REFTABLE)
    s.reftable[index] = place
    s.add_refblock_cluster(place)


async def _write_sync(s: Qcow2State, offset: int, data: memoryview, ignore: int = 0) -> None:
    await write_checked(s, offset, data, ignore)
    await s.file.co_flush()


def plan_table(s: Qcow2State, needed: int) -> tuple[int, int]:
    """(entries of the new table, new blocks): half as many again as needed, whole clusters."""
    per_cluster = s.cluster_size // ENTRY_SIZE
    blocks = 1
    while True:
        wanted = max(needed, len(s.reftable) + blocks)
        entries = -(-(wanted + wanted // 2) // per_cluster) * per_cluster
        if blocks << s.refblock_bits >= blocks + entries // per_cluster:
            return entries, blocks
        blocks += 1


async def _grow_table(s: Qcow2State, needed: int) -> None:
    """Moves the refcount table to a larger place."""
    await debug.debug_event(s.file.bs, debug.REFTABLE_GROW)
    entries, blocks = plan_table(s, needed)
    if entries * ENTRY_SIZE > MAX_REFTABLE_SIZE:
        message = "qcow2: the refcount table would become too large"
        raise refuse(s, message, errno.EFBIG)
    await s.l2_cache.flush()
    first = len(s.reftable) << s.refblock_bits
    table_clusters = entries * ENTRY_SIZE // s.cluster_size
    places = await _write_new_blocks(s, first, blocks, blocks + table_clusters)
    table = s.reftable + array("Q", places)
    table.extend([0] * (entries - len(table)))
    old_offset, old_size = s.reftable_offset, ENTRY_SIZE * len(s.reftable)
    offset = first + blocks << s.cluster_bits
    await debug.debug_event(s.file.bs, debug.REFBLOCK_ALLOC_WRITE_TABLE)
    await _write_sync(s, offset, to_disk(table))
    where = {"refcount_table_offset": offset, "refcount_table_clusters": table_clusters}
    head = memoryview(REFCOUNT_PLACE.build(where))
    await debug.debug_event(s.file.bs, debug.REFBLOCK_ALLOC_SWITCH_TABLE)
    await switch(s, REFCOUNT_TABLE_AT, head)
    s.reftable, s.reftable_offset = table, offset
    s.refblock_clusters().update(places)
    s.suspects = None
    await free_table(s, old_offset, old_size)


async def _write_new_blocks(s: Qcow2State, first: int, blocks: int, used: int) -> list[int]:
    """Writes blocks at cluster `first` that count the `used` clusters from there on."""
    per_block = 1 << s.refblock_bits
    places = []
    for number in range(blocks):
        cells = _empty_block(s)
        for index in range(min(per_block, used - number * per_block)):
            set_cell(s, cells, index, 1)
        place = first + number << s.cluster_bits
        await s.refcount_cache.put(place, cells)
        places.append(place)
    await debug.debug_event(s.file.bs, debug.REFBLOCK_ALLOC_WRITE_BLOCKS)
    await s.refcount_cache.flush()
    return places
