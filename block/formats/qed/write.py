# SPDX-License-Identifier: GPL-2.0-only
"""Writes (qed_aio_write_data): in place where a cluster is there, else into a new one.

An allocation, from the end of the file:

    NEED_CHECK into the header   without a backing file (need_check.py)
    data, with what is around    one write of whole clusters
    flush                        with a backing file: what was copied was safe there, before; and
                                 where a write has failed (R4)
    L2 entry                     or: a new L2 table, flush, L1 entry

R1  One request allocates at a time: it holds `allocating` from its first new cluster to its end.
    The others wait in line, and look again when it is their turn. Writes in place do not wait.
R2  No cluster is ever freed or moved, so a write in place needs no lock.
R3  A new cluster is written whole: the rest comes from where it is read from now. That is zeroes
    for a zero cluster, whatever the backing file has there.
R4  A failure before the L2 entry gives the clusters back: they are the last of the file. What the
    failed write has left there must not come to light, so who gets them flushes before its entry
    (`spoilt_end`). After the entry nobody knows what the file says: they stay lost, at worst
    leaked.
R5  Zeroes for clusters that are there are written in place; for others, entries that say zero.
Who may call it: coroutines in the node's context.

What once went wrong: QEMU fills the rest of a zero cluster from the backing file, and so
brings back what the guest had zeroed (R3); ours does as the specification says. And here a power
cut kept an entry and lost its data: what a write had left there that failed before, was read (R4).
"""

from __future__ import annotations

import errno

from block.core import debug
from block.core.align import blockalign
from block.core.error import BlockError
from block.core.iov import iov_slice, zero_iov
from block.formats.qed import need_check
from block.formats.qed.cluster import FOUND, NO_TABLE, ZERO, find_cluster
from block.formats.qed.layout import ENTRY_ZERO
from block.formats.qed.read import read_backing_file
from block.formats.qed.table import update_l1_table, update_l2_table, write_new_l2_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from block.core.iov import Iov
    from block.formats.qed.cluster import Extent
    from block.formats.qed.state import QedState

    # the data, or None: zeroes
    Data = Iov | None


async def co_pwritev(s: QedState, offset: int, nbytes: int, qiov: Data) -> None:
    """Writes a vector, or zeroes (qed_co_request)."""
    done = await _write_found(s, offset, nbytes, qiov, 0)
    if done == nbytes:
        return
    need_check.begin_allocating(s)
    try:
        async with s.allocating:
            while done < nbytes:
                done += await _write_allocating(s, offset + done, nbytes - done, qiov, done)
                done = await _write_found(s, offset, nbytes, qiov, done)
    finally:
        need_check.end_allocating(s)


async def co_pwrite_zeroes(s: QedState, offset: int, nbytes: int) -> None:
    """Writes zeroes to whole clusters (bdrv_qed_co_pwrite_zeroes)."""
    if (offset | nbytes) & s.cluster_mask:
        raise BlockError(errno.ENOTSUP, "no whole cluster", s.bs.node_name, "qed")
    await co_pwritev(s, offset, nbytes, None)


def _slice_end(s: QedState, offset: int) -> int:
    return ((offset >> s.slice_shift) + 1) << s.slice_shift


async def _find(s: QedState, offset: int, nbytes: int) -> Extent:
    """As find_cluster, within one slice: what is changed is changed in one."""
    return await find_cluster(s, offset, min(nbytes, _slice_end(s, offset) - offset))


def _part(qiov: Data, done: int, nbytes: int) -> Data:
    return None if qiov is None else iov_slice(qiov, done, nbytes)


# -- in place


async def _write_found(s: QedState, offset: int, nbytes: int, qiov: Data, done: int) -> int:
    """Goes on in place as far as clusters are there; returns how far (qed_aio_write_inplace)."""
    while done < nbytes:
        kind, host, size = await _find(s, offset + done, nbytes - done)
        if kind != FOUND:
            break
        part = _part(qiov, done, size)
        if s.file.bs.debugged:
            await debug.debug_event(s.file.bs, debug.WRITE_AIO)
        if part is None:
            await s.file.co_pwrite_zeroes(host, size)
        else:
            await s.file.co_pwritev(host, size, part)
        done += size
    return done


# -- with `allocating` held


async def _write_allocating(s: QedState, offset: int, nbytes: int, qiov: Data, done: int) -> int:
    """Does the first extent, if it still needs new clusters; returns its length
    (qed_aio_write_alloc)."""
    kind, _, size = await _find(s, offset, nbytes)
    if kind == FOUND or (kind == ZERO and qiov is None):
        return 0 if kind == FOUND else size
    await need_check.set_need_check(s)
    count = s.clusters((offset & s.cluster_mask) + size)
    if qiov is None:
        await _link(s, kind, offset, [ENTRY_ZERO] * count)
        return size
    before = s.file_size
    host = s.alloc_clusters(count)
    try:
        await _write_with_edges(s, kind, offset, host, iov_slice(qiov, done, size), size)
    except BaseException:
        s.spoilt_end = max(s.spoilt_end, s.file_size)
        s.file_size = before  # R4
        raise
    await _link(s, kind, offset, range(host, s.file_size, s.cluster_size))
    return size


async def _write_with_edges(
    s: QedState, kind: int, offset: int, host: int, part: Iov, nbytes: int
) -> None:
    """Writes whole clusters: the data, and what is around them (qed_aio_write_cow, R3)."""
    head = offset & s.cluster_mask
    tail = -(offset + nbytes) & s.cluster_mask
    before = await _edge(s, kind, offset - head, head) if head else []
    behind = await _edge(s, kind, offset + nbytes, tail) if tail else []
    if s.file.bs.debugged:
        if head or tail:
            await debug.debug_event(s.file.bs, debug.COW_WRITE)
        await debug.debug_event(s.file.bs, debug.WRITE_AIO)
    await s.file.co_pwritev_new(host, head + nbytes + tail, [*before, *part, *behind])
    if s.bs.backing is not None or host < s.spoilt_end:
        await s.file.co_flush()


async def _edge(s: QedState, kind: int, offset: int, nbytes: int) -> Iov:
    """What is read there now, since this layer has no cluster (qed_copy_from_backing_file)."""
    if kind == ZERO or s.bs.backing is None:
        return zero_iov(nbytes)
    buffer = blockalign(nbytes)
    await read_backing_file(s, offset, nbytes, [buffer])
    return [buffer]


async def _link(s: QedState, kind: int, offset: int, entries: Sequence[int]) -> None:
    """Lets the tables say where the clusters are (qed_aio_write_l2_update)."""
    async with s.lock:
        if kind != NO_TABLE:
            await update_l2_table(s, offset, entries)
            return
        l2_offset = s.alloc_clusters(s.table_bytes >> s.cluster_bits)
        await write_new_l2_table(s, l2_offset, offset, entries)
        await s.file.co_flush()
        await update_l1_table(s, offset >> s.l1_shift, l2_offset)
