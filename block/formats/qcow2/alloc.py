# SPDX-License-Identifier: GPL-2.0-only
"""Which clusters of the file are taken next (qcow2_alloc_clusters, qcow2_alloc_bytes).

R1  To allocate means: find clusters with refcount 0, see to it that refcount blocks exist for
    them (refgrow.py; making one takes clusters too, so then the search begins again), and only
    then count up.
R2  `free_cluster` is where the next search begins: nothing below it is free, but what was let
    go (let_go.py).
R3  Compressed clusters share clusters of the file, each counted by all that reach into it.
    `free_byte` is where the next one goes, in a cluster that is in use; 0: into a new one.
Who may call it: coroutines that hold the image's lock.
"""

from __future__ import annotations

import errno

from block.core import debug
from block.core.error import BlockError
from block.formats.qcow2 import let_go
from block.formats.qcow2.compressed_entry import size_shift
from block.formats.qcow2.corrupt import signal_corruption
from block.formats.qcow2.layout import MAX_CLUSTER_OFFSET, REFTABLE_OFFSET_MASK
from block.formats.qcow2.refcount import change_refcounts, get_cell, get_refcount, load_block
from block.formats.qcow2.state import refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

    from block.formats.qcow2.state import Qcow2State


async def alloc_clusters(s: Qcow2State, count: int, what: str) -> int:
    """Allocates adjacent clusters; returns their offset in the file (qcow2_alloc_clusters).

    `what` they are for is said where the image claims that its own header is free.
    """
    first = _alloc_at_once(s, count)
    if not first:
        await debug.debug_event(s.file.bs, debug.CLUSTER_ALLOC)
        first = await _find_countable(s, count, what)
        await change_refcounts(s, first, count, 1)
    return first << s.cluster_bits


def _alloc_at_once(s: Qcow2State, count: int) -> int:
    """The same where the first free clusters are counted by one block, which is in memory.

    0: that is not so, or somebody wants to hear of events.
    """
    index = s.free_cluster >> s.refblock_bits
    if s.refcount_order < 3 or index >= len(s.reftable) or s.broken or s.file.bs.debugged:
        return 0
    block = s.refcount_cache.tables.get(s.reftable[index] & REFTABLE_OFFSET_MASK)
    if block is None:
        return 0
    cells, start = block.cells, s.free_cluster & (1 << s.refblock_bits) - 1
    while start + count <= len(cells) and cells[start]:
        start += 1
    first = (index << s.refblock_bits) + start
    if s.let_go and let_go.includes(s, first, count):
        return 0
    end = start + count
    if end > len(cells) or first + count - 1 > MAX_CLUSTER_OFFSET >> s.cluster_bits:
        return 0
    if count > 1 and any(cells[start:end]):
        return 0
    for at in range(start, end):
        cells[at] = 1
    s.refcount_cache.mark_dirty(block)
    s.free_cluster = first + count
    return first


async def _find_countable(s: Qcow2State, count: int, what: str) -> int:
    """The first of adjacent free clusters that have refcount blocks (R1)."""
    from block.formats.qcow2.refgrow import ensure_blocks

    while True:
        first = await find_free(s, count)
        if not await ensure_blocks(s, first, count):
            break
        s.free_cluster = min(s.free_cluster, first)
    if first == 0 and what:
        raise await signal_corruption(s, f"Preventing invalid allocation of {what} at offset 0")
    return first


async def alloc_bytes(s: Qcow2State, nbytes: int) -> int:
    """Allocates room for one compressed cluster; returns its offset (qcow2_alloc_bytes, R3).

    It may reach into the next cluster of the file if that is free.
    """
    await debug.debug_event(s.file.bs, debug.CLUSTER_ALLOC_BYTES)
    place = s.free_byte
    if place and await get_refcount(s, place >> s.cluster_bits) == s.refcount_max:
        place = 0
    if not place or s.cluster_size - (place & s.cluster_mask) < nbytes:
        new = await _find_countable(s, 1, "compressed cluster") << s.cluster_bits
        if not place or s.start_of_cluster(place) + s.cluster_size != new:
            place = new
        if new + s.cluster_size >> size_shift(s):
            raise _full(s)
    first, last = place >> s.cluster_bits, place + nbytes - 1 >> s.cluster_bits
    await change_refcounts(s, first, last - first + 1, 1)
    s.free_byte = place + nbytes if (place + nbytes) & s.cluster_mask else 0
    return place


# -- searching


async def find_free(s: Qcow2State, count: int) -> int:
    """Finds adjacent free clusters and moves the search beyond them (alloc_clusters_noref)."""
    first = await _next_free(s, s.free_cluster)
    end = first + 1
    while end - first < count:
        if await get_refcount(s, end):
            first = end = await _next_free(s, end + 1)
        end += 1
    if end - 1 > MAX_CLUSTER_OFFSET >> s.cluster_bits:
        raise _full(s)
    if s.let_go and let_go.includes(s, first, count):
        await let_go.make_safe(s)
        return await find_free(s, count)
    s.free_cluster = end
    return first


async def _next_free(s: Qcow2State, cluster: int) -> int:
    """The first free cluster from `cluster` on."""
    per_block = 1 << s.refblock_bits
    while (block := await load_block(s, cluster)) is not None:
        start = cluster & per_block - 1
        found = _find_zero(s, block.cells, start)
        if found >= 0:
            return cluster + found - start
        cluster += per_block - start
    return cluster


def _find_zero(s: Qcow2State, cells: array[int], start: int) -> int:
    if s.refcount_order >= 3:
        try:
            return cells.index(0, start)
        except ValueError:
            return -1
    for index in range(start, 1 << s.refblock_bits):
        if not get_cell(s, cells, index):
            return index
    return -1


def _full(s: Qcow2State) -> BlockError:
    return refuse(s, "qcow2: the image file is full", errno.EFBIG)
