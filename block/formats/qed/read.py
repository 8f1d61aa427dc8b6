# SPDX-License-Identifier: GPL-2.0-only
"""Reads, and the question where bytes are (qed_aio_read_data, bdrv_qed_co_block_status).

R1  try_preadv answers where one cluster holds all that is wanted, its slice is in memory, and the
    layer below answers at once. Everything else, failures too, is the coroutine's.
R2  No lock is held while data are read: a cluster that an entry points to is never freed.
Who may call it: at home in the node's context.
"""

from __future__ import annotations

from block.core import debug, io
from block.core import flags as f
from block.core.iov import iov_memset_zero, iov_slice
from block.formats.qed.cluster import FOUND, ZERO, find_cluster

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.iov import Iov
    from block.core.node import BlockDriverState
    from block.core.status import Status
    from block.formats.qed.state import QedState


def try_preadv(bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> int | None:
    """Reads at once, or declines (R1)."""
    s: QedState = bs.opaque
    l2_offset = s.l1_table[offset >> s.l1_shift]
    inside = offset & s.cluster_mask
    if not l2_offset or inside + nbytes > s.cluster_size:
        return None
    cluster = offset >> s.cluster_bits
    cells = s.l2_cache.find(l2_offset + ((cluster & s.slice_first_mask) << 3))
    if cells is None:
        return None
    entry = cells[cluster & s.slice_mask]
    if entry > 1:
        if entry & s.cluster_mask or not s.header_end <= entry < s.file_size:
            return None
        return io.try_preadv(s.file, entry + inside, nbytes, qiov)
    if entry or bs.backing is None:
        return None
    return io.try_preadv(bs.backing, offset, nbytes, qiov)


async def co_preadv(bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> None:
    """Reads, extent by extent (qed_aio_next_io)."""
    s: QedState = bs.opaque
    done = 0
    while done < nbytes:
        kind, host, size = await find_cluster(s, offset + done, nbytes - done)
        part = qiov if size == nbytes else iov_slice(qiov, done, size)
        if kind == FOUND:
            if s.file.bs.debugged:
                await debug.debug_event(s.file.bs, debug.READ_AIO)
            await io.co_preadv(s.file, host, size, part, 0)
        elif kind == ZERO:
            iov_memset_zero(part)
        else:
            await read_backing_file(s, offset + done, size, part)
        done += size


async def read_backing_file(s: QedState, offset: int, nbytes: int, qiov: Iov) -> None:
    """Reads from the backing file; without one, zeroes (qed_read_backing_file)."""
    backing = s.bs.backing
    if backing is None:
        iov_memset_zero(qiov)
        return
    if s.file.bs.debugged:
        await debug.debug_event(s.file.bs, debug.READ_BACKING_AIO)
    await io.co_preadv(backing, offset, nbytes, qiov, 0)


async def co_block_status(bs: BlockDriverState, offset: int, nbytes: int) -> Status:
    """Says of an extent where it is (bdrv_qed_co_block_status)."""
    s: QedState = bs.opaque
    kind, host, size = await find_cluster(s, offset, nbytes)
    if kind == FOUND:
        return f.BDRV_BLOCK_DATA | f.BDRV_BLOCK_OFFSET_VALID, size, host, s.file.bs
    return f.BDRV_BLOCK_ZERO if kind == ZERO else 0, size, 0, None
