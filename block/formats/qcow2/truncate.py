# SPDX-License-Identifier: GPL-2.0-only
"""A longer disk (qcow2_co_truncate), and allocating all of it beforehand (preallocate_co).

R1  The L1 table grows first, then the size in the header: a crash in between leaves a table with
    some entries too many.
R2  What a longer backing file has behind the old end must not come to light: the core then asks
    for zeroes there (REQ_ZERO_WRITE).
Who may call it: coroutines in the node's context.
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core.error import BlockError
from block.core.iov import zero_iov
from block.formats.qcow2.cluster import grow_l1_table, writable_slice
from block.formats.qcow2.datafile import is_raw
from block.formats.qcow2.dirty import is_dirty
from block.formats.qcow2.layout import OFLAG_COPIED, SIZE_AT
from block.formats.qcow2.options import follow_size
from block.formats.qcow2.refcount import alloc_clusters
from block.formats.qcow2.write import co_pwritev
from block.formats.qcow2.zero import zeroize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.node import BlockDriverState
    from block.formats.qcow2.state import Qcow2State


def _refuse(s: Qcow2State, message: str, number: int = errno.ENOTSUP) -> BlockError:
    return BlockError(number, message, s.bs.node_name, "qcow2")


async def co_truncate(
    bs: BlockDriverState, size: int, exact: bool, prealloc: str, flags: int
) -> None:
    """Makes the disk `size` bytes long."""
    s: Qcow2State = bs.opaque
    if prealloc == "off" and is_raw(s):
        prealloc = "metadata"
    old = bs.total_sectors << 9
    if prealloc not in ("off", "metadata"):
        raise _refuse(s, f"Unsupported preallocation mode '{prealloc}'")
    if size % f.SECTOR_SIZE:
        message = f"The new size must be a multiple of {f.SECTOR_SIZE}"
        raise _refuse(s, message, errno.EINVAL)
    if size < old:
        raise _refuse(s, "qcow2 doesn't support shrinking images yet")
    if s.nb_snapshots:
        raise _refuse(s, "Can't resize an image which has snapshots")
    async with s.lock:
        await grow_l1_table(s, s.l1_entries(size))
        if prealloc == "metadata":
            await _preallocate(s, s.start_of_cluster(old), size)
        elif s.external:
            await s.data.co_truncate(size, exact)
    if flags & f.REQ_ZERO_WRITE:
        await _zero_new_part(s, old, size)
    async with s.lock:
        await write_caches(s)
        field = size.to_bytes(8, "big")
        await s.file.co_pwritev(SIZE_AT, len(field), [memoryview(field)])
        await s.file.co_flush()
    follow_size(s, size)


async def _zero_new_part(s: Qcow2State, old: int, size: int) -> None:
    """Zero clusters, and zeroes in what is left of the old last cluster (R2)."""
    start = old + -old % s.subcluster_size
    if size > start:
        async with s.lock:
            await zeroize(s, start, size - start, 0)
    if start > old:
        nbytes = min(start, size) - old
        await co_pwritev(s, old, nbytes, zero_iov(nbytes))


async def write_caches(s: Qcow2State) -> None:
    """Hands all tables to the file, with the lock (qcow2_write_caches). Not refcounts that may
    wait (dirty.py)."""
    if not s.broken:
        await s.l2_cache.write()
        if not is_dirty(s):
            await s.refcount_cache.write()


async def _preallocate(s: Qcow2State, offset: int, end: int) -> None:
    """Gives every cluster its place; the file becomes long enough for the last (preallocate_co)."""
    host_end = 0
    while offset < end:
        stop = min(end, ((offset >> s.slice_shift) + 1) << s.slice_shift)
        host_end = await _preallocate_slice(s, offset, s.clusters(stop - offset), host_end)
        offset = stop
    if s.external:
        host_end = min(host_end, end)
    if host_end > s.data.bs.getlength():
        await s.data.co_truncate(host_end)


async def _preallocate_slice(s: Qcow2State, offset: int, count: int, host_end: int) -> int:
    """Links clusters where there are none; returns where the last one ends in the file."""
    table = await writable_slice(s, offset)
    index = s.slice_index(offset)
    free = [at for at in range(index, index + count) if not table.cells[at] & s.place_flags]
    if not free:
        return host_end
    if s.external:
        start = s.start_of_cluster(offset)
        places = [start + (at - index << s.cluster_bits) for at in free]
    else:
        host = await alloc_clusters(s, len(free), "data cluster")
        places = [host + (number << s.cluster_bits) for number in range(len(free))]
    await s.l2_cache.set_dependency(s.refcount_cache)
    table = await writable_slice(s, offset)
    for place, at in zip(places, free, strict=True):
        table.cells[at] = place | OFLAG_COPIED
    s.l2_cache.mark_dirty(table)
    return max(host_end, places[-1] + s.cluster_size)
