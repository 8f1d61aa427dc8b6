# SPDX-License-Identifier: GPL-2.0-only
"""How often each cluster of the file is in use (block/qcow2-refcount.c).

    refcount table -> refcount block -> the refcount of one cluster, 1 to 64 bits wide

    this        reading refcounts, and changing them where their blocks exist
    refgrow     new blocks and a larger table
    alloc       which clusters are taken next
    free        clusters that nobody needs any more, and let_go: not yet to be taken again

R1  To count up needs no space: whoever takes clusters has seen to their blocks before.
R2  Counting down makes the refcount cache depend on the L2 cache: the entry that pointed to
    the cluster is gone from the disk before the cluster is free there.
Who may call it: coroutines that hold the image's lock.
"""

from __future__ import annotations

from array import array

from block.core import debug
from block.core.error import BlockError
from block.formats.qcow2.corrupt import check_usable, signal_corruption
from block.formats.qcow2.layout import REFTABLE_OFFSET_MASK
from block.formats.qcow2.state import refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.formats.qcow2.cache import Table
    from block.formats.qcow2.state import Qcow2State

TYPECODES = "BBBBHIQ"
"""The `array` that a refcount block is in memory, by refcount_order; below 8 bits, packed bytes."""


def get_cell(s: Qcow2State, cells: array[int], index: int) -> int:
    """The refcount at an index of a block."""
    order = s.refcount_order
    if order >= 3:
        return cells[index]
    shift = (index << order) & 7
    return cells[index << order >> 3] >> shift & s.refcount_max


def get_cells(s: Qcow2State, cells: array[int], start: int, stop: int) -> array[int] | list[int]:
    """The refcounts of a part of a block."""
    if s.refcount_order >= 3:
        return cells[start:stop]
    return [get_cell(s, cells, index) for index in range(start, stop)]


def set_cell(s: Qcow2State, cells: array[int], index: int, value: int) -> None:
    """Changes the refcount at an index of a block."""
    order = s.refcount_order
    if order >= 3:
        cells[index] = value
        return
    shift = (index << order) & 7
    at = index << order >> 3
    cells[at] = cells[at] & ~(s.refcount_max << shift) | value << shift


def last_used(cells: array[int]) -> int:
    """The index of the last number of a block that is not 0; -1 if all are."""
    return -(-len(cells.tobytes().rstrip(b"\0")) // cells.itemsize) - 1


# -- reading


async def load_block(s: Qcow2State, cluster: int) -> Table | None:
    """The refcount block for a cluster, or None where there is none yet: all free."""
    check_usable(s)
    index = cluster >> s.refblock_bits
    place = s.reftable[index] & REFTABLE_OFFSET_MASK if index < len(s.reftable) else 0
    if not place:
        return None
    if place & s.cluster_mask:
        raise await signal_corruption(
            s, f"Refblock offset {place:#x} unaligned (reftable index: {index:#x})"
        )
    return await s.refcount_cache.get(place)


async def get_refcount(s: Qcow2State, cluster: int) -> int:
    """How often a cluster is in use (qcow2_get_refcount)."""
    block = await load_block(s, cluster)
    if block is None:
        return 0
    return get_cell(s, block.cells, cluster & (1 << s.refblock_bits) - 1)


async def get_refcounts(s: Qcow2State, cluster: int, count: int) -> list[int]:
    """How often each of adjacent clusters is in use."""
    per_block = 1 << s.refblock_bits
    found: list[int] = []
    end = cluster + count
    while cluster < end:
        block = await load_block(s, cluster)
        start = cluster & per_block - 1
        stop = min(start + end - cluster, per_block)
        found += [0] * (stop - start) if block is None else get_cells(s, block.cells, start, stop)
        cluster += stop - start
    return found


# -- counting


async def change_refcounts(s: Qcow2State, cluster: int, count: int, addend: int) -> list[int]:
    """Adds 1 or -1 to the refcounts of adjacent clusters (update_refcount); returns those now free.

    Raises EINVAL where a refcount would become negative or too large. After a failure all are
    as they were, if the disk allows.
    """
    if addend < 0:
        await s.refcount_cache.set_dependency(s.l2_cache)
    per_block = 1 << s.refblock_bits
    freed: list[int] = []
    at, end = cluster, cluster + count
    try:
        while at < end:
            if s.file.bs.debugged:
                await debug.debug_event(s.file.bs, debug.REFBLOCK_ALLOC)
                await debug.debug_event(s.file.bs, debug.REFBLOCK_LOAD)
            block = await load_block(s, at)
            if block is None:
                raise _impossible(s, at, -1)
            start = at & per_block - 1
            stop = min(start + end - at, per_block)
            before = get_cells(s, block.cells, start, stop)
            limit = s.refcount_max if addend > 0 else 0
            if limit in before:
                raise _impossible(s, at + before.index(limit), addend)
            _add_to_cells(s, block.cells, start, before, addend)
            s.refcount_cache.mark_dirty(block)
            if addend < 0:
                freed += [at + index for index, value in enumerate(before) if value == 1]
            at += stop - start
    except OSError:
        if at > cluster:
            await _undo(s, cluster, at - cluster, -addend)
        raise
    return freed


def _add_to_cells(
    s: Qcow2State, cells: array[int], start: int, before: array[int] | list[int], addend: int
) -> None:
    if len(before) > 1 and s.refcount_order >= 3:
        after = array(cells.typecode, map(addend.__add__, before))
        cells[start : start + len(before)] = after
        return
    for index, value in enumerate(before, start):
        set_cell(s, cells, index, value + addend)


async def _undo(s: Qcow2State, cluster: int, count: int, addend: int) -> None:
    """Takes a change back. If that fails, too, clusters are leaked."""
    try:
        await change_refcounts(s, cluster, count, addend)
    except OSError:
        return


def _impossible(s: Qcow2State, cluster: int, addend: int) -> BlockError:
    message = f"qcow2: the refcount of cluster {cluster:#x} is wrong"
    if addend > 0:
        message = f"qcow2: refcount_bits={s.refcount_bits} is too little for cluster {cluster:#x}"
    return refuse(s, message)
