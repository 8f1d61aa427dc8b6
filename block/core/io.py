# SPDX-License-Identifier: GPL-2.0-only
"""Reads and writes on their way through a node (block/io.c).

    co_preadv                     co_pwritev
      bounds; flags go elsewhere    bounds, read-only
      pad to the alignment          pad; read head and tail first (serialising)
      track the request             track; wait for serialising requests that overlap
      split by the limits           split; FUA by a flush where the driver has none
      driver.co_preadv              driver.co_pwritev
      zeroes beyond the end         grow the node, tell parents, count the generation,
                                    note it in dirty bitmaps

R1  A request is bounded: 0 <= offset, at most REQUEST_MAX_BYTES of a buffer; else EIO.
R2  A write needs permission on its edge, a writable node, and the resize permission where
    it goes beyond the end; else EPERM. A driver that breaks this has a bug.
R3  What lies beyond the end of a node reads as zeroes.
R4  try_preadv makes the same checks and declines whatever is not simple:
    unaligned, at the end, too long, waiting for others (DESIGN.md, rule 13).
Who may call it: BdrvChild, in the node's context.

Discussion: the common case (aligned, nobody serialising) is handled in
co_preadv and co_pwritev themselves, since each further await costs 0.1 us and a node
more on the way costs them all again.
"""

from __future__ import annotations

import errno

from block.core import debug, flush, zero
from block.core import flags as f
from block.core.align import Padding, blockalign, split
from block.core.error import BlockError, no_medium
from block.core.iov import iov_from_bytes, iov_is_zero, iov_memset_zero, iov_slice, iov_to_bytes
from block.core.serialise import DISCARD, READ, TRUNCATE, WRITE, TrackedRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.edge import BdrvChild
    from block.core.iov import Iov
    from block.core.node import BlockDriverState

_WRITE_PERMS = f.BLK_PERM_WRITE | f.BLK_PERM_WRITE_UNCHANGED
_NO_WRITES = f.BDRV_O_INACTIVE | f.BDRV_O_NO_IO


def check_request(bs: BlockDriverState, offset: int, nbytes: int) -> None:
    """Raises unless the request is within what a node takes (bdrv_check_request32, R1)."""
    if nbytes > f.REQUEST_MAX_BYTES:
        raise BlockError(errno.EIO, f"Request of {nbytes} bytes", bs.node_name, offset=offset)
    check_range(bs, offset, nbytes)


def check_range(bs: BlockDriverState, offset: int, nbytes: int) -> None:
    """The same for a request without a buffer, which may be of any length (bdrv_check_request)."""
    if nbytes < 0:
        raise BlockError(errno.EIO, f"Request of {nbytes} bytes", bs.node_name, offset=offset)
    if bs.drv is None:
        raise no_medium(bs.node_name)
    if not 0 <= offset <= f.MAX_LENGTH - nbytes:
        raise BlockError(errno.EIO, f"Request at offset {offset}", bs.node_name, offset=offset)


# -- reads


def try_preadv(child: BdrvChild, offset: int, nbytes: int, qiov: Iov) -> int | None:
    """Reads at once if that is simple, else declines with None (R4)."""
    bs = child.bs
    bl = bs.bl
    if (
        (offset | nbytes) & bl.align_mask
        or not 0 < nbytes <= bl.fast_read
        or not 0 <= offset <= (bs.total_sectors << 9) - nbytes
        or len(qiov) > bl.max_iov
        or bs.serialising_in_flight
        or (drv := bs.drv) is None
    ):
        return None
    return drv.try_preadv(bs, offset, nbytes, qiov)


async def co_preadv(child: BdrvChild, offset: int, nbytes: int, qiov: Iov, flags: int) -> None:
    """Reads `nbytes` bytes at `offset` into a vector of that size (bdrv_co_preadv)."""
    bs = child.bs
    bl = bs.bl
    if (
        (offset | nbytes) & bl.align_mask
        or not 0 < nbytes <= bl.largest
        or not nbytes <= offset + nbytes <= bs.total_sectors << 9
        or len(qiov) > bl.max_iov
        or flags
        or bs.copy_on_read
        or bs.serialising_in_flight
        or (drv := bs.drv) is None
    ):
        await _preadv_with_care(child, offset, nbytes, qiov, flags)
        return
    req = TrackedRequest(bs, offset, nbytes, READ)
    try:
        await drv.co_preadv(bs, offset, nbytes, qiov, 0)
    finally:
        req.end()


async def _preadv_with_care(
    child: BdrvChild, offset: int, nbytes: int, qiov: Iov, flags: int
) -> None:
    """Does a read that is not simple: unaligned, at the end, too long, flagged, or refused."""
    bs = child.bs
    check_request(bs, offset, nbytes)
    if nbytes == 0:
        return
    if flags or bs.copy_on_read:
        from block.core import copy_on_read

        await copy_on_read.co_preadv(child, offset, nbytes, qiov, flags)
        return
    align = bs.bl.request_alignment
    if (offset | nbytes) & (align - 1):
        pad = Padding(offset, nbytes, align)
        qiov = pad.extend(qiov)
        offset -= pad.head
        nbytes += pad.head + pad.tail
    req = TrackedRequest(bs, offset, nbytes, READ)
    try:
        if bs.serialising_in_flight:
            await req.wait_serialising()
        await aligned_preadv(bs, offset, nbytes, qiov, flags)
    finally:
        req.end()


def _max_transfer(bs: BlockDriverState) -> int:
    align = bs.bl.request_alignment
    return (bs.bl.max_transfer or f.INT_MAX) // align * align


async def aligned_preadv(
    bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
) -> None:
    """Reads aligned bytes: in parts where limits say so, and zeroes beyond the end (R3)."""
    align = bs.bl.request_alignment
    inside = max(0, bs.getlength() - offset)
    inside = min(-(-inside // align) * align, nbytes)
    drv = bs.drv
    assert drv is not None
    for start, size, part in split(qiov, inside, _max_transfer(bs), bs.bl.max_iov, align):
        if len(part) <= bs.bl.max_iov:
            await drv.co_preadv(bs, offset + start, size, part, flags)
            continue
        bounce = blockalign(size)
        await drv.co_preadv(bs, offset + start, size, [bounce], flags)
        iov_from_bytes(part, 0, bounce)
    if inside < nbytes:
        iov_memset_zero(qiov, inside, nbytes - inside)


# -- writes


async def co_pwritev(child: BdrvChild, offset: int, nbytes: int, qiov: Iov, flags: int) -> None:
    """Writes a vector of `nbytes` bytes (bdrv_co_pwritev); flags are REQ_*."""
    bs = child.bs
    bl = bs.bl
    end = offset + nbytes
    if (
        (offset | nbytes) & bl.align_mask
        or not 0 < nbytes <= bl.largest
        or not nbytes <= end <= f.MAX_LENGTH
        or ((grows := end > bs.total_sectors << 9) and not child.perm & f.BLK_PERM_RESIZE)
        or len(qiov) > bl.max_iov
        or flags & ~bs.supported_write_flags
        or not child.perm & f.BLK_PERM_WRITE
        or bs.serialising_in_flight
        or bs.read_only
        or bs.open_flags & _NO_WRITES
        or bs.before_write_notifiers
        or bs.detect_zeroes != "off"
        or (drv := bs.drv) is None
    ):
        await _pwritev_with_care(child, offset, nbytes, qiov, flags)
        return
    req = TrackedRequest(bs, offset, nbytes, WRITE)
    try:
        await drv.co_pwritev(bs, offset, nbytes, qiov, flags)
        if grows and end > bs.total_sectors << 9:
            set_length(bs, end)
    finally:
        bs.write_gen += 1
        if end > bs.wr_highest_offset:
            bs.wr_highest_offset = end
        if bs.dirty_bitmaps:
            set_dirty(bs, offset, nbytes)
        req.end()


def is_unaligned(bs: BlockDriverState, offset: int, nbytes: int, flags: int) -> bool:
    """Whether a change needs read-modify-write; ENOTSUP where REQ_NO_FALLBACK rules that out."""
    unaligned = bool((offset | nbytes) & (bs.bl.request_alignment - 1))
    if unaligned and flags & f.REQ_NO_FALLBACK:
        raise BlockError(errno.ENOTSUP, "Unaligned request", bs.node_name, offset=offset)
    return unaligned


async def _pwritev_with_care(
    child: BdrvChild, offset: int, nbytes: int, qiov: Iov, flags: int
) -> None:
    """Does a write that is not simple: unaligned, too long, growing, flagged, or refused."""
    if flags & f.REQ_ZERO_WRITE:
        await zero.co_pwrite_zeroes(child, offset, nbytes, flags)
        return
    bs = child.bs
    check_request(bs, offset, nbytes)
    align = bs.bl.request_alignment
    unaligned = is_unaligned(bs, offset, nbytes, flags)
    req = TrackedRequest(bs, offset, nbytes, WRITE)
    try:
        if nbytes == 0:
            check_write(child, offset, nbytes, flags)
            if flags & f.REQ_WRITE_COMPRESSED and bs.drv is not None:
                await bs.drv.co_pwritev_compressed(bs, offset, nbytes, qiov)  # no more comes
        elif unaligned:
            pad = Padding(offset, nbytes, align)
            await req.mark_serialising(align)
            await read_padding(bs, req, pad)
            offset, nbytes = offset - pad.head, nbytes + pad.head + pad.tail
            await aligned_pwritev(child, req, offset, nbytes, pad.extend(qiov), flags)
        else:
            await aligned_pwritev(child, req, offset, nbytes, qiov, flags)
    finally:
        req.end()


async def read_padding(bs: BlockDriverState, req: TrackedRequest, pad: Padding) -> None:
    """Reads the blocks that a write changes only partly (bdrv_padding_rmw_read)."""
    assert req.serialising, "align.R3"
    if pad.merged:
        await _read_blocks(bs, req.overlap_offset, pad.buf, bool(pad.head), bool(pad.tail))
        return
    if pad.head:
        await _read_blocks(bs, req.overlap_offset, pad.buf[: pad.align], True, False)
    if pad.tail:
        await _read_blocks(bs, req.overlap_end - pad.align, pad.tail_buf, False, True)


async def _read_blocks(
    bs: BlockDriverState, offset: int, buffer: memoryview, head: bool, tail: bool
) -> None:
    """Reads blocks that hold a head, a tail or both, and says so before and after."""
    if head:
        await debug.debug_event(bs, debug.PWRITEV_RMW_HEAD)
    if tail:
        await debug.debug_event(bs, debug.PWRITEV_RMW_TAIL)
    await aligned_preadv(bs, offset, len(buffer), [buffer], 0)
    if head:
        await debug.debug_event(bs, debug.PWRITEV_RMW_AFTER_HEAD)
    if tail:
        await debug.debug_event(bs, debug.PWRITEV_RMW_AFTER_TAIL)


async def aligned_pwritev(
    child: BdrvChild, req: TrackedRequest, offset: int, nbytes: int, qiov: Iov | None, flags: int
) -> None:
    """Writes aligned bytes; a vector of None means zeroes (bdrv_aligned_pwritev)."""
    bs = child.bs
    await write_prepare(child, req, offset, nbytes, flags)
    done = False
    try:
        if qiov is not None and bs.detect_zeroes != "off":
            flags = _detect_zeroes(bs, nbytes, qiov, flags)
        is_zero = qiov is None or flags & f.REQ_ZERO_WRITE
        await debug.debug_event(bs, debug.PWRITEV_ZERO if is_zero else debug.PWRITEV)
        if qiov is None or is_zero:
            await zero.do_pwrite_zeroes(bs, offset, nbytes, flags)
        elif flags & f.REQ_WRITE_COMPRESSED:
            assert bs.drv is not None
            await bs.drv.co_pwritev_compressed(bs, offset, nbytes, qiov)
        elif not 0 < bs.bl.max_transfer < nbytes and len(qiov) <= bs.bl.max_iov:
            await driver_pwritev(bs, offset, nbytes, qiov, flags)
        else:
            await pwritev_in_parts(bs, offset, nbytes, qiov, flags)
        done = True
    finally:
        await debug.debug_event(bs, debug.PWRITEV_DONE)
        write_finish(req, offset, nbytes, done)


async def pwritev_in_parts(
    bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
) -> None:
    """Splits by the limits; a flush for FUA comes after the last part only."""
    by_flush = flags & f.REQ_FUA & ~bs.supported_write_flags
    align = bs.bl.request_alignment
    for start, size, part in split(qiov, nbytes, _max_transfer(bs), bs.bl.max_iov, align):
        if len(part) > bs.bl.max_iov:
            bounce = blockalign(size)
            bounce[:] = iov_to_bytes(part)
            part = [bounce]
        last = start + size == nbytes
        await driver_pwritev(bs, offset + start, size, part, flags if last else flags & ~by_flush)


async def driver_pwritev(
    bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
) -> None:
    """Calls the driver; FUA by a flush where it has none (bdrv_driver_pwritev)."""
    drv = bs.drv
    assert drv is not None
    assert not flags & f.REQ_NO_FALLBACK, "a request without fallback got this far"
    await drv.co_pwritev(bs, offset, nbytes, qiov, flags & bs.supported_write_flags)
    if flags & f.REQ_FUA & ~bs.supported_write_flags:
        await flush.co_flush_written(bs)


def _detect_zeroes(bs: BlockDriverState, nbytes: int, qiov: Iov, flags: int) -> int:
    """Turns a write of nothing but zeroes into a zero write (detect-zeroes=on|unmap)."""
    assert bs.drv is not None
    if "co_pwrite_zeroes" in bs.drv.hooks and iov_is_zero(iov_slice(qiov, 0, nbytes)):
        flags |= f.REQ_ZERO_WRITE
        if bs.detect_zeroes == "unmap":
            flags |= f.REQ_MAY_UNMAP
    return flags


# -- what every change of a node's content begins and ends with


def check_write(child: BdrvChild, offset: int, nbytes: int, flags: int) -> None:
    """Raises unless this edge may write there (R2)."""
    bs = child.bs
    if bs.read_only:
        raise BlockError(errno.EPERM, "Block node is read-only", bs.node_name, offset=offset)
    assert not bs.open_flags & _NO_WRITES, "the node takes no I/O"
    enough = _WRITE_PERMS if flags & f.REQ_WRITE_UNCHANGED else f.BLK_PERM_WRITE
    if not child.perm & enough:
        message = f"'{child.name}' has no 'write' permission on {bs.node_name}"
        raise BlockError(errno.EPERM, message, bs.node_name, offset=offset)
    if offset + nbytes > bs.total_sectors << 9 and not child.perm & f.BLK_PERM_RESIZE:
        message = f"'{child.name}' has no 'resize' permission on {bs.node_name}"
        raise BlockError(errno.EPERM, message, bs.node_name, offset=offset)


async def write_prepare(
    child: BdrvChild, req: TrackedRequest, offset: int, nbytes: int, flags: int
) -> None:
    """Checks, waits for others, tells who wants to know (bdrv_co_write_req_prepare)."""
    bs = child.bs
    if req.type == TRUNCATE:
        await req.wait_serialising()
        return
    in_bounds = 0 if req.type == DISCARD else nbytes
    check_write(child, offset, in_bounds, flags)
    if flags & f.REQ_SERIALISING:
        info = bs.get_info()
        align = (info and info.cluster_size) or bs.bl.request_alignment
        if not flags & f.REQ_NO_WAIT:
            await req.mark_serialising(align)
        elif not req.try_serialising(align):
            raise BlockError(errno.EBUSY, "", bs.node_name, offset=offset)
    elif bs.serialising_in_flight:
        await req.wait_serialising()
    for notifier in list(bs.before_write_notifiers):
        await notifier(req)


def write_finish(req: TrackedRequest, offset: int, nbytes: int, done: bool) -> None:
    """Counts the generation; a longer node tells its parents; bitmaps take note, of what
    failed half-way, too (bdrv_co_write_req_finish)."""
    bs = req.bs
    bs.write_gen += 1
    end = offset + nbytes
    grown = req.type == TRUNCATE or (req.type == WRITE and end > bs.total_sectors << 9)
    if done and grown:
        set_length(bs, end)
    if req.type == WRITE:
        bs.wr_highest_offset = max(bs.wr_highest_offset, offset + nbytes)
    if bs.dirty_bitmaps and req.nbytes and req.type in (WRITE, DISCARD):
        set_dirty(bs, offset, nbytes)


def set_length(bs: BlockDriverState, end: int) -> None:
    """A node has another length, `end` bytes and up to a whole sector: who must know hears it."""
    bs.total_sectors = -(-end // f.SECTOR_SIZE)
    bs.parents_resized()
    for bitmap in bs.dirty_bitmaps:
        bitmap.truncate(bs.total_sectors << f.SECTOR_BITS)


def set_dirty(bs: BlockDriverState, offset: int, nbytes: int) -> None:
    """All dirty bitmaps of a node take note of a change (bdrv_set_dirty)."""
    for bitmap in bs.dirty_bitmaps:
        bitmap.note_write(offset, nbytes)
