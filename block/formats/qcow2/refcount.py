# SPDX-License-Identifier: GPL-2.0-only
"""Which clusters of the file are in use, and how often (block/qcow2-refcount.c).

    refcount table -> refcount block -> the refcount of one cluster, 1 to 64 bits wide

R1  To allocate means: find clusters with refcount 0, see to it that refcount blocks exist for
    them (refgrow.py; making one takes clusters too, so then the search begins again), and only
    then count up. So counting up cannot need space.
R2  Counting down makes the refcount cache depend on the L2 cache: the entry that pointed to
    the cluster is gone from the disk before the cluster is free there.
R3  `free_cluster` is where the next search begins: nothing below it is free, but what R5 keeps.
R4  Compressed clusters share clusters of the file, each counted by all that reach into it.
    `free_byte` is where the next one goes, in a cluster that is in use; 0: into a new one.
R5  Clusters that an L2 entry has let go are `let_go` until the new entry is on the disk. Until then
    the old one there points to them, and what they hold may have been flushed: nothing else may
    be written over it. The search begins above them until the guest flushes; where it comes to
    one all the same, it first makes the L2 tables safe. (QEMU takes them again at once. A power
    cut may then leave a compressed cluster that cannot be unpacked.)
Who may call it: coroutines that hold the image's lock.
"""

from __future__ import annotations

import errno
from array import array

from block.core import debug
from block.core.error import BlockError
from block.core.report import warn_report
from block.formats.qcow2.corrupt import check_usable, signal_corruption
from block.formats.qcow2.layout import (
    COMPRESSED_SECTOR,
    MAX_CLUSTER_OFFSET,
    OFFSET_MASK,
    OFLAG_COMPRESSED,
    REFTABLE_OFFSET_MASK,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.edge import BdrvChild
    from block.formats.qcow2.cache import Table
    from block.formats.qcow2.state import Qcow2State

MAX_LET_GO = 1 << 16
"""How many clusters are remembered (R5); a disk that is discarded as a whole has more."""

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


# -- searching


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
    if s.let_go and not s.let_go.isdisjoint(range(first, end)):
        await make_let_go_safe(s)
        return await find_free(s, count)
    s.free_cluster = end
    return first


async def make_let_go_safe(s: Qcow2State) -> None:
    """Makes the L2 tables safe, so that what they have let go can be taken again (R5)."""
    await s.l2_cache.flush()
    look_below(s)
    s.let_go.clear()


def look_below(s: Qcow2State) -> None:
    """Lets the next search begin at what was let go: a flush is on its way (R5)."""
    if s.let_go:
        s.free_cluster = min(s.free_cluster, *s.let_go)


def _full(s: Qcow2State) -> BlockError:
    return BlockError(errno.EFBIG, "qcow2: the image file is full", s.bs.node_name, "qcow2")


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


def _impossible(s: Qcow2State, cluster: int, addend: int) -> BlockError:
    message = f"qcow2: the refcount of cluster {cluster:#x} is wrong"
    if addend > 0:
        message = f"qcow2: refcount_bits={s.refcount_bits} is too little for cluster {cluster:#x}"
    return BlockError(errno.EINVAL, message, s.bs.node_name, "qcow2")


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
    free = cells[start : start + count]
    first = (index << s.refblock_bits) + start
    if s.let_go and not s.let_go.isdisjoint(range(first, first + count)):
        return 0
    if len(free) < count or any(free) or first + count - 1 > MAX_CLUSTER_OFFSET >> s.cluster_bits:
        return 0
    cells[start : start + count] = array(cells.typecode, [1]) * count
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
    """Allocates room for one compressed cluster; returns its offset (qcow2_alloc_bytes, R4).

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
        if new + s.cluster_size >> _size_shift(s):
            raise _full(s)
    first, last = place >> s.cluster_bits, place + nbytes - 1 >> s.cluster_bits
    await change_refcounts(s, first, last - first + 1, 1)
    s.free_byte = place + nbytes if (place + nbytes) & s.cluster_mask else 0
    return place


async def free_clusters(
    s: Qcow2State,
    offset: int,
    nbytes: int,
    places: list[int] | None = None,
    let_go: bool = False,
) -> None:
    """Counts clusters down (qcow2_free_clusters); adds to `places` where some are free now.

    `let_go`: an entry on the disk may still point there (R5). A failure leaves them in use for
    ever, which harms nobody.
    """
    if not nbytes:
        return
    await debug.debug_event(s.file.bs, debug.CLUSTER_FREE)
    first = offset >> s.cluster_bits
    count = (offset + nbytes - 1 >> s.cluster_bits) - first + 1
    try:
        freed = await change_refcounts(s, first, count, -1)
    except OSError as error:
        if not s.leak_told:
            s.leak_told = True
            more = "further leaks will not be reported"
            warn_report(f"qcow2: clusters at {offset:#x} are not freed: {error}; {more}")
        return
    note_freed(s, freed, let_go)
    if places is not None:
        places += [cluster << s.cluster_bits for cluster in freed]


def note_freed(s: Qcow2State, freed: list[int], let_go: bool = False) -> None:
    """Nobody needs these clusters any more, nor what the caches have of them."""
    if let_go:
        s.let_go.update(freed)
    elif freed:
        s.free_cluster = min(s.free_cluster, *freed)
    for cluster in freed:
        place = cluster << s.cluster_bits
        if s.start_of_cluster(s.free_byte) == place:
            s.free_byte = 0
        s.l2_cache.forget(place, s.cluster_size)
        s.refcount_cache.forget(place, s.cluster_size)


async def free_table(s: Qcow2State, offset: int, nbytes: int) -> None:
    """Frees a table that nothing on the disk points to any more (QCOW2_DISCARD_OTHER)."""
    places: list[int] = []
    await free_clusters(s, offset, nbytes, places)
    if s.pass_other_discard:
        await pass_down(s, places)


async def pass_down(s: Qcow2State, places: list[int], data: BdrvChild | None = None) -> None:
    """Discards free clusters in the image file, or in the file that holds data; merged into long
    ranges. A failure harms nobody (qcow2_process_discards).

    Before the lock is let go: later they could be somebody's.
    """
    file = data or s.file
    length = file.bs.total_sectors << 9
    places.sort()
    first = 0
    for at, place in enumerate(places):
        end = place + s.cluster_size
        if at + 1 < len(places) and places[at + 1] == end:
            continue
        try:
            if places[first] < length:
                await file.co_pdiscard(places[first], min(end, length) - places[first])
        except OSError:
            return
        first = at + 1


async def free_entry(s: Qcow2State, entry: int, places: list[int] | None = None) -> None:
    """Frees what an L2 entry pointed to (qcow2_free_any_cluster).

    In a data file nothing is counted; `places` hears of it all the same, for discards. Not of what
    was compressed: others lay in the same cluster, and may have let it go just before (R5).
    """
    if s.external:
        if places is not None and entry & s.place_flags and not entry & OFLAG_COMPRESSED:
            places.append(entry & OFFSET_MASK)
        return
    if entry & OFLAG_COMPRESSED:
        offset, nbytes = compressed_place(s, entry)
        await free_clusters(s, offset, nbytes, let_go=True)
        return
    place = entry & OFFSET_MASK
    if not place:
        return
    if place & s.cluster_mask:
        await signal_corruption(s, f"Cannot free unaligned cluster {place:#x}", fatal=False)
        return
    await free_clusters(s, place, s.cluster_size, places, let_go=True)
    if len(s.let_go) > MAX_LET_GO:
        await make_let_go_safe(s)


def _size_shift(s: Qcow2State) -> int:
    """The bit of a compressed cluster's entry where its offset ends, and its size begins."""
    return 62 - (s.cluster_bits - 8)


def compressed_place(s: Qcow2State, entry: int) -> tuple[int, int]:
    """Where compressed data begin, and how many bytes they may have (qcow2_parse_compressed)."""
    shift = _size_shift(s)
    offset = entry & (1 << shift) - 1
    sectors = (entry >> shift & (1 << s.cluster_bits - 8) - 1) + 1
    return offset, sectors * COMPRESSED_SECTOR - offset % COMPRESSED_SECTOR


def compressed_entry(s: Qcow2State, place: int, nbytes: int) -> int:
    """The L2 entry for compressed data (in qcow2_alloc_compressed_cluster_offset)."""
    shift = _size_shift(s)
    sectors = (place + nbytes - 1) // COMPRESSED_SECTOR - place // COMPRESSED_SECTOR
    return OFLAG_COMPRESSED | sectors << shift | place
