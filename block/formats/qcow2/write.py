# SPDX-License-Identifier: GPL-2.0-only
"""Writes (qcow2_co_pwritev_part, qcow2_alloc_host_offset, qcow2_alloc_cluster_link_l2).

A write goes on run by run, a run being adjacent clusters that need the same:

    OVERWRITE   has a cluster of its own: the data go there, and that is all
    REUSE       has one that counts as zero: data and zeroes go there, then it is linked
    NEW         gets new clusters: refcounts, data with what they are copied from, then the link

R1  The lock is held while a run is planned and while it is linked, not while data are written.
    So writes to different clusters run side by side.
R2  A run in flight that will be linked is an Allocation. Another write to one of its clusters
    waits for it, and then looks again; one that begins before it is cut there.
R3  A write in place is a Rewrite. Whoever takes clusters away (zero.py) waits for both kinds.
R4  Head and tail of a run go to the file in one write with its data. They reach to the edges of
    its clusters, or of subclusters. Where they are zero and the cluster lies beyond the end of
    the file, they are not written at all: there are zeroes (but not for who decrypts them:
    crypto.py, R2).
R5  An entry is linked after its data have been written, and reaches the disk behind a flush that
    keeps them: that between refcounts and entries, or one of its own, where that does not reach
    the data (a data file), copies what was safe long ago, or is not there. QEMU leaves it out where
    refcounts are postponed or a cluster was there already; then a power cut may leave an entry
    whose data never came, or one that points beyond the end of the file.
Who may call it: coroutines in the node's context.

What once went wrong: a discard freed clusters to which a write in place was on its way, and
they could become somebody else's meanwhile. QEMU left that to the guest; here R3 holds.
"""

from __future__ import annotations

from array import array

from block.aio.co_lock import CoQueue
from block.core import debug
from block.core import flags as f
from block.core.align import blockalign
from block.core.iov import iov_slice, zero_iov
from block.formats.qcow2 import crypto, datafile, subcluster
from block.formats.qcow2.cluster import (
    check_entry,
    extent_in,
    writable_at_once,
    writable_slice,
)
from block.formats.qcow2.corrupt import safe_beside_snapshots
from block.formats.qcow2.dirty import may_postpone
from block.formats.qcow2.free import free_entry
from block.formats.qcow2.layout import NOT_PLAIN, OFFSET_MASK, OFLAG_COMPRESSED, OFLAG_COPIED
from block.formats.qcow2.read import co_preadv
from block.formats.qcow2.state import HOLES, NORMAL, ZEROES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable

    from block.core.iov import Iov
    from block.formats.qcow2.cache import Table
    from block.formats.qcow2.state import Qcow2State

OVERWRITE, REUSE, NEW, NOTHING_HELPS = range(4)


class InFlight:
    """A write that somebody may have to wait for; a range of the guest's bytes."""

    __slots__ = ("end", "queue", "start")

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.queue: CoQueue | None = None

    def wait(self, s: Qcow2State) -> Awaitable[None]:
        """Waits until it is through; the lock is let go meanwhile."""
        if self.queue is None:
            self.queue = CoQueue()
        return self.queue.wait(s.lock)

    def wake_others(self) -> None:
        """It is through."""
        if self.queue is not None:
            self.queue.restart_all()


class Rewrite(InFlight):
    """A write in place (R3)."""

    __slots__ = ()


class Allocation(InFlight):
    """A run of clusters between plan and link (QCowL2Meta); start and end are clusters' edges.

    The bytes from `data_start` to `data_end` are written, in clusters of the file that begin at
    `host`. `head_zero`, `tail_zero`: what was there before the guest's first and behind its last
    byte reads as zeroes. `keeps`: the clusters were there already (REUSE). `fresh`: they lie beyond
    the end of the file. `copies`: more than the guest's bytes is written (R5).
    """

    # fmt: off
    __slots__ = (
        "copies", "data_end", "data_start", "fresh", "head_zero", "host", "keeps", "tail_zero",
    )
    # fmt: on

    def __init__(self, start: int, end: int, keeps: bool) -> None:
        super().__init__(start, end)
        self.data_start = start
        self.data_end = end
        self.host = 0
        self.keeps = keeps
        self.fresh = False
        self.head_zero = False
        self.tail_zero = False
        self.copies = False


async def co_pwritev(s: Qcow2State, offset: int, nbytes: int, qiov: Iov) -> None:
    """Writes a vector (qcow2_co_pwritev_part)."""
    host = _in_place(s, offset, nbytes)
    if host is not None:
        await _overwrite(s, offset, nbytes, host, qiov)
        return
    done = 0
    while done < nbytes:
        size = await _write_run(s, offset + done, nbytes - done, done, qiov)
        done += size


def _in_place(s: Qcow2State, offset: int, nbytes: int) -> int | None:
    """The host offset if all can be overwritten, and nothing must be loaded to know that."""
    table = s.cached_slice(offset)
    if table is None:
        return None
    inside = offset & s.cluster_mask
    entry = table.cells[s.slice_index(offset)]
    host = entry & OFFSET_MASK
    if (
        inside + nbytes > s.cluster_size
        or entry & (OFLAG_COPIED | NOT_PLAIN) != OFLAG_COPIED
        or not host
        or (host + inside ^ offset) & s.same_bits
        or host >= s.data_length()
        or (s.extended and subcluster.data_at(s, table, offset, nbytes) is None)
        or (s.allocations and first_in_the_way(s.allocations, offset, offset + nbytes))
        or (not s.external and host in s.suspect_clusters())
        or (s.snapshots and not safe_beside_snapshots(s, host))
    ):
        return None
    table.recent = True
    return host + inside


async def _overwrite(s: Qcow2State, offset: int, nbytes: int, host: int, qiov: Iov) -> None:
    rewrite = Rewrite(offset, offset + nbytes)
    s.rewrites[rewrite] = None
    try:
        if s.file.bs.debugged:
            await debug.debug_event(s.file.bs, debug.WRITE_AIO)
        await _put(s, host, offset, nbytes, qiov)
    finally:
        del s.rewrites[rewrite]
        rewrite.wake_others()


def _put(
    s: Qcow2State, host: int, offset: int, nbytes: int, part: Iov, is_new: bool = False
) -> Awaitable[None]:
    """Writes the guest's bytes at `offset` to their place, where nothing is yet if `is_new`."""
    if s.crypto is not None:
        return crypto.co_pwritev(s, host, offset, nbytes, part)
    if is_new:
        return s.data.co_pwritev_new(host, nbytes, part)
    return s.data.co_pwritev(host, nbytes, part)


def first_in_the_way(writes: list[Allocation], start: int, end: int) -> Allocation | None:
    """The first of the writes in flight that touches a range (R2)."""
    for other in writes:
        if start < other.end and other.start < end:
            return other
    return None


async def _write_run(s: Qcow2State, offset: int, nbytes: int, done: int, qiov: Iov) -> int:
    """Writes the first run of what is left; returns its length."""
    async with s.lock:
        run, host, size = await _plan(s, offset, nbytes)
    part = iov_slice(qiov, done, size) if done or size < nbytes else qiov
    if run is None:
        await _overwrite(s, offset, size, host, part)
        return size
    linked = False
    try:
        await _write_with_edges(s, run, offset, size, part)
        async with s.lock:
            await _link(s, run)
            linked = True
    finally:
        if not linked:
            await _abandon(s, run)
        s.allocations.remove(run)
        run.wake_others()
    return size


# -- planning, with the lock


async def _plan(s: Qcow2State, offset: int, nbytes: int) -> tuple[Allocation | None, int, int]:
    """(what must be linked afterwards, host offset, bytes) of the next run.

    The Allocation is in the list already. None: all is in place.
    """
    nbytes = min(nbytes, f.REQUEST_MAX_BYTES - s.cluster_size)
    while (other := first_in_the_way(s.allocations, offset, offset + nbytes)) is not None:
        if other.start <= offset:
            await other.wait(s)
        else:
            nbytes = other.start - offset
    table = writable_at_once(s, offset) or await writable_slice(s, offset)
    if table.cells[s.slice_index(offset)] or table.bitmaps is not None:
        await check_entry(s, table, offset)
    kind, count, nbytes = _run(s, table, offset, nbytes)
    inside = offset & s.cluster_mask
    start = offset - inside
    run = None
    if kind != OVERWRITE:
        run = Allocation(start, start + (count << s.cluster_bits), kind == REUSE)
        if run.start < offset or offset + nbytes < run.end:
            _set_edges(s, run, table, offset, offset + nbytes)
    host = table.cells[s.slice_index(offset)] & OFFSET_MASK
    if kind == NEW:
        host = await datafile.alloc_data(s, start, count)
    await datafile.check_place(s, host, count << s.cluster_bits, kind == NEW)
    if run is not None:
        run.host = host
        run.fresh = host >= s.data_length() and s.crypto is None
        s.allocations.append(run)
    return run, host + inside, nbytes


def _needs(s: Qcow2State, table: Table, index: int) -> int:
    """What a write to a cluster needs (cluster_needs_new_alloc)."""
    entry = table.cells[index]
    if table.bitmaps is not None and subcluster.is_invalid(s, entry, table.bitmaps[index]):
        return NOTHING_HELPS
    flags = entry & (OFLAG_COMPRESSED | s.zero_flag)
    if not entry & OFLAG_COPIED or not entry & s.place_flags or flags > 1:
        return NEW
    return REUSE if flags else OVERWRITE


def _run(s: Qcow2State, table: Table, offset: int, nbytes: int) -> tuple[int, int, int]:
    """(what the next clusters need, how many of them, bytes): within the slice, side by side."""
    index = s.slice_index(offset)
    inside = offset & s.cluster_mask
    limit = min(s.slice_mask + 1 - index, s.clusters(inside + nbytes))
    kind = need = _needs(s, table, index)
    if kind != NEW:
        found, _, size = extent_in(s, table, offset, nbytes)
        if s.extended and found != NORMAL:
            kind = REUSE
            size = subcluster.side_by_side(s, table, offset, nbytes)
        nbytes = size
        limit = s.clusters(inside + nbytes)
    count = 1
    if limit > 1 and table.bitmaps is None and not any(table.cells[index : index + limit]):
        count = limit  # mostly a disk that grows: no need to look at each
    while count < limit and _needs(s, table, index + count) == need:
        count += 1
    return kind, count, min(nbytes, (count << s.cluster_bits) - inside)


def _set_edges(s: Qcow2State, run: Allocation, table: Table, start: int, end: int) -> None:
    """What the run writes besides the guest's bytes from `start` to `end`."""
    if s.extended:
        run.data_start = subcluster.head_start(s, table, start, run.keeps)
        run.data_end = subcluster.tail_end(s, table, end, run.keeps)
    if s.external:
        run.data_end = max(end, min(run.data_end, s.bs.total_sectors << 9))  # no longer file
    run.head_zero = _reads_as_zero(s, table, run.data_start, start)
    run.tail_zero = _reads_as_zero(s, table, end, run.data_end)


def _reads_as_zero(s: Qcow2State, table: Table, start: int, end: int) -> bool:
    """Whether one edge of a run, which is no longer than a cluster, holds nothing."""
    if start == end:
        return True
    kind, _, size = extent_in(s, table, start, end - start)
    if size < end - start:
        return False
    return kind in ZEROES or (kind in HOLES and start >= s.backing_length())


# -- the data, without the lock


async def _write_with_edges(
    s: Qcow2State, run: Allocation, offset: int, nbytes: int, part: Iov
) -> None:
    """Writes the run's data, with what else belongs into its clusters (perform_cow, R4)."""
    head, tail = offset - run.data_start, run.data_end - offset - nbytes
    host = run.host + offset - run.start
    if s.file.bs.debugged and (head or tail) and run.head_zero and run.tail_zero:
        await debug.debug_event(s.file.bs, debug.CLUSTER_ALLOC_SPACE)
    if head and not (run.fresh and run.head_zero):
        part = await _edge(s, run, run.head_zero, run.data_start, head) + part
        host, nbytes = host - head, nbytes + head
    if tail and not (run.fresh and run.tail_zero):
        part = part + await _edge(s, run, run.tail_zero, run.data_end - tail, tail)
        nbytes += tail
    if s.file.bs.debugged:
        await debug.debug_event(s.file.bs, debug.WRITE_AIO)
        if run.copies:
            await debug.debug_event(s.file.bs, debug.COW_WRITE)
    start = run.start + host - run.host
    await _put(s, host, start, nbytes, part, is_new=not run.keeps)


async def _edge(s: Qcow2State, run: Allocation, zero: bool, start: int, nbytes: int) -> Iov:
    run.copies = True
    if zero:
        return zero_iov(nbytes)
    buffer = blockalign(nbytes)
    await debug.debug_event(s.file.bs, debug.COW_READ)
    await co_preadv(s.bs, start, nbytes, [buffer])
    return [buffer]


# -- linking, with the lock


async def _link(s: Qcow2State, run: Allocation) -> None:
    """Lets the L2 entries point to the run's clusters (qcow2_alloc_cluster_link_l2, R5)."""
    counted = not run.keeps and not (s.lazy_refcounts and await may_postpone(s))
    if counted:
        await s.l2_cache.set_dependency(s.refcount_cache)
    if run.copies or s.external or not counted:
        s.l2_cache.depends_on_flush = True
    table = writable_at_once(s, run.start) or await writable_slice(s, run.start)
    index = s.slice_index(run.start)
    entry = run.host | OFLAG_COPIED
    if run.end - run.start == s.cluster_size:
        old = [table.cells[index]]
        table.cells[index] = entry
    else:
        count = run.end - run.start >> s.cluster_bits
        old = list(table.cells[index : index + count])
        places = range(entry, entry + (count << s.cluster_bits), s.cluster_size)
        table.cells[index : index + count] = array("Q", places)
    if s.extended:
        subcluster.mark_written(s, table, run.data_start, run.data_end)
    s.l2_cache.mark_dirty(table)
    if not run.keeps:
        for entry in filter(None, old):
            await free_entry(s, entry)


async def _abandon(s: Qcow2State, run: Allocation) -> None:
    """Gives the clusters of a failed run back (qcow2_alloc_cluster_abort).

    A write that failed may have made the file longer: `fresh` must know.
    """
    async with s.lock:
        try:
            s.data.bs.refresh_total_sectors()
        except OSError:
            return
        if not run.keeps and not s.broken:
            await datafile.unalloc_data(s, run.host, run.end - run.start)


async def settle(s: Qcow2State, start: int, end: int) -> bool:
    """Waits for a write in flight to these bytes; False: there is none (R3)."""
    other: InFlight | None = first_in_the_way(s.allocations, start, end)
    if other is None:
        for rewrite in s.rewrites:
            if start < rewrite.end and rewrite.start < end:
                other = rewrite
                break
    if other is None:
        return False
    await other.wait(s)
    return True
