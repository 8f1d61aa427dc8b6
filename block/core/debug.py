# SPDX-License-Identifier: GPL-2.0-only
"""Debug events: what a layer tells the node that gets its next request (BLKDBG_EVENT).

    qcow2:  "l2_load"  ----->  blkdebug  ----->  file
            co_preadv  ----->  (now it knows what the read is for)

A `blkdebug` node acts on events: it makes requests fail, and it stops coroutines. An event names
what follows; nothing is handed over with it.

R1  An event is raised right before what it names: by a parent on the node below it, and by the
    core (`pwritev*`) on the node that writes.
R2  `bs.debugged` says that a node's driver listens. Without, an event costs that test; who is
    called for every request makes it before the call.
R3  On the short ways (try_preadv, the plain write in io.py) no events are raised. So a node that
    listens offers them to nobody, and a node above it answers no read on a short way
    (limits.py).
R4  An event may stop the coroutine for as long as somebody wants, with the locks it holds. A
    drain waits for it.
Events: in the node's context. Break points: any thread that may acquire it.

Source: block.c (bdrv_debug_event and its like), qapi/block-core.json (BlkdebugEvent).
"""

from __future__ import annotations

import errno

from block.core.error import BlockError
from block.core.filename import primary_child
from block.core.wait import poll_while

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.driver import BlockDriver
    from block.core.node import BlockDriverState

L1_UPDATE = "l1_update"
L1_GROW_ALLOC_TABLE = "l1_grow_alloc_table"
L1_GROW_WRITE_TABLE = "l1_grow_write_table"
L1_GROW_ACTIVATE_TABLE = "l1_grow_activate_table"
L2_LOAD = "l2_load"
L2_UPDATE = "l2_update"
L2_UPDATE_COMPRESSED = "l2_update_compressed"
L2_ALLOC_COW_READ = "l2_alloc_cow_read"
L2_ALLOC_WRITE = "l2_alloc_write"
READ_AIO = "read_aio"
READ_BACKING_AIO = "read_backing_aio"
READ_COMPRESSED = "read_compressed"
WRITE_AIO = "write_aio"
WRITE_COMPRESSED = "write_compressed"
VMSTATE_LOAD = "vmstate_load"
VMSTATE_SAVE = "vmstate_save"
COW_READ = "cow_read"
COW_WRITE = "cow_write"
REFTABLE_LOAD = "reftable_load"
REFTABLE_GROW = "reftable_grow"
REFTABLE_UPDATE = "reftable_update"
REFBLOCK_LOAD = "refblock_load"
REFBLOCK_UPDATE = "refblock_update"
REFBLOCK_UPDATE_PART = "refblock_update_part"
REFBLOCK_ALLOC = "refblock_alloc"
REFBLOCK_ALLOC_HOOKUP = "refblock_alloc_hookup"
REFBLOCK_ALLOC_WRITE = "refblock_alloc_write"
REFBLOCK_ALLOC_WRITE_BLOCKS = "refblock_alloc_write_blocks"
REFBLOCK_ALLOC_WRITE_TABLE = "refblock_alloc_write_table"
REFBLOCK_ALLOC_SWITCH_TABLE = "refblock_alloc_switch_table"
CLUSTER_ALLOC = "cluster_alloc"
CLUSTER_ALLOC_BYTES = "cluster_alloc_bytes"
CLUSTER_FREE = "cluster_free"
FLUSH_TO_OS = "flush_to_os"
FLUSH_TO_DISK = "flush_to_disk"
PWRITEV_RMW_HEAD = "pwritev_rmw_head"
PWRITEV_RMW_AFTER_HEAD = "pwritev_rmw_after_head"
PWRITEV_RMW_TAIL = "pwritev_rmw_tail"
PWRITEV_RMW_AFTER_TAIL = "pwritev_rmw_after_tail"
PWRITEV = "pwritev"
PWRITEV_ZERO = "pwritev_zero"
PWRITEV_DONE = "pwritev_done"
EMPTY_IMAGE_PREPARE = "empty_image_prepare"
L1_SHRINK_WRITE_TABLE = "l1_shrink_write_table"
L1_SHRINK_FREE_L2_CLUSTERS = "l1_shrink_free_l2_clusters"
COR_WRITE = "cor_write"
CLUSTER_ALLOC_SPACE = "cluster_alloc_space"
NONE = "none"

# fmt: off
EVENTS = (
    L1_UPDATE, L1_GROW_ALLOC_TABLE, L1_GROW_WRITE_TABLE, L1_GROW_ACTIVATE_TABLE, L2_LOAD,
    L2_UPDATE, L2_UPDATE_COMPRESSED, L2_ALLOC_COW_READ, L2_ALLOC_WRITE, READ_AIO,
    READ_BACKING_AIO, READ_COMPRESSED, WRITE_AIO, WRITE_COMPRESSED, VMSTATE_LOAD, VMSTATE_SAVE,
    COW_READ, COW_WRITE, REFTABLE_LOAD, REFTABLE_GROW, REFTABLE_UPDATE, REFBLOCK_LOAD,
    REFBLOCK_UPDATE, REFBLOCK_UPDATE_PART, REFBLOCK_ALLOC, REFBLOCK_ALLOC_HOOKUP,
    REFBLOCK_ALLOC_WRITE, REFBLOCK_ALLOC_WRITE_BLOCKS, REFBLOCK_ALLOC_WRITE_TABLE,
    REFBLOCK_ALLOC_SWITCH_TABLE, CLUSTER_ALLOC, CLUSTER_ALLOC_BYTES, CLUSTER_FREE, FLUSH_TO_OS,
    FLUSH_TO_DISK, PWRITEV_RMW_HEAD, PWRITEV_RMW_AFTER_HEAD, PWRITEV_RMW_TAIL,
    PWRITEV_RMW_AFTER_TAIL, PWRITEV, PWRITEV_ZERO, PWRITEV_DONE, EMPTY_IMAGE_PREPARE,
    L1_SHRINK_WRITE_TABLE, L1_SHRINK_FREE_L2_CLUSTERS, COR_WRITE, CLUSTER_ALLOC_SPACE, NONE,
)
# fmt: on
"""All events, as QAPI spells them and in its order (BlkdebugEvent)."""


async def debug_event(bs: BlockDriverState, event: str) -> None:
    """Tells a node what its next request is for (bdrv_debug_event); it may stop the caller (R4)."""
    if bs.debugged:
        assert bs.drv is not None
        await bs.drv.debug_event(bs, event)


def _debug_node(bs: BlockDriverState) -> tuple[BlockDriverState, BlockDriver]:
    """The first node from `bs` down that knows break points (bdrv_find_debug_node).

    Raises BlockError(ENOTSUP) where there is none.
    """
    node: BlockDriverState | None = bs
    while node is not None and node.drv is not None:
        if "debug_breakpoint" in node.drv.hooks:
            return node, node.drv
        node = primary_child(node)
    message = f"No node below '{bs.node_name}' knows break points: there is no blkdebug"
    raise BlockError(errno.ENOTSUP, message, bs.node_name)


def debug_breakpoint(bs: BlockDriverState, event: str, tag: str) -> None:
    """Lets the next coroutine that raises the event stop there (bdrv_debug_breakpoint).

    `tag` is a name for it. Raises BlockError: ENOTSUP without a node that knows break points,
    ENOENT where there is no such event.
    """
    node, drv = _debug_node(bs)
    with node.aio_context:
        drv.debug_breakpoint(node, event, tag)


def debug_remove_breakpoint(bs: BlockDriverState, tag: str) -> None:
    """Takes break points away, and lets go on whoever stands there (bdrv_debug_remove_breakpoint).

    Raises BlockError(ENOENT) where there is nothing of that name.
    """
    node, drv = _debug_node(bs)
    with node.aio_context:
        drv.debug_remove_breakpoint(node, tag)


def debug_resume(bs: BlockDriverState, tag: str) -> None:
    """Lets a stopped coroutine go on (bdrv_debug_resume): at once, if nobody else runs there.

    Raises BlockError(ENOENT) where none of that name is stopped.
    """
    node, drv = _debug_node(bs)
    with node.aio_context:
        drv.debug_resume(node, tag)


def debug_is_suspended(bs: BlockDriverState, tag: str) -> bool:
    """Says whether a coroutine stands at a break point of that name (bdrv_debug_is_suspended)."""
    node, drv = _debug_node(bs)
    with node.aio_context:
        return drv.debug_is_suspended(node, tag)


def debug_wait_break(bs: BlockDriverState, tag: str) -> None:
    """Runs the node's loop until a coroutine stands at a break point of that name (wait_break).

    In the main thread, and not inside a coroutine. Waits for ever where nobody comes by.
    """
    node, _ = _debug_node(bs)
    poll_while(node.aio_context, lambda: not debug_is_suspended(node, tag))
