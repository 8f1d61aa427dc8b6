# SPDX-License-Identifier: GPL-2.0-only
"""Compressed writes (qcow2_co_pwritev_compressed_part, qcow2_alloc_compressed_cluster_offset).

    pack         all clusters of the request, side by side in worker threads
    place        with the lock: room for each, byte behind byte (alloc.alloc_bytes)
    write        what lies together in the file by one write
    link         with the lock: the L2 entries

R1  A request is whole clusters, or the end of the disk; else EINVAL. The last cluster is filled up
    with zeroes.
R2  Compressed data go only where nothing is: how large they are is known too late to write over
    other data in place. A cluster that has a place is EIO, as in QEMU.
R3  A cluster that does not become smaller is written as any other write.
R4  From the moment when it gets its place a run is an Allocation (write.py, R2). What fails before
    it is linked lets its room go (let_go.py): of the others in the same cluster, that were safe on
    the disk, the last one may have been let go meanwhile.
R5  The entry depends on the refcounts, and these are written behind a flush; so the data, which
    are in the file before the entry is made, are on the disk before it.
Who may call it: coroutines in the node's context.

Discussion: QEMU links first and writes then. A power cut in between leaves an entry whose data
cannot be unpacked: the cluster was zeroes, and is an error now.
"""

from __future__ import annotations

import errno

from block.core import debug
from block.core.error import BlockError
from block.core.iov import iov_size, iov_slice, zero_iov
from block.core.packed import co_pack, packed_at_once
from block.formats.qcow2 import write
from block.formats.qcow2.alloc import alloc_bytes
from block.formats.qcow2.cluster import check_entry, writable_slice
from block.formats.qcow2.compressed import CODECS
from block.formats.qcow2.compressed_entry import compressed_entry
from block.formats.qcow2.corrupt import check_overlap, error
from block.formats.qcow2.free import free_clusters
from block.formats.qcow2.layout import OFFSET_MASK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from block.core.iov import Iov
    from block.core.node import BlockDriverState
    from block.formats.qcow2.state import Qcow2State


class Cluster:
    """One cluster on its way: what is to be written, what became of it, and where that goes.

    `packed` is None where it did not become smaller. `place` 0: it has none, or is linked.
    """

    __slots__ = ("data", "offset", "packed", "place")

    def __init__(self, offset: int, data: Iov) -> None:
        self.offset = offset
        self.data = data
        self.packed: bytes | None = None
        self.place = 0


async def co_pwritev_compressed(bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> None:
    """Writes a vector, compressed where that pays; no bytes mean: that was all.

    Then the file gets whole sectors.
    """
    s: Qcow2State = bs.opaque
    if s.external or bs.encrypted:
        raise BlockError(errno.ENOTSUP, node=bs.node_name, driver="qcow2")
    if not nbytes:
        await s.file.co_truncate(s.file_length(), False, "off")
        return
    at_end = offset + nbytes == bs.total_sectors << 9
    if offset & s.cluster_mask or (nbytes & s.cluster_mask and not at_end):
        message = "A compressed write must be whole clusters"
        raise BlockError(errno.EINVAL, message, bs.node_name, "qcow2", offset)
    step = packed_at_once(s.cluster_size)
    for at in range(0, nbytes, step):
        size = min(step, nbytes - at)
        await _write_some(s, offset + at, size, iov_slice(qiov, at, size))


async def _write_some(s: Qcow2State, offset: int, nbytes: int, qiov: Iov) -> None:
    clusters = [
        Cluster(offset + at, iov_slice(qiov, at, min(s.cluster_size, nbytes - at)))
        for at in range(0, nbytes, s.cluster_size)
    ]
    await _pack(s, clusters)
    for run in _runs(clusters):
        if run[0].packed is None:
            plain = [view for cluster in run for view in cluster.data]
            await write.co_pwritev(s, run[0].offset, sum(map(len, plain)), plain)  # R3
        else:
            await _write_packed(s, run)


async def _pack(s: Qcow2State, clusters: list[Cluster]) -> None:
    """Compresses each cluster, and notes which became smaller (R1, R3)."""
    pieces = [[*it.data, *zero_iov(s.cluster_size - iov_size(it.data))] for it in clusters]
    packed = await co_pack(s.bs, CODECS[s.compression_type], pieces)
    for cluster, data in zip(clusters, packed, strict=True):
        if len(data) < s.cluster_size:
            cluster.packed = data


def _runs(clusters: list[Cluster]) -> Iterator[list[Cluster]]:
    """Neighbours that are all packed, or all not."""
    first = 0
    for at in range(1, len(clusters) + 1):
        is_end = at == len(clusters)
        if is_end or (clusters[at].packed is None) != (clusters[first].packed is None):
            yield clusters[first:at]
            first = at


async def _write_packed(s: Qcow2State, run: list[Cluster]) -> None:
    start, end = run[0].offset, run[-1].offset + s.cluster_size
    async with s.lock:
        while (other := write.first_in_the_way(s.allocations, start, end)) is not None:
            await other.wait(s)
        for cluster in run:
            await _check_unused(s, cluster.offset)
        allocation = write.Allocation(start, end, keeps=False)
        s.allocations.append(allocation)
    try:
        async with s.lock:
            await _place(s, run)
        await _write(s, run)
        async with s.lock:
            await _link(s, run)
    finally:
        await _give_back(s, run)
        s.allocations.remove(allocation)
        allocation.wake_others()


async def _check_unused(s: Qcow2State, offset: int) -> None:
    """Raises where a cluster has a place in the file (R2)."""
    table = await writable_slice(s, offset)
    await check_entry(s, table, offset)
    if table.cells[s.slice_index(offset)] & OFFSET_MASK:
        raise error(s, f"Compressed write to a cluster in use, at offset {offset:#x}")


async def _place(s: Qcow2State, run: list[Cluster]) -> None:
    for cluster in run:
        assert cluster.packed is not None
        cluster.place = await alloc_bytes(s, len(cluster.packed))
        await check_overlap(s, cluster.place, len(cluster.packed))


async def _write(s: Qcow2State, run: list[Cluster]) -> None:
    """Writes the packed data; without the lock."""
    start = end = run[0].place
    pieces: Iov = []
    for cluster in run:
        assert cluster.packed is not None
        if cluster.place != end:
            await _write_pieces(s, start, end, pieces)
            start = end = cluster.place
            pieces = []
        pieces.append(memoryview(cluster.packed))
        end += len(cluster.packed)
    await _write_pieces(s, start, end, pieces)


async def _write_pieces(s: Qcow2State, start: int, end: int, pieces: Iov) -> None:
    await debug.debug_event(s.file.bs, debug.WRITE_COMPRESSED)
    await s.file.co_pwritev(start, end - start, pieces)


async def _link(s: Qcow2State, run: list[Cluster]) -> None:
    """Lets the L2 entries point to the data (R5)."""
    await s.l2_cache.set_dependency(s.refcount_cache)
    for cluster in run:
        assert cluster.packed is not None
        table = await writable_slice(s, cluster.offset)
        await debug.debug_event(s.file.bs, debug.L2_UPDATE_COMPRESSED)
        entry = compressed_entry(s, cluster.place, len(cluster.packed))
        index = s.slice_index(cluster.offset)
        table.cells[index] = entry
        if table.bitmaps is not None:
            table.bitmaps[index] = 0
        s.l2_cache.mark_dirty(table)
        cluster.place = 0


async def _give_back(s: Qcow2State, run: list[Cluster]) -> None:
    """Frees what has not been linked (R4)."""
    if not any(cluster.place for cluster in run):
        return
    async with s.lock:
        try:
            s.file.bs.refresh_total_sectors()
        except OSError:
            return
        for cluster in run:
            if cluster.place and cluster.packed is not None and not s.broken:
                await free_clusters(s, cluster.place, len(cluster.packed), by_l2_entry=True)
