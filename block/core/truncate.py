# SPDX-License-Identifier: GPL-2.0-only
"""Changing the length of a node (bdrv_co_truncate).

R1  The edge needs the resize permission.
R2  While an image grows, nobody writes to the new part: preallocation could overwrite it.
R3  Where a backing file is longer than the old end, the new part is zeroed: its content
    must not come to light.
Who may call it: BdrvChild, in the node's context.
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core import io
from block.core.error import BlockError, no_medium
from block.core.serialise import TRUNCATE, TrackedRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.edge import BdrvChild
    from block.core.node import BlockDriverState


def _check(child: BdrvChild, offset: int, prealloc: str) -> None:
    bs = child.bs
    if bs.drv is None:
        raise no_medium(bs.node_name)
    if offset < 0:
        raise BlockError(errno.EINVAL, "Image size cannot be negative", bs.node_name)
    if offset > f.MAX_LENGTH:
        message = f"offset({offset}) exceeds maximum({f.MAX_LENGTH})"
        raise BlockError(errno.EIO, message, bs.node_name)
    if prealloc not in f.PREALLOC_MODES:
        raise BlockError(errno.EINVAL, f"Invalid preallocation mode '{prealloc}'", bs.node_name)
    if bs.read_only:
        raise BlockError(errno.EACCES, "Image is read-only", bs.node_name)
    if not child.perm & f.BLK_PERM_RESIZE:
        message = f"'{child.name}' has no 'resize' permission on {bs.node_name}"
        raise BlockError(errno.EPERM, message, bs.node_name)


async def co_truncate(
    child: BdrvChild, offset: int, exact: bool, prealloc: str, flags: int
) -> None:
    """Makes a node `offset` bytes long, or (not exact) at least so long (bdrv_co_truncate)."""
    bs = child.bs
    _check(child, offset, prealloc)
    old_size = bs.getlength()
    new_bytes = max(0, offset - old_size)
    req = TrackedRequest(bs, offset - new_bytes, new_bytes, TRUNCATE)
    try:
        if new_bytes:
            await req.mark_serialising(1)
        await io.write_prepare(child, req, offset - new_bytes, new_bytes, 0)
        if new_bytes and bs.backing is not None and bs.backing.bs.getlength() > old_size:
            flags |= f.REQ_ZERO_WRITE
        await _driver_truncate(bs, offset, exact, prealloc, flags)
        bs.refresh_total_sectors(-(-offset // f.SECTOR_SIZE))
        end = bs.total_sectors * f.SECTOR_SIZE
        io.write_finish(req, max(0, end - new_bytes), min(new_bytes, end), True)
    finally:
        req.end()


async def _driver_truncate(
    bs: BlockDriverState, offset: int, exact: bool, prealloc: str, flags: int
) -> None:
    assert bs.drv is not None
    if "co_truncate" in bs.drv.hooks:
        if flags & ~bs.supported_truncate_flags:
            message = "Block driver does not support requested flags"
            raise BlockError(errno.ENOTSUP, message, bs.node_name)
        await bs.drv.co_truncate(bs, offset, exact, prealloc, flags)
    elif bs.drv.is_filter and bs.file is not None:
        await co_truncate(bs.file, offset, exact, prealloc, flags)
    else:
        message = "Image format driver does not support resize"
        raise BlockError(errno.ENOTSUP, message, bs.node_name)
