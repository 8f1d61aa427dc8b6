# SPDX-License-Identifier: GPL-2.0-only
"""Reads with flags: copy-on-read and prefetch (bdrv_co_do_copy_on_readv, block/io.c).

    a read of a range that this node does not hold:

    whole clusters   read from below into a buffer of our own
                     written into this node, zeroes as zeroes
                     the part that was asked for goes to the reader

REQ_COPY_ON_READ  the node keeps what a read had to fetch from below. On a node with
                  bs.copy_on_read every read has it.
REQ_PREFETCH      the reader wants the data here, not in its memory: its vector is empty.

R1  A copying read is serialising, in whole clusters: a write to one of them comes before it or
    after it, never between its reading and its writing. So it never puts old data over new.
R2  What is written comes from a buffer of our own: a guest may change its memory while we read.
R3  The content of the disk does not change, so REQ_WRITE_UNCHANGED is all that it asks of drivers,
    and a failure of the writing fails the read.
R4  A node that is inactive copies nothing.
Who may call it: io.co_preadv, in the node's context. Enabling: the main thread.

bs.copy_on_read counts who wants it. It costs nothing while nobody does: the fast path looks at
bl.fast_read only, which is 0 as long as it is on.
"""

from __future__ import annotations

import errno

from block.core import debug, io, status, zero
from block.core import flags as f
from block.core.align import Padding, blockalign
from block.core.error import BlockError
from block.core.iov import iov_from_bytes, iov_is_zero, iov_memset_zero, iov_size, iov_slice
from block.core.limits import min_non_zero
from block.core.serialise import READ, TrackedRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.edge import BdrvChild
    from block.core.iov import Iov
    from block.core.node import BlockDriverState


def enable_copy_on_read(bs: BlockDriverState) -> None:
    """From now on the node keeps what reads fetch from below (bdrv_enable_copy_on_read)."""
    if bs.read_only:
        raise BlockError(errno.EINVAL, "Can't use copy-on-read on read-only device", bs.node_name)
    bs.copy_on_read += 1
    bs.refresh_limits()


def disable_copy_on_read(bs: BlockDriverState) -> None:
    """Takes one enable_copy_on_read back (bdrv_disable_copy_on_read)."""
    assert bs.copy_on_read > 0, "copy-on-read is not enabled"
    bs.copy_on_read -= 1
    bs.refresh_limits()


async def co_preadv(child: BdrvChild, offset: int, nbytes: int, qiov: Iov, flags: int) -> None:
    """Does a read that has flags, or whose node copies (bdrv_aligned_preadv); within bounds."""
    bs = child.bs
    if bs.copy_on_read:
        flags |= f.REQ_COPY_ON_READ
    align = bs.bl.request_alignment
    if (offset | nbytes) & (align - 1):
        pad = Padding(offset, nbytes, align)
        qiov = qiov if flags & f.REQ_PREFETCH else pad.extend(qiov)
        offset -= pad.head
        nbytes += pad.head + pad.tail
    req = TrackedRequest(bs, offset, nbytes, READ)
    try:
        if flags & f.REQ_COPY_ON_READ and not bs.open_flags & f.BDRV_O_INACTIVE:
            await _copying_read(req, qiov, bool(flags & f.REQ_PREFETCH))
            return
        await req.wait_serialising()
        passed = flags & bs.supported_read_flags
        if passed & f.REQ_PREFETCH:
            assert bs.drv is not None
            await bs.drv.co_preadv(bs, offset, nbytes, qiov, passed)
        elif not flags & f.REQ_PREFETCH:
            await io.aligned_preadv(bs, offset, nbytes, qiov, passed)
    finally:
        req.end()


async def _copying_read(req: TrackedRequest, qiov: Iov, prefetch: bool) -> None:
    """Reads what is here, and copies the rest first (R1)."""
    bs, offset, nbytes = req.bs, req.offset, req.nbytes
    info = bs.get_info()
    cluster = (info and info.cluster_size) or bs.bl.request_alignment
    await req.mark_serialising(cluster)
    allocated, pnum = await status.co_is_allocated(bs, offset, nbytes)
    if not allocated or pnum != nbytes:
        await _read_and_copy(req, cluster, qiov, prefetch)
    elif not prefetch:
        await io.aligned_preadv(bs, offset, nbytes, qiov, 0)


async def _read_and_copy(req: TrackedRequest, cluster: int, qiov: Iov, prefetch: bool) -> None:
    """Goes through all clusters that a read touches, as far as the image has them."""
    bs, offset = req.bs, req.offset
    total = bs.getlength()
    end = min(offset + req.nbytes, total)
    at = offset // cluster * cluster
    stop = min(-(-end // cluster) * cluster, total)
    while at < stop:
        start = max(at, offset)
        allocated, size = await _next_piece(bs, at, stop - at)
        wanted = 0 if prefetch else max(0, min(at + size, end) - start)
        part = iov_slice(qiov, start - offset, wanted) if wanted else []
        if not allocated:
            await _copy(bs, at, size, part, start - at)
        elif part:
            await io.aligned_preadv(bs, start, wanted, part, 0)
        at += size
    inside = max(0, end - offset)
    if inside < req.nbytes and not prefetch:
        iov_memset_zero(qiov, inside, req.nbytes - inside)


async def _next_piece(bs: BlockDriverState, offset: int, nbytes: int) -> tuple[bool, int]:
    """Says whether the next bytes are here already, and for how many that is so.

    Where that cannot be found out, they are copied: the read will tell what is wrong.
    """
    largest = min_non_zero(bs.bl.max_transfer, f.REQUEST_MAX_BYTES)
    size = min(nbytes, largest)
    try:
        allocated, pnum = await status.co_is_allocated(bs, offset, size)
    except OSError:
        allocated, pnum = False, size
    assert pnum, "status.R1: an empty answer"
    return allocated, pnum if allocated else min(pnum, f.MAX_BOUNCE_BUFFER)


async def _copy(bs: BlockDriverState, offset: int, nbytes: int, part: Iov, skipped: int) -> None:
    """Fetches a piece, keeps it, and gives `part` what lies `skipped` bytes behind its begin."""
    bounce = blockalign(nbytes)
    await io.aligned_preadv(bs, offset, nbytes, [bounce], 0)
    await debug.debug_event(bs, debug.COR_WRITE)
    assert bs.drv is not None
    if "co_pwrite_zeroes" in bs.drv.hooks and iov_is_zero([bounce]):
        await zero.do_pwrite_zeroes(bs, offset, nbytes, f.REQ_WRITE_UNCHANGED)
    else:
        await io.driver_pwritev(bs, offset, nbytes, [bounce], f.REQ_WRITE_UNCHANGED)
    iov_from_bytes(part, 0, bounce[skipped : skipped + iov_size(part)])
