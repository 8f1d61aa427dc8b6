# SPDX-License-Identifier: GPL-2.0-only
"""Clusters that nobody needs any more (qcow2_free_clusters, qcow2_process_discards).

    count down -> forget what caches have of them -> discard them in the file, if that is wanted

R1  What an L2 entry pointed to is let go (let_go.py). Other clusters may be taken again at once:
    whoever frees them has made safe before that nothing on the disk points there.
R2  A failure leaves clusters in use for ever, which harms nobody; it is said once.
Who may call it: coroutines that hold the image's lock.
"""

from __future__ import annotations

from block.core import debug
from block.core.report import warn_report
from block.formats.qcow2 import let_go
from block.formats.qcow2.compressed_entry import compressed_place
from block.formats.qcow2.corrupt import signal_corruption
from block.formats.qcow2.layout import OFFSET_MASK, OFLAG_COMPRESSED
from block.formats.qcow2.refcount import change_refcounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.edge import BdrvChild
    from block.formats.qcow2.state import Qcow2State


async def free_clusters(
    s: Qcow2State,
    offset: int,
    nbytes: int,
    places: list[int] | None = None,
    by_l2_entry: bool = False,
) -> None:
    """Counts clusters down (qcow2_free_clusters); adds to `places` where some are free now.

    `by_l2_entry`: one on the disk may still point there (R1). A failure leaves them in use (R2).
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
    note_freed(s, freed, by_l2_entry)
    if places is not None:
        places += [cluster << s.cluster_bits for cluster in freed]


def note_freed(s: Qcow2State, freed: list[int], by_l2_entry: bool = False) -> None:
    """Nobody needs these clusters any more, nor what the caches have of them."""
    if by_l2_entry:
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


async def free_entry(s: Qcow2State, entry: int, places: list[int] | None = None) -> None:
    """Frees what an L2 entry pointed to (qcow2_free_any_cluster).

    In a data file nothing is counted; `places` hears of it all the same, for discards. Not of what
    was compressed: others lay in the same cluster, and may have let it go just before (R1).
    """
    if s.external:
        if places is not None and entry & s.place_flags and not entry & OFLAG_COMPRESSED:
            places.append(entry & OFFSET_MASK)
        return
    if entry & OFLAG_COMPRESSED:
        offset, nbytes = compressed_place(s, entry)
        await free_clusters(s, offset, nbytes, by_l2_entry=True)
        await let_go.forget_too_many(s)
        return
    place = entry & OFFSET_MASK
    if not place:
        return
    if place & s.cluster_mask:
        await signal_corruption(s, f"Cannot free unaligned cluster {place:#x}", fatal=False)
        return
    await free_clusters(s, place, s.cluster_size, places, by_l2_entry=True)
    await let_go.forget_too_many(s)


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
