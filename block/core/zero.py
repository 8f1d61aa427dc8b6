# SPDX-License-Identifier: GPL-2.0-only
"""Writes of zeroes (bdrv_co_pwrite_zeroes).

R1  The driver's co_pwrite_zeroes gets the middle of a request, aligned to
    bl.pwrite_zeroes_alignment; head and tail come to it in pieces of their own.
R2  Where the driver has no better way (ENOTSUP), zeroes are written, at most 16 MiB at a
    time; unless REQ_NO_FALLBACK forbids that.
R3  REQ_MAY_UNMAP goes down only to nodes that were opened with discard=unmap.
Who may call it: BdrvChild and io, in the node's context.
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core import flush, io
from block.core.align import Padding
from block.core.error import BlockError
from block.core.iov import zero_iov
from block.core.limits import min_non_zero
from block.core.serialise import WRITE, TrackedRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from block.core.edge import BdrvChild
    from block.core.node import BlockDriverState


async def co_pwrite_zeroes(child: BdrvChild, offset: int, nbytes: int, flags: int) -> None:
    """Makes a range read as zeroes, however long it is (bdrv_co_pwrite_zeroes)."""
    bs = child.bs
    io.check_range(bs, offset, nbytes)
    flags |= f.REQ_ZERO_WRITE
    if not bs.open_flags & f.BDRV_O_UNMAP:
        flags &= ~f.REQ_MAY_UNMAP
    unaligned = io.is_unaligned(bs, offset, nbytes, flags)
    req = TrackedRequest(bs, offset, nbytes, WRITE)
    try:
        if nbytes == 0:
            io.check_write(child, offset, nbytes, flags)
        elif unaligned:
            await _unaligned_zeroes(child, req, flags)
        else:
            await io.aligned_pwritev(child, req, offset, nbytes, None, flags)
    finally:
        req.end()


async def _unaligned_zeroes(child: BdrvChild, req: TrackedRequest, flags: int) -> None:
    """Head and tail by read-modify-write, the middle as zeroes (bdrv_co_do_zero_pwritev)."""
    bs = child.bs
    pad = Padding(req.offset, req.nbytes, bs.bl.request_alignment)
    await req.mark_serialising(pad.align)
    await io.read_padding(bs, req, pad)
    start, end = req.overlap_offset, req.overlap_end
    data_flags = flags & ~(f.REQ_ZERO_WRITE | f.REQ_MAY_UNMAP)
    if pad.merged:
        pad.buf[pad.head : len(pad.buf) - pad.tail] = bytes(req.nbytes)
        await io.aligned_pwritev(child, req, start, len(pad.buf), [pad.buf], data_flags)
        return
    if pad.head:
        block = pad.buf[: pad.align]
        block[pad.head :] = bytes(pad.align - pad.head)
        await io.aligned_pwritev(child, req, start, pad.align, [block], data_flags)
        start += pad.align
    if pad.tail:
        end -= pad.align
    if start < end:
        await io.aligned_pwritev(child, req, start, end - start, None, flags)
    if pad.tail:
        block = pad.tail_buf
        block[: pad.align - pad.tail] = bytes(pad.align - pad.tail)
        await io.aligned_pwritev(child, req, end, pad.align, [block], data_flags)


def pieces(offset: int, nbytes: int, align: int, largest: int) -> Iterator[tuple[int, int]]:
    """Cuts a range so that only its first and last piece are not aligned (R1)."""
    end = offset + nbytes
    largest = largest // align * align
    assert largest, "a limit that is shorter than a block"
    while offset < end:
        size = min(end - offset, largest)
        head = offset % align
        if head:
            size = min(size, align - head)
        elif size > align:
            size -= size % align
        yield offset, size
        offset += size


async def do_pwrite_zeroes(bs: BlockDriverState, offset: int, nbytes: int, flags: int) -> None:
    """Asks the driver, piece by piece, and falls back to writing (bdrv_co_do_pwrite_zeroes)."""
    bl = bs.bl
    if flags & ~bs.supported_zero_flags & f.REQ_NO_FALLBACK:
        raise BlockError(errno.ENOTSUP, "No efficient zero writes", bs.node_name, offset=offset)
    align = max(bl.pwrite_zeroes_alignment, bl.request_alignment)
    largest = min_non_zero(bl.max_pwrite_zeroes, f.INT_MAX)
    need_flush = False
    for start, size in pieces(offset, nbytes, align, largest):
        if await _driver_zeroes(bs, start, size, flags):
            need_flush |= bool(flags & f.REQ_FUA & ~bs.supported_zero_flags)
        else:
            need_flush |= await _bounce_zeroes(bs, start, size, flags)
    if need_flush:
        await flush.co_flush_written(bs)


async def _driver_zeroes(bs: BlockDriverState, offset: int, nbytes: int, flags: int) -> bool:
    """Lets the driver do it; False where it has no way."""
    drv = bs.drv
    assert drv is not None
    if "co_pwrite_zeroes" not in drv.hooks:
        return False
    try:
        await drv.co_pwrite_zeroes(bs, offset, nbytes, flags & bs.supported_zero_flags)
    except OSError as error:
        if error.errno != errno.ENOTSUP or flags & f.REQ_NO_FALLBACK:
            raise
        return False
    return True


async def _bounce_zeroes(bs: BlockDriverState, offset: int, nbytes: int, flags: int) -> bool:
    """Writes zeroes as data (R2); True where a flush must follow for FUA."""
    if flags & f.REQ_NO_FALLBACK:
        raise BlockError(errno.ENOTSUP, "No efficient zero writes", bs.node_name, offset=offset)
    by_flush = flags & f.REQ_FUA & ~bs.supported_write_flags
    flags &= ~(f.REQ_ZERO_WRITE | f.REQ_MAY_UNMAP | by_flush)
    for start, size in pieces(offset, nbytes, bs.bl.request_alignment, f.MAX_BOUNCE_BUFFER):
        await io.pwritev_in_parts(bs, start, size, zero_iov(size), flags)
    return bool(by_flush)
