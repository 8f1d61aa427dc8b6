# SPDX-License-Identifier: GPL-2.0-only
"""From a guest offset to a host offset; new L2 tables, a longer L1 table (qcow2-cluster.c).

    L1 table[offset >> l1_shift] -> L2 table[...] -> entry: type, host offset
                                                     flags: COPIED, COMPRESSED, ZERO

R1  An answer is an extent: it holds for as many bytes as have the same type and, where they
    have a place, lie side by side in the file. Compressed clusters have each a place of its own;
    the answer tells the first one's, and how many bytes follow that are compressed, too.
R2  An L2 table is written only if its L1 entry says COPIED; else it is copied first. A new table
    is on the disk before the L1 entry that points to it.
Who may call it: coroutines that hold the image's lock; `extent_in` anyone.
"""

from __future__ import annotations

import errno
from array import array

from block.core import debug
from block.core.error import BlockError
from block.formats.qcow2 import subcluster
from block.formats.qcow2.alloc import alloc_clusters
from block.formats.qcow2.cache import join, to_disk
from block.formats.qcow2.compressed_entry import compressed_run
from block.formats.qcow2.corrupt import (
    OL_ACTIVE_L1,
    check_overlap,
    check_usable,
    signal_corruption,
)
from block.formats.qcow2.free import free_table
from block.formats.qcow2.layout import (
    ENTRY_SIZE,
    L1_PLACE,
    L1_SIZE_AT,
    MAX_L1_SIZE,
    NOT_PLAIN,
    OFFSET_MASK,
    OFLAG_COPIED,
    OFLAG_ZERO,
)
from block.formats.qcow2.runs import goes_on
from block.formats.qcow2.state import COMPRESSED, NORMAL, UNALLOCATED, ZERO_ALLOC
from block.formats.qcow2.switch import switch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from block.formats.qcow2.cache import Table
    from block.formats.qcow2.state import Qcow2State

# (type, host offset, bytes); of a compressed cluster the entry instead of the offset
Extent: TypeAlias = "tuple[int, int, int]"

SAME = OFFSET_MASK | NOT_PLAIN
MANY = 8  # entries that are compared at once rather than one by one


def extent_in(s: Qcow2State, table: Table, offset: int, nbytes: int) -> Extent:
    """What a slice says about the bytes at a guest offset (R1)."""
    if table.bitmaps is not None:
        return subcluster.extent_in(s, table, offset, nbytes)
    cells = table.cells
    index = s.slice_index(offset)
    inside = offset & s.cluster_mask
    nbytes = min(nbytes, (s.slice_mask + 1 - index << s.cluster_bits) - inside)
    first = cells[index]
    kind = s.cluster_type(first)
    end = index + s.clusters(inside + nbytes)
    if kind == COMPRESSED:
        count = compressed_run(cells, index, end)
        return kind, first, min(nbytes, (count << s.cluster_bits) - inside)
    placed = kind in (NORMAL, ZERO_ALLOC)
    expected, step = first & SAME, s.cluster_size if placed else 0
    at = index + 1
    if end - at >= MANY and goes_on(cells, index, end, step):
        at = end
    while at < end and cells[at] & SAME == expected + step:
        expected += step
        at += 1
    host = (first & OFFSET_MASK) + inside if placed else 0
    return kind, host, min(nbytes, (at - index << s.cluster_bits) - inside)


async def load_slice(s: Qcow2State, offset: int) -> Table | None:
    """The L2 slice for a guest offset; None where there is no L2 table (l2_load)."""
    check_usable(s)
    index = offset >> s.l1_shift
    l2_offset = s.l1_table[index] & OFFSET_MASK
    if not l2_offset:
        return None
    if l2_offset & s.cluster_mask:
        raise await signal_corruption(
            s, f"L2 table offset {l2_offset:#x} unaligned (L1 index: {index:#x})"
        )
    return await s.l2_cache.get(s.slice_place(l2_offset, offset))


async def lookup(s: Qcow2State, offset: int, nbytes: int) -> Extent:
    """Where the bytes at a guest offset are (qcow2_get_host_offset)."""
    table = await load_slice(s, offset)
    if table is None:
        return UNALLOCATED, 0, bytes_without_table(s, offset, nbytes)
    found = extent_in(s, table, offset, nbytes)
    await check_entry(s, table, offset)
    return found


def bytes_without_table(s: Qcow2State, offset: int, nbytes: int) -> int:
    """How many of the bytes have no L2 table: holes are large, and asked about at once."""
    end = offset + nbytes
    index = (offset >> s.l1_shift) + 1
    while index << s.l1_shift < end and not s.l1_table[index] & OFFSET_MASK:
        index += 1
    return min(end, index << s.l1_shift) - offset


async def check_entry(s: Qcow2State, table: Table, offset: int) -> None:
    """Raises where the L2 entry of a guest offset cannot be."""
    number = s.slice_index(offset)
    entry = table.cells[number]
    kind = s.cluster_type(entry)
    l2_offset = s.l1_table[offset >> s.l1_shift] & OFFSET_MASK
    index = offset >> s.cluster_bits & s.l2_size - 1
    where = f"(L2 offset: {l2_offset:#x}, L2 index: {index:#x})"
    if table.bitmaps is not None and subcluster.is_invalid(s, entry, table.bitmaps[number]):
        raise await signal_corruption(s, f"Invalid cluster entry found  {where}")
    if kind != COMPRESSED and entry & OFLAG_ZERO and s.version < 3:
        raise await signal_corruption(s, f"Zero cluster entry found in pre-v3 image {where}")
    if kind == COMPRESSED and s.external:
        what = "Compressed cluster entry found in image with external data file"
        raise await signal_corruption(s, f"{what} {where}")
    host = entry & OFFSET_MASK
    if kind in (NORMAL, ZERO_ALLOC) and host & s.cluster_mask:
        raise await signal_corruption(s, f"Cluster allocation offset {host:#x} unaligned {where}")
    guest = s.start_of_cluster(offset)
    if kind in (NORMAL, ZERO_ALLOC) and s.external and host != guest:
        raise await signal_corruption(
            s,
            f"External data file host cluster offset {host:#x} does not match guest cluster "
            f"offset: {guest:#x}, L2 index: {index:#x})",
        )


# -- tables that may be changed


def writable_at_once(s: Qcow2State, offset: int) -> Table | None:
    """As writable_slice, if the slice is in memory and of such a table."""
    table = s.cached_slice(offset)
    if table is None or s.broken or not s.l1_table[offset >> s.l1_shift] & OFLAG_COPIED:
        return None
    table.recent = True
    return table


async def writable_slice(s: Qcow2State, offset: int) -> Table:
    """The L2 slice for a guest offset, of a table that may be changed (get_cluster_table)."""
    found = writable_at_once(s, offset)
    if found is not None:
        return found
    index = offset >> s.l1_shift
    table = await load_slice(s, offset)
    if table is None or not s.l1_table[index] & OFLAG_COPIED:
        await _new_l2_table(s, index)
        table = await load_slice(s, offset)
        assert table is not None, "R2: the new table is hooked up"
    return table


async def _new_l2_table(s: Qcow2State, index: int) -> None:
    """Makes an L2 table, empty or a copy of the old one, and hooks it up (l2_allocate, R2)."""
    old = s.l1_table[index] & OFFSET_MASK
    place = await alloc_clusters(s, 1, "L2 table")
    await s.refcount_cache.flush()
    size = s.l2_cache.table_size
    for at in range(0, s.cluster_size, size):
        numbers = await _copy_slice(s, old + at) if old else array("Q", bytes(size))
        await debug.debug_event(s.file.bs, debug.L2_ALLOC_WRITE)
        await s.l2_cache.put(place + at, numbers)
    s.add_l2_cluster(place)
    await s.l2_cache.flush()
    entry = to_disk(array("Q", [place | OFLAG_COPIED]))
    at = s.l1_offset + ENTRY_SIZE * index
    await check_overlap(s, at, len(entry), OL_ACTIVE_L1)
    await debug.debug_event(s.file.bs, debug.L1_UPDATE)
    await s.file.co_pwritev(at, len(entry), [entry])
    await s.file.co_flush()
    s.l1_table[index] = place | OFLAG_COPIED
    if old:
        s.l2_clusters().discard(old)
        await free_table(s, old, s.cluster_size)


async def _copy_slice(s: Qcow2State, offset: int) -> array[int]:
    await debug.debug_event(s.file.bs, debug.L2_ALLOC_COW_READ)
    table = await s.l2_cache.get(offset)
    return join(table.cells[:], table.bitmaps)


async def grow_l1_table(s: Qcow2State, entries: int) -> None:
    """Moves the L1 table to a place where it can have more entries (qcow2_grow_l1_table)."""
    if entries <= len(s.l1_table):
        return
    if entries * ENTRY_SIZE > MAX_L1_SIZE:
        raise BlockError(errno.EFBIG, driver="qcow2")
    table = s.l1_table[:]
    table.extend([0] * (entries - len(table)))
    data = to_disk(table)
    await debug.debug_event(s.file.bs, debug.L1_GROW_ALLOC_TABLE)
    place = await alloc_clusters(s, s.clusters(len(data)), "L1 table")
    await s.refcount_cache.flush()
    await check_overlap(s, place, len(data))
    await debug.debug_event(s.file.bs, debug.L1_GROW_WRITE_TABLE)
    await s.file.co_pwritev(place, len(data), [data])
    await s.file.co_flush()
    head = memoryview(L1_PLACE.build({"l1_size": entries, "l1_table_offset": place}))
    await debug.debug_event(s.file.bs, debug.L1_GROW_ACTIVATE_TABLE)
    await switch(s, L1_SIZE_AT, head)
    old, old_size = s.l1_offset, ENTRY_SIZE * len(s.l1_table)
    s.l1_table, s.l1_offset = table, place
    s.suspects = None
    if old_size:
        await free_table(s, old, old_size)
