# SPDX-License-Identifier: GPL-2.0-only
"""A node of the tree: one image, or one filter (QEMU's BlockDriverState).

R1  A node has a driver (`drv`), the driver's state (`opaque`), edges to its children and
    from its parents, and one context, in which everything about it happens.
R2  Nodes are counted: whoever keeps one holds a reference; with the last `unref` the node
    is flushed, closed and gone.
R3  Requests come through an edge (BdrvChild), never straight to a node.
R4  in_flight, tracked_requests, write_gen, the quiesce counters and dirty bitmaps belong to
    the thread at home in `aio_context`.
Who may call it: opening, closing and moving in the main thread; the rest at home.
"""

from __future__ import annotations

import errno

from block.aio.errors import UsedAfterFree
from block.aio.world import the_world
from block.core import context, debug, drain, edge, flush, graph, limits, status, wait
from block.core import flags as f
from block.core.error import BlockError, no_medium
from block.core.limits import BlockLimits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from block.aio.co_lock import CoQueue
    from block.aio.context import AioContext
    from block.aio.world import World
    from block.core.dirty_bitmap import BdrvDirtyBitmap
    from block.core.driver import BlockDriver, BlockDriverInfo
    from block.core.edge import BdrvChild
    from block.core.serialise import TrackedRequest


class BlockDriverState:
    """One node; new ones have one reference, no driver, and live in the main loop (bdrv_new)."""

    __slots__ = (
        "__weakref__", "aio_context", "aio_notifiers", "auto_backing_file", "backing",
        "backing_file", "backing_format", "before_write_notifiers", "bl", "children",
        "copy_on_read", "debugged", "detached", "detached_parents", "detect_zeroes",
        "dirty_bitmaps", "drv", "encrypted", "exact_filename", "explicit_options", "file",
        "filename", "flush_queue", "flushed_gen", "flushing", "force_share", "full_open_options",
        "in_flight", "inherits_from", "node_name", "opaque", "open_flags", "options", "parents",
        "probed", "quiesce_counter", "read_only", "recursive_quiesce_counter", "refcnt",
        "serialising_in_flight", "supported_read_flags", "supported_truncate_flags",
        "supported_write_flags", "supported_zero_flags", "together_counter", "total_sectors",
        "tracked_requests", "wr_highest_offset", "write_gen",
    )  # fmt: skip

    def __init__(self, world: World | None = None) -> None:
        self.refcnt = 1
        self.node_name = ""
        self.aio_context: AioContext = (world or the_world()).main_context
        self.aio_notifiers: list[context.AioContextNotifier] = []
        self.detached = False
        self.detached_parents = 0
        self._init_image()
        self._init_tree()
        self._init_requests()
        graph.all_states[self] = None
        drain.join_drain_all(self)

    def _init_image(self) -> None:
        self.drv: BlockDriver | None = None
        self.opaque: Any = None
        self.options: dict[str, Any] = {}
        self.explicit_options: dict[str, Any] = {}
        self.full_open_options: dict[str, Any] | None = None
        self.open_flags = 0
        self.read_only = False
        self.force_share = False
        self.probed = False
        self.debugged = False  # the driver listens to debug events
        self.encrypted = False  # in the file, its data are
        self.detect_zeroes = "off"
        self.filename = ""
        self.exact_filename = ""
        self.backing_file = ""
        self.backing_format = ""
        self.auto_backing_file = ""
        self.total_sectors = 0
        self.bl = BlockLimits()
        self.copy_on_read = 0
        self.supported_read_flags = 0
        self.supported_write_flags = 0
        self.supported_zero_flags = 0
        self.supported_truncate_flags = 0

    def _init_tree(self) -> None:
        self.children: list[BdrvChild] = []
        self.parents: list[BdrvChild] = []
        self.file: BdrvChild | None = None
        self.backing: BdrvChild | None = None
        self.inherits_from: BlockDriverState | None = None

    def _init_requests(self) -> None:
        self.in_flight = 0
        self.quiesce_counter = 0
        self.recursive_quiesce_counter = 0
        self.together_counter = 0
        self.tracked_requests: dict[TrackedRequest, None] = {}
        self.serialising_in_flight = 0
        self.before_write_notifiers: list[Callable[[TrackedRequest], Awaitable[None]]] = []
        self.dirty_bitmaps: list[BdrvDirtyBitmap] = []
        self.write_gen = 0
        self.flushed_gen = 0
        self.flushing = False
        self.flush_queue: CoQueue | None = None
        self.wr_highest_offset = 0

    def __repr__(self) -> str:
        return f"<BlockDriverState {self.node_name or self.filename or '(closed)'}>"

    # -- life

    def ref(self) -> BlockDriverState:
        """Takes a reference (bdrv_ref)."""
        if self.refcnt <= 0:
            raise UsedAfterFree(f"{self!r} is closed")
        self.refcnt += 1
        return self

    def unref(self) -> None:
        """Drops a reference; the last one closes the node (bdrv_unref)."""
        if self.refcnt <= 0:
            raise UsedAfterFree(f"{self!r} is closed")
        self.refcnt -= 1
        if self.refcnt == 0:
            self._delete()

    def _delete(self) -> None:
        assert not self.parents, "R2: the last reference, but an edge still points here"
        with self.aio_context:
            try:
                self.close()
            finally:
                drain.leave_all(self)
                graph.forget_node(self)

    def close(self) -> None:
        """Flushes and closes the image, and lets the children go (bdrv_close).

        A failure of the flush has nobody to go to; who cares, flushes before.
        """
        drain.drained_begin(self)
        try:
            self._flush_quietly()
            if self.drv is not None:
                self.drv.close(self)
        finally:
            self.drv = None
            for child in list(self.children):
                edge.unref_child(self, child)
            drain.drained_end(self)
        for bitmap in list(self.dirty_bitmaps):
            assert bitmap.name is not None, "whoever made an anonymous bitmap releases it"
            bitmap.release()
        self._init_image()
        self.aio_notifiers.clear()
        self.before_write_notifiers.clear()

    def _flush_quietly(self) -> None:
        try:
            self.flush()
        except OSError:
            return

    # -- what the image is

    @property
    def inserted(self) -> bool:
        """Whether there is an image (bdrv_is_inserted)."""
        return self.drv is not None

    def getlength(self) -> int:
        """Returns the length in bytes, a whole number of sectors (bdrv_getlength)."""
        if self.drv is None:
            raise no_medium(self.node_name)
        if self.drv.has_variable_length:
            self.refresh_total_sectors()
        return self.total_sectors * f.SECTOR_SIZE

    def refresh_total_sectors(self, hint: int | None = None) -> None:
        """Asks the driver for the length; rounds up to sectors (refresh_total_sectors)."""
        assert self.drv is not None
        if "getlength" in self.drv.hooks:
            hint = -(-self.drv.getlength(self) // f.SECTOR_SIZE)
        if hint is not None:
            self.total_sectors = hint
        if self.total_sectors * f.SECTOR_SIZE > f.MAX_LENGTH:
            raise BlockError(errno.EFBIG, "Image is too long", self.node_name)

    def length_changed(self) -> None:
        """Asks for the length anew, since a child's is another; parents hear of a new one."""
        before = self.total_sectors
        self.refresh_total_sectors()
        if self.total_sectors != before:
            self.parents_resized()

    def refresh_limits(self) -> None:
        """Computes the limits anew (bdrv_refresh_limits)."""
        limits.refresh_limits(self)

    def get_info(self) -> BlockDriverInfo | None:
        """Tells cluster size and state, through filters (bdrv_get_info)."""
        if self.drv is None:
            return None
        if "get_info" not in self.drv.hooks and self.drv.is_filter and self.file is not None:
            return self.file.bs.get_info()
        return self.drv.get_info(self)

    def child(self, name: str) -> BdrvChild | None:
        """Finds an edge by its name."""
        for child in self.children:
            if child.name == name:
                return child
        return None

    def parents_resized(self) -> None:
        """Tells the parents that the length has changed (bdrv_parent_cb_resize)."""
        for parent in list(self.parents):
            parent.klass.resize(parent)

    # -- requests that need no permission

    def co_flush(self) -> Awaitable[None]:
        """Makes everything written durable (bdrv_co_flush)."""
        return flush.co_flush(self)

    def flush(self) -> None:
        """As co_flush, and waits."""
        wait.run_sync(self.aio_context, lambda: flush.co_flush(self))

    def co_block_status(
        self, offset: int, nbytes: int, base: BlockDriverState | None = None
    ) -> Awaitable[status.Status]:
        """Asks where bytes are, down to but without `base` (bdrv_block_status_above)."""
        return status.co_block_status_above(self, base, True, offset, nbytes)

    def block_status(
        self, offset: int, nbytes: int, base: BlockDriverState | None = None
    ) -> status.Status:
        """As co_block_status, and waits."""
        return wait.run_sync(
            self.aio_context,
            lambda: status.co_block_status_above(self, base, True, offset, nbytes),
        )

    def is_allocated(self, offset: int, nbytes: int) -> tuple[bool, int]:
        """Says whether this layer holds the bytes, and for how many that is so."""
        return wait.run_sync(self.aio_context, lambda: status.co_is_allocated(self, offset, nbytes))

    # -- break points, of a blkdebug node from here down

    def debug_breakpoint(self, event: str, tag: str) -> None:
        """Stops the next coroutine that raises the event (bdrv_debug_breakpoint)."""
        debug.debug_breakpoint(self, event, tag)

    def debug_remove_breakpoint(self, tag: str) -> None:
        """Takes that back, and resumes (bdrv_debug_remove_breakpoint)."""
        debug.debug_remove_breakpoint(self, tag)

    def debug_resume(self, tag: str) -> None:
        """Lets a stopped coroutine go on (bdrv_debug_resume)."""
        debug.debug_resume(self, tag)

    def debug_is_suspended(self, tag: str) -> bool:
        """Says whether one is stopped there (bdrv_debug_is_suspended)."""
        return debug.debug_is_suspended(self, tag)

    def debug_wait_break(self, tag: str) -> None:
        """Waits until one is (qemu-io's wait_break)."""
        debug.debug_wait_break(self, tag)

    # -- the event loop

    def drained_begin(self) -> None:
        """Begins a section without requests (bdrv_drained_begin)."""
        drain.drained_begin(self)

    def drained_end(self) -> None:
        """Ends it (bdrv_drained_end)."""
        drain.drained_end(self)

    def subtree_drained_begin(self) -> None:
        """Begins one for all below, too (bdrv_subtree_drained_begin)."""
        drain.subtree_drained_begin(self)

    def subtree_drained_end(self) -> None:
        """Ends it (bdrv_subtree_drained_end)."""
        drain.subtree_drained_end(self)

    def drain(self) -> None:
        """Waits until nothing is in flight (bdrv_drain)."""
        drain.drain(self)

    def set_aio_context(self, ctx: AioContext) -> None:
        """Moves the tree to another loop (bdrv_set_aio_context); main thread only."""
        context.set_aio_context(self, ctx)

    def detach_aio_context(self) -> None:
        """Leaves the present loop (bdrv_detach_aio_context); for drivers' own children."""
        context.detach_aio_context(self)

    def attach_aio_context(self, ctx: AioContext) -> None:
        """Comes into a loop (bdrv_attach_aio_context); for drivers' own children."""
        context.attach_aio_context(self, ctx)

    def add_aio_context_notifier(
        self, attached: Callable[[AioContext], None], detach: Callable[[], None]
    ) -> context.AioContextNotifier:
        """Calls back around moves (bdrv_add_aio_context_notifier)."""
        return context.add_aio_context_notifier(self, attached, detach)

    def remove_aio_context_notifier(self, notifier: context.AioContextNotifier) -> None:
        """Takes that back (bdrv_remove_aio_context_notifier)."""
        context.remove_aio_context_notifier(self, notifier)
