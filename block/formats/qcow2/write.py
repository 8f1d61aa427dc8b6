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
R4  Head and tail of a run go to the file in one write with its data. Where they are zero and the
    cluster lies beyond the end of the file, they are not written at all: there are zeroes.
R5  An entry is linked after its data have been written, and after copied data only behind a
    flush: the guest may have been told long ago that those are safe.
Who may call it: coroutines in the node's context.

What once went wrong: a discard freed clusters to which a write in place was on its way, and
they could become somebody else's meanwhile. QEMU left that to the guest; here R3 holds.
"""

from __future__ import annotations

from block.aio.co_lock import CoQueue
from block.core import debug
from block.core import flags as f
from block.core.align import blockalign
from block.core.iov import iov_slice, zero_iov
from block.formats.qcow2.cluster import check_entry, extent_in, writable_slice
from block.formats.qcow2.corrupt import check_overlap, error
from block.formats.qcow2.dirty import may_postpone
from block.formats.qcow2.layout import NOT_PLAIN, OFFSET_MASK, OFLAG_COPIED
from block.formats.qcow2.read import co_preadv
from block.formats.qcow2.refcount import alloc_clusters, free_clusters, free_entry
from block.formats.qcow2.state import UNALLOCATED, ZERO_ALLOC, ZERO_PLAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Awaitable

    from block.core.iov import Iov
    from block.formats.qcow2.state import Qcow2State

OVERWRITE, REUSE, NEW = range(3)


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

    `head_zero`, `tail_zero`: what was there before its first and behind its last written byte
    reads as zeroes. `fresh`: the clusters lie beyond the end of the file.
    """

    __slots__ = ("copies", "fresh", "head_zero", "host", "keeps", "tail_zero")

    def __init__(self, start: int, end: int, host: int, keeps: bool) -> None:
        super().__init__(start, end)
        self.host = host
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
        or host & s.cluster_mask
        or host >= s.file_length()
        or (s.allocations and _first_in_the_way(s.allocations, offset, offset + nbytes))
        or host in s.suspect_clusters()
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
        await s.data.co_pwritev(host, nbytes, qiov)
    finally:
        del s.rewrites[rewrite]
        rewrite.wake_others()


def _first_in_the_way(writes: list[Allocation], start: int, end: int) -> Allocation | None:
    for other in writes:
        if start < other.end and other.start < end:
            return other
    return None


async def _write_run(s: Qcow2State, offset: int, nbytes: int, done: int, qiov: Iov) -> int:
    """Writes the first run of what is left; returns its length."""
    async with s.lock:
        run, host, size = await _plan(s, offset, nbytes)
    part = iov_slice(qiov, done, size)
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
    while (other := _first_in_the_way(s.allocations, offset, offset + 1)) is not None:
        await other.wait(s)
    for other in s.allocations:
        if offset < other.start < offset + nbytes:
            nbytes = other.start - offset
    table = await writable_slice(s, offset)
    await check_entry(s, table.cells[s.slice_index(offset)], offset)
    kind, count = _run(s, table.cells, offset, nbytes)
    inside = offset & s.cluster_mask
    nbytes = min(nbytes, (count << s.cluster_bits) - inside)
    first = table.cells[s.slice_index(offset)]
    last = table.cells[s.slice_index(offset) + count - 1]
    if kind == NEW:
        host = await alloc_clusters(s, count, "data cluster")
    else:
        host = first & OFFSET_MASK
        if host >= s.file_length():
            raise error(s, f"Data cluster offset {host:#x} is beyond the end of the file")
    await check_overlap(s, host, count << s.cluster_bits)
    if kind == OVERWRITE:
        return None, host + inside, nbytes
    start = offset - inside
    run = Allocation(start, start + (count << s.cluster_bits), host, kind == REUSE)
    run.fresh = host >= s.file_length()
    run.head_zero = _reads_as_zero(s, first, start)
    run.tail_zero = _reads_as_zero(s, last, run.end - s.cluster_size)
    s.allocations.append(run)
    return run, host + inside, nbytes


def _needs(entry: int) -> int:
    """What a write to a cluster needs (cluster_needs_new_alloc)."""
    if not entry & OFLAG_COPIED or not entry & OFFSET_MASK or entry & NOT_PLAIN > 1:
        return NEW
    return REUSE if entry & NOT_PLAIN else OVERWRITE


def _run(s: Qcow2State, cells: array[int], offset: int, nbytes: int) -> tuple[int, int]:
    """(what the next clusters need, how many of them): within the slice, and side by side."""
    index = s.slice_index(offset)
    limit = min(s.slice_mask + 1 - index, s.clusters((offset & s.cluster_mask) + nbytes))
    kind = _needs(cells[index])
    if kind != NEW:
        size = extent_in(s, cells, offset, nbytes)[2]
        limit = s.clusters((offset & s.cluster_mask) + size)
    count = 1
    while count < limit and _needs(cells[index + count]) == kind:
        count += 1
    return kind, count


def _reads_as_zero(s: Qcow2State, entry: int, start: int) -> bool:
    kind = s.cluster_type(entry)
    if kind == UNALLOCATED:
        return start >= s.backing_length()
    return kind in (ZERO_PLAIN, ZERO_ALLOC)


# -- the data, without the lock


async def _write_with_edges(
    s: Qcow2State, run: Allocation, offset: int, nbytes: int, part: Iov
) -> None:
    """Writes the run's data, with what else belongs into its clusters (perform_cow, R4)."""
    head, tail = offset - run.start, run.end - offset - nbytes
    host = run.host + head
    if s.file.bs.debugged and (head or tail) and run.head_zero and run.tail_zero:
        await debug.debug_event(s.file.bs, debug.CLUSTER_ALLOC_SPACE)
    if head and not (run.fresh and run.head_zero):
        part = await _edge(s, run, run.head_zero, run.start, head) + part
        host -= head
    if tail and not (run.fresh and run.tail_zero):
        part = part + await _edge(s, run, run.tail_zero, run.end - tail, tail)
    if s.file.bs.debugged:
        await debug.debug_event(s.file.bs, debug.WRITE_AIO)
        if run.copies:
            await debug.debug_event(s.file.bs, debug.COW_WRITE)
    await s.data.co_pwritev(host, sum(map(len, part)), part)


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
    if run.copies:
        s.l2_cache.depends_on_flush = True
    if not run.keeps and not (s.lazy_refcounts and await may_postpone(s)):
        await s.l2_cache.set_dependency(s.refcount_cache)
    table = await writable_slice(s, run.start)
    index = s.slice_index(run.start)
    count = run.end - run.start >> s.cluster_bits
    old = table.cells[index : index + count]
    for number in range(count):
        host = run.host + (number << s.cluster_bits)
        table.cells[index + number] = host | OFLAG_COPIED
    s.l2_cache.mark_dirty(table)
    if not run.keeps:
        for entry in old:
            await free_entry(s, entry)


async def _abandon(s: Qcow2State, run: Allocation) -> None:
    """Gives the clusters of a failed run back (qcow2_alloc_cluster_abort).

    A write that failed may have made the file longer: `fresh` must know.
    """
    async with s.lock:
        try:
            s.file.bs.refresh_total_sectors()
        except OSError:
            return
        if not run.keeps and not s.broken:
            await free_clusters(s, run.host, run.end - run.start)


async def settle(s: Qcow2State, start: int, end: int) -> bool:
    """Waits for a write in flight to these bytes; False: there is none (R3)."""
    other: InFlight | None = _first_in_the_way(s.allocations, start, end)
    if other is None:
        for rewrite in s.rewrites:
            if start < rewrite.end and rewrite.start < end:
                other = rewrite
                break
    if other is None:
        return False
    await other.wait(s)
    return True
