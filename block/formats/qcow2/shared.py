# SPDX-License-Identifier: GPL-2.0-only
r"""Clusters in use by the disk and by snapshots (qcow2_update_snapshot_refcount).

    L1 table of the disk   L1 table of a snapshot
            \                 /
             L2 table, refcount 2          COPIED is clear in all entries that point there,
             /     |     \                 so whoever writes takes a cluster of his own
          data, refcount 2 each

R1  `count` adds to the refcounts of everything that an L1 table leads to; each L2 table counts as
    if it were nobody else's. After a failure all are as they were, if the disk allows.
R2  `set_flags` makes COPIED say, in the tables of one disk, whether a refcount is 1. It writes
    L2 tables directly, after the refcounts: what the cache has of them is forgotten.
R3  Both run over runs of adjacent clusters, as a check does (runs.py).
Who may call it: coroutines that hold the image's lock, while nobody else uses the node, with
nothing in the L2 cache that waits to be written.
"""

from __future__ import annotations

from block.formats.qcow2.cache import from_disk, join, split, to_disk
from block.formats.qcow2.compressed_entry import compressed_place
from block.formats.qcow2.corrupt import (
    OL_ACTIVE_L2,
    OL_INACTIVE_L2,
    signal_corruption,
    write_checked,
)
from block.formats.qcow2.free import note_freed, pass_down
from block.formats.qcow2.layout import OFFSET_MASK, OFLAG_COMPRESSED, OFLAG_COPIED
from block.formats.qcow2.refcount import change_refcounts, get_refcount, get_refcounts
from block.formats.qcow2.runs import l2_runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import AsyncIterator

    from block.formats.qcow2.state import Qcow2State


AT_ONCE = 4096
"""How many freed clusters are remembered, to be discarded in long ranges."""


async def read_l2(s: Qcow2State, place: int, index: int) -> tuple[array[int], array[int] | None]:
    """The entries of an L2 table, and their bitmaps."""
    if place & s.cluster_mask:
        raise await signal_corruption(
            s, f"L2 table offset {place:#x} unaligned (L1 index: {index:#x})"
        )
    data = bytearray(s.cluster_size)
    await s.file.co_preadv(place, len(data), [memoryview(data)])
    return split(from_disk("Q", data), s.extended)


async def _check_aligned(s: Qcow2State, entry: int, place: int, at: int) -> None:
    if entry & OFFSET_MASK & s.cluster_mask:
        raise await signal_corruption(
            s,
            f"Cluster allocation offset {entry & OFFSET_MASK:#x} unaligned "
            f"(L2 offset: {place:#x}, L2 index: {at:#x})",
        )


async def references(s: Qcow2State, l1_table: array[int]) -> AsyncIterator[tuple[int, int]]:
    """(first, count) of adjacent clusters that an L1 table leads to, L2 tables included."""
    for index, l1_entry in enumerate(l1_table):
        place = l1_entry & OFFSET_MASK
        if not place:
            continue
        table, _ = await read_l2(s, place, index)
        for at, count in l2_runs(table, s.cluster_bits):
            entry = table[at]
            if entry & OFLAG_COMPRESSED:
                for each in table[at : at + count]:
                    offset, nbytes = compressed_place(s, each)
                    first = offset >> s.cluster_bits
                    yield first, (offset + nbytes - 1 >> s.cluster_bits) - first + 1
            elif entry & OFFSET_MASK:
                await _check_aligned(s, entry, place, at)
                yield (entry & OFFSET_MASK) >> s.cluster_bits, count
        yield place >> s.cluster_bits, 1


async def count(s: Qcow2State, l1_table: array[int], addend: int) -> None:
    """Adds 1 or -1 to all refcounts below an L1 table (R1); discards in the file what is free now.

    With -1 nothing on the disk may lead to that table any more.
    """
    done = 0
    places: list[int] = []
    try:
        async for first, length in references(s, l1_table):
            freed = await change_refcounts(s, first, length, addend)
            done += 1
            note_freed(s, freed)
            if s.pass_snapshot_discard:
                places += [cluster << s.cluster_bits for cluster in freed]
                if len(places) >= AT_ONCE:
                    await pass_down(s, places)
                    places.clear()
    except OSError:
        if addend > 0:
            await _undo(s, l1_table, done)
        raise
    if places:
        await pass_down(s, places)


async def _undo(s: Qcow2State, l1_table: array[int], steps: int) -> None:
    """Takes the first steps of a count back. If that fails, too, clusters are leaked."""
    if not steps or s.broken:
        return
    try:
        async for first, length in references(s, l1_table):
            await change_refcounts(s, first, length, -1)
            steps -= 1
            if not steps:
                return
    except OSError:
        return


# -- the flag


async def set_flags(s: Qcow2State, l1_table: array[int]) -> bool:
    """Sets and clears COPIED in an L1 table, which is only changed in memory, and in its L2
    tables (R2). True: something in the L1 table is another."""
    await s.refcount_cache.flush()
    changed = False
    for index, entry in enumerate(l1_table):
        place = entry & OFFSET_MASK
        if not place:
            continue
        await _set_flags_l2(s, place, index)
        alone = await get_refcount(s, place >> s.cluster_bits) == 1
        l1_table[index] = place | OFLAG_COPIED * alone
        changed |= l1_table[index] != entry
    return changed


async def _set_flags_l2(s: Qcow2State, place: int, index: int) -> None:
    table, bitmaps = await read_l2(s, place, index)
    changed = False
    for at, length in l2_runs(table, s.cluster_bits):
        entry = table[at]
        if entry & OFLAG_COMPRESSED or not entry & OFFSET_MASK:
            alone = [0] * length  # compressed clusters are never written in place
        else:
            await _check_aligned(s, entry, place, at)
            alone = await get_refcounts(s, (entry & OFFSET_MASK) >> s.cluster_bits, length)
        expected = length if entry & OFLAG_COPIED else 0
        if alone.count(1) != expected:
            changed = True
            for number, refcount in enumerate(alone, at):
                table[number] = table[number] & ~OFLAG_COPIED | OFLAG_COPIED * (refcount == 1)
    if changed:
        s.l2_cache.forget(place, s.cluster_size)
        data = to_disk(join(table, bitmaps))
        await write_checked(s, place, data, OL_ACTIVE_L2 | OL_INACTIVE_L2)
