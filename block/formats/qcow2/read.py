# SPDX-License-Identifier: GPL-2.0-only
"""Reads, and the question where bytes are (qcow2_co_preadv_part, qcow2_co_block_status).

    type of the cluster           is read from
    NORMAL                        the file
    COMPRESSED                    the file, and unpacked
    ZERO_PLAIN, ZERO_ALLOC        nowhere
    UNALLOCATED(_ALLOC)           the backing file; without one, nowhere

R1  try_preadv answers where one extent holds all that is wanted, its slice is in the cache, and the
    layer below answers at once. Everything else, failures too, is the coroutine's.
R2  A slice that is in the cache is read without the lock (state.py, R2).
Who may call it: at home in the node's context.
"""

from __future__ import annotations

from block.core import debug, io
from block.core import flags as f
from block.core.iov import iov_memset_zero, iov_slice
from block.formats.qcow2 import crypto, subcluster
from block.formats.qcow2.cluster import extent_in, lookup
from block.formats.qcow2.compressed import co_preadv_compressed
from block.formats.qcow2.layout import NOT_PLAIN, OFFSET_MASK
from block.formats.qcow2.refcount import get_refcounts
from block.formats.qcow2.state import (
    COMPRESSED,
    HOLES,
    NORMAL,
    UNALLOCATED_ALLOC,
    ZERO_ALLOC,
    ZERO_PLAIN,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.iov import Iov
    from block.core.node import BlockDriverState
    from block.core.status import Status
    from block.formats.qcow2.cache import Table
    from block.formats.qcow2.cluster import Extent
    from block.formats.qcow2.state import Qcow2State


def try_preadv(bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> int | None:
    """Reads at once, or declines (R1)."""
    s: Qcow2State = bs.opaque
    l2_offset = s.l1_table[offset >> s.l1_shift] & OFFSET_MASK
    place = l2_offset + ((offset >> s.slice_shift) << s.slice_size_bits & s.cluster_mask)
    table = s.l2_cache.tables.get(place)
    if table is None:
        return None
    if not s.plain:
        return _try_extent(s, table, offset, nbytes, qiov)
    entry = table.cells[offset >> s.cluster_bits & s.slice_mask]
    inside = offset & s.cluster_mask
    if inside + nbytes > s.cluster_size or entry & NOT_PLAIN:
        return None
    table.recent = True
    host = entry & OFFSET_MASK
    if host:
        return None if host & s.cluster_mask else io.try_preadv(s.data, host + inside, nbytes, qiov)
    return None if bs.backing is None else io.try_preadv(bs.backing, offset, nbytes, qiov)


def _try_extent(s: Qcow2State, table: Table, offset: int, nbytes: int, qiov: Iov) -> int | None:
    """The same where an entry alone does not tell: with subclusters, or a data file."""
    table.recent = True
    host = subcluster.data_at(s, table, offset, nbytes) if s.extended else None
    if host is None:
        kind, host, size = extent_in(s, table, offset, nbytes)
        if size < nbytes:
            return None
        if kind in HOLES and s.bs.backing is not None:
            return io.try_preadv(s.bs.backing, offset, nbytes, qiov)
        if kind != NORMAL:
            return None
    if (host ^ offset) & s.same_bits:
        return None
    if s.crypto is not None:
        return crypto.try_preadv(s, host, offset, nbytes, qiov)
    return io.try_preadv(s.data, host, nbytes, qiov)


async def find(s: Qcow2State, offset: int, nbytes: int) -> Extent:
    """Where the bytes at a guest offset are; with the lock only if it must be (R2)."""
    table = s.cached_slice(offset)
    if table is not None:
        table.recent = True
        found = extent_in(s, table, offset, nbytes)
        if found[0] == NORMAL and not (found[1] ^ offset) & s.same_bits:
            return found
    async with s.lock:
        return await lookup(s, offset, nbytes)


async def co_preadv(bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> None:
    """Reads, extent by extent (qcow2_co_preadv_part)."""
    s: Qcow2State = bs.opaque
    done = 0
    while done < nbytes:
        kind, host, size = await find(s, offset + done, nbytes - done)
        part = qiov if size == nbytes else iov_slice(qiov, done, size)
        if kind == NORMAL:
            if s.file.bs.debugged:
                await debug.debug_event(s.file.bs, debug.READ_AIO)
            if s.crypto is not None:
                await crypto.co_preadv(s, host, offset + done, size, part)
            else:
                await io.co_preadv(s.data, host, size, part, 0)
        elif kind == COMPRESSED:
            part = iov_slice(qiov, done, nbytes - done)
            size = await co_preadv_compressed(s, host, offset + done, nbytes - done, part)
        elif kind in HOLES and bs.backing is not None:
            if s.file.bs.debugged:
                await debug.debug_event(s.file.bs, debug.READ_BACKING_AIO)
            await io.co_preadv(bs.backing, offset + done, size, part, 0)
        else:
            iov_memset_zero(part)
        done += size


async def co_block_status(bs: BlockDriverState, offset: int, nbytes: int) -> Status:
    """Says of an extent where it is (qcow2_co_block_status)."""
    s: Qcow2State = bs.opaque
    async with s.lock:
        hollow = await looks_hollow(s)
        kind, host, size = await lookup(s, offset, nbytes)
    if s.crypt_method:
        return crypto.block_status(kind), size, 0, None
    if kind == ZERO_PLAIN:
        return f.BDRV_BLOCK_ZERO, size, 0, None
    if kind == UNALLOCATED_ALLOC:
        return f.BDRV_BLOCK_OFFSET_VALID, size, host, s.data.bs
    if kind == ZERO_ALLOC:
        return f.BDRV_BLOCK_ZERO | f.BDRV_BLOCK_OFFSET_VALID, size, host, s.data.bs
    if kind == NORMAL:
        ret = f.BDRV_BLOCK_DATA | f.BDRV_BLOCK_OFFSET_VALID
        return ret | f.BDRV_BLOCK_RECURSE * hollow, size, host, s.data.bs
    return f.BDRV_BLOCK_DATA if kind == COMPRESSED else 0, size, 0, None


async def looks_hollow(s: Qcow2State) -> bool:
    """As _looks_hollow; asked once, with the lock."""
    if s.looks_hollow is None:
        s.looks_hollow = await _looks_hollow(s)
    return s.looks_hollow


async def _looks_hollow(s: Qcow2State) -> bool:
    """Whether the file takes clearly less room than its clusters in use would: then clusters have
    been allocated beforehand, and the file knows which hold nothing
    (qcow2_detect_metadata_preallocation)."""
    file = s.file.bs
    assert file.drv is not None
    try:
        real = file.drv.get_allocated_file_size(file) // s.cluster_size
    except OSError:
        return False  # not every protocol knows
    enough = max(real * 10 // 9, real + 2)
    used, end, per_block = 0, s.clusters(file.getlength()), 1 << s.refblock_bits
    for first in range(0, end, per_block):
        counts = await get_refcounts(s, first, min(per_block, end - first))
        used += len(counts) - counts.count(0)
        if used >= enough:
            return True
    return False
