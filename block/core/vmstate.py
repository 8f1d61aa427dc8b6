# SPDX-License-Identifier: GPL-2.0-only
"""A machine's state, kept beside a disk within its image (bdrv_co_readv_vmstate).

R1  Offsets count from the beginning of the state; where that is, the format knows. No request of
    a guest reaches it.
R2  A node that cannot keep one hands the request on to its primary child.
R3  With a writethrough cache, what was saved is flushed.
Who may call it: coroutines in the node's context; `load` and `save` where one may wait.
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core.error import BlockError, no_medium
from block.core.iov import iov_size
from block.core.wait import run_sync

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.backend import BlockBackend
    from block.core.iov import Iov
    from block.core.node import BlockDriverState


def _keeper(bs: BlockDriverState, hook: str) -> BlockDriverState:
    """The node, from here down, that keeps the state (R2)."""
    node = bs
    while True:
        if node.drv is None:
            raise no_medium(node.node_name)
        if hook in node.drv.hooks:
            return node
        below = [child.bs for child in node.children if child.role & f.BDRV_CHILD_PRIMARY]
        if not below:
            message = f"Driver '{node.drv.format_name}' does not support VM state"
            raise BlockError(errno.ENOTSUP, message, node.node_name)
        (node,) = below


async def co_load(bs: BlockDriverState, offset: int, qiov: Iov) -> None:
    """Reads a part of the state into a vector."""
    node = _keeper(bs, "co_load_vmstate")
    assert node.drv is not None
    node.in_flight += 1
    try:
        await node.drv.co_load_vmstate(node, offset, iov_size(qiov), qiov)
    finally:
        node.in_flight -= 1


async def co_save(bs: BlockDriverState, offset: int, qiov: Iov) -> None:
    """Writes a part of the state from a vector."""
    node = _keeper(bs, "co_save_vmstate")
    if node.read_only:
        raise BlockError(errno.EPERM, "Image is read-only", node.node_name)
    assert node.drv is not None
    node.in_flight += 1
    try:
        await node.drv.co_save_vmstate(node, offset, iov_size(qiov), qiov)
    finally:
        node.in_flight -= 1


def _medium(blk: BlockBackend) -> BlockDriverState:
    if blk.bs is None:
        raise no_medium(blk.name)
    return blk.bs


def load(blk: BlockBackend, offset: int, qiov: Iov) -> None:
    """Reads a part of the state, and waits (blk_load_vmstate)."""
    bs = _medium(blk)
    run_sync(bs.aio_context, lambda: co_load(bs, offset, qiov))


def save(blk: BlockBackend, offset: int, qiov: Iov) -> None:
    """Writes a part of the state, and waits (blk_save_vmstate, R3)."""
    bs = _medium(blk)
    run_sync(bs.aio_context, lambda: co_save(bs, offset, qiov))
    if not blk.enable_write_cache:
        blk.flush()
