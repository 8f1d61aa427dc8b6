# SPDX-License-Identifier: GPL-2.0-only
"""A disk of another length (qcow2_co_truncate), and allocating all of it beforehand.

    preallocation   of a longer disk
    off             nothing is allocated
    metadata        every cluster has its place, the file reaches so far
    falloc, full    as metadata, and the file has room there, or zeroes

R1  The L1 table grows first, then the size in the header: a crash in between leaves a table with
    some entries too many. What is cut off is gone first, then the size changes (shrink.py). What
    lets the new part read as zeroes is safe before the size is written.
R2  The new part reads as zeroes. What a longer backing file has there must not come to light: the
    core then asks for zeroes (REQ_ZERO_WRITE). Nor what the guest wrote behind a later end:
    the rest of the old last cluster is zeroed if there are data.
R3  The file is long enough before an entry points there.
R4  A preallocation that fails gives back what it took. (QEMU keeps some of it.)
R5  What a VM state has left behind the end of the disk is dropped first. (In QEMU it comes to
    light as the new part's content, and a shorter disk leaks it.)
R6  A cluster that somebody had before is zeroed: with metadata free ones are taken first, and even
    behind the end of the file one comes to those that a larger refcount table has left.
    (In QEMU their old content comes to light.)
Who may call it: coroutines in the node's context.
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core.error import failed
from block.core.iov import zero_iov
from block.formats.qcow2.alloc import alloc_clusters
from block.formats.qcow2.cluster import grow_l1_table, load_slice, lookup, writable_slice
from block.formats.qcow2.datafile import is_raw, own_children
from block.formats.qcow2.dirty import write_caches
from block.formats.qcow2.free import free_clusters
from block.formats.qcow2.layout import OFLAG_COPIED, SIZE_AT
from block.formats.qcow2.options import follow_size
from block.formats.qcow2.shrink import shrink
from block.formats.qcow2.state import COMPRESSED, NORMAL, refuse
from block.formats.qcow2.subcluster import ALL_ALLOC
from block.formats.qcow2.switch import switch
from block.formats.qcow2.write import co_pwritev
from block.formats.qcow2.zero import forget, zeroize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.node import BlockDriverState
    from block.formats.qcow2.state import Qcow2State


async def co_truncate(
    bs: BlockDriverState, size: int, exact: bool, prealloc: str, flags: int
) -> None:
    """Makes the disk `size` bytes long."""
    s: Qcow2State = bs.opaque
    old = bs.total_sectors << 9
    if prealloc == "off" and is_raw(s) and size > old:
        prealloc = "metadata"
    if size % f.SECTOR_SIZE:
        message = f"The new size must be a multiple of {f.SECTOR_SIZE}"
        raise refuse(s, message)
    if size < old and prealloc != "off":
        message = "Preallocation can't be used for shrinking an image"
        raise refuse(s, message)
    if s.nb_snapshots and s.version < 3:
        raise refuse(s, "Can't resize a v2 image which has snapshots", errno.ENOTSUP)
    if size != old:
        async with s.lock:
            await _drop_vm_state(s)
    if size >= old:
        await _grow(s, old, size, prealloc, bool(flags & f.REQ_ZERO_WRITE))
    else:
        async with s.lock:
            await shrink(s, old, size)
    if s.external and prealloc == "off":
        await s.data.co_truncate(size, exact)
    async with s.lock:
        try:
            await write_caches(s)
            for child in (*own_children(s), s.file):
                await child.co_flush()
        except OSError as error:
            raise failed("Failed to update the tables", error, s.bs.node_name) from error
        await _write_size(s, size)
    follow_size(s, size)


async def _write_size(s: Qcow2State, size: int) -> None:
    field = size.to_bytes(8, "big")
    try:
        await switch(s, SIZE_AT, memoryview(field))
    except OSError as error:
        raise failed("Failed to update the image size", error, s.bs.node_name) from error


async def _drop_vm_state(s: Qcow2State) -> None:
    """A machine's state has its tables where a longer disk will have its own (R5)."""
    start, end = s.vm_state_offset(), len(s.l1_table) << s.l1_shift
    if any(s.l1_table[start >> s.l1_shift :]):
        await forget(s, start, end - start)


async def _grow(s: Qcow2State, old: int, size: int, prealloc: str, zero: bool) -> None:
    """Makes room for a longer disk, which reads as zeroes there (R2)."""
    async with s.lock:
        start = await _zero_subclusters(s, old, size)
    # New clusters behind the end of the file hold zeroes already, unless they will be decrypted.
    hollow = prealloc in ("off", "metadata") or s.external or s.extended
    decrypts = bool(s.crypt_method) and prealloc != "off" and s.version >= 3
    zero_entries = (zero and hollow) or decrypts
    async with s.lock:
        try:
            await grow_l1_table(s, s.l1_entries(size))
        except OSError as error:
            raise failed("Failed to grow the L1 table", error, s.bs.node_name) from error
        if prealloc != "off":
            await _preallocate_all(s, old, size, prealloc)
        if zero_entries and size > start:
            try:
                await zeroize(s, start, size - start, 0)
            except OSError as error:  # version 2 cannot, where a backing file may have data
                raise failed("Failed to zero out new clusters", error, s.bs.node_name) from error
        has_data = start > old and (await lookup(s, old, start - old))[0] in (NORMAL, COMPRESSED)
    if start > old and (has_data or zero or prealloc != "off"):
        await co_pwritev(s, old, start - old, zero_iov(start - old))


async def _zero_subclusters(s: Qcow2State, old: int, size: int) -> int:
    """Lets the other subclusters of the old last cluster be zero, if it has data. Returns where
    the bytes end that only a write can zero."""
    end = min(size, old + -old % s.cluster_size)
    start = min(end, old + -old % s.subcluster_size)
    table = await load_slice(s, start) if start < end else None
    if table is None or table.bitmaps is None:
        return start
    index = s.slice_index(start)
    if s.cluster_type(table.cells[index]) == COMPRESSED:
        return end
    if table.bitmaps[index] & ALL_ALLOC:
        await zeroize(s, start, end - start, 0)
    return start


async def _preallocate_all(s: Qcow2State, old: int, end: int, prealloc: str) -> None:
    """Gives every cluster its place (preallocate_co, R4).

    With falloc and full they lie behind the end of the file: what is there is new. Of a cluster
    that the disk had in part, subclusters stay as they are; without such, _grow writes it.
    """
    start = old + -old % s.cluster_size
    at = s.start_of_cluster(old) if s.extended else start
    free = s.free_cluster
    if prealloc != "metadata" and not s.external:
        s.free_cluster = max(free, s.clusters(s.file_length()))
    try:
        while at < end:
            stop = min(end, ((at >> s.slice_shift) + 1) << s.slice_shift)
            await _preallocate_slice(s, at, stop, prealloc)
            at = stop
    except OSError as error:
        if at > start:
            await forget(s, start, at - start)
        raise failed("Failed to preallocate clusters", error, s.bs.node_name) from error
    finally:
        s.free_cluster = min(free, s.free_cluster)


async def _preallocate_slice(s: Qcow2State, offset: int, stop: int, prealloc: str) -> None:
    """Links clusters where there are none (R3)."""
    table = await writable_slice(s, offset)
    index = s.slice_index(offset)
    last = index + s.clusters(stop - offset)
    free = [at for at in range(index, last) if not table.cells[at] & s.place_flags]
    if not free:
        return
    length = len(free) << s.cluster_bits
    if s.external:
        start = s.start_of_cluster(offset)
        places = [start + (at - index << s.cluster_bits) for at in free]
    else:
        host = await alloc_clusters(s, len(free), "data cluster")
        places = list(range(host, host + length, s.cluster_size))
    used = min(places[0] + length, s.file_length()) - places[0]
    end = places[-1] + s.cluster_size
    try:
        if used > 0 and not s.external and not s.extended:
            await s.file.co_pwrite_zeroes(places[0], used)  # R6
        await _extend_file(s, min(end, stop) if s.external else end, prealloc)
    except OSError:
        if not s.external:
            await free_clusters(s, places[0], length)
        raise
    await s.l2_cache.set_dependency(s.refcount_cache)
    table = await writable_slice(s, offset)
    for place, at in zip(places, free, strict=True):
        table.cells[at] = place | OFLAG_COPIED
    s.l2_cache.mark_dirty(table)


async def _extend_file(s: Qcow2State, end: int, prealloc: str) -> None:
    """Makes the file with the data so long at least; its new part has room, or zeroes, as
    preallocation says."""
    if end <= s.data.bs.getlength():
        return
    mode = "off" if prealloc == "metadata" else prealloc
    try:
        await s.data.co_truncate(end, prealloc=mode)
    except OSError as error:
        raise failed("Failed to resize underlying file", error, s.bs.node_name) from error
