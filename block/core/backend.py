# SPDX-License-Identifier: GPL-2.0-only
"""What a device holds of a tree: the BlockBackend (block/block-backend.c).

    device --aio_preadv(offset, iov, cb)--> BlockBackend --edge--> node --edge--> node ...

R1  A backend has at most one edge, `root`, and says through it what it does (`perm`) and
    what others may do (`shared_perm`).
R2  A backend that belongs to a device, or has a name, moves to another context only by its
    own set_aio_context: nobody else can move the device's handlers.
R3  The device hears of drained sections and of a new length through its BlockDevOps.
Who may call it: everything about the tree from the main thread. For requests see
backend_io.py, which is the other half of this class.
"""

from __future__ import annotations

import errno
import os

from block.core import context, edge, graph
from block.core import flags as f
from block.core.backend_io import BackendRequests
from block.core.error import BlockError
from block.core.options import is_identifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.aio.context import AioContext
    from block.aio.world import World
    from block.core.edge import BdrvChild
    from block.core.node import BlockDriverState


class BlockDevOps:
    """What a device wants to hear (QEMU's BlockDevOps); a device overrides what it needs."""

    def drained_begin(self) -> None:
        """Stop submitting; do not wait here."""

    def drained_poll(self) -> bool:
        """Say whether something of yours is still on its way."""
        return False

    def drained_end(self) -> None:
        """Submit again."""

    def resize(self) -> None:
        """The disk has another length."""


class ChildRoot(edge.ChildClass):
    """The parent is a BlockBackend (child_root)."""

    def parent_desc(self, child: BdrvChild) -> str:
        blk = _backend(child)
        return blk.name or blk.dev_id or "a block device"

    def get_name(self, child: BdrvChild) -> str | None:
        return _backend(child).name or None

    def drained_begin(self, child: BdrvChild) -> None:
        blk = _backend(child)
        blk.quiesce_counter += 1
        if blk.quiesce_counter == 1 and blk.dev_ops is not None:
            blk.dev_ops.drained_begin()
        if blk.limits is not None:
            blk.limits.member.disable_limits()

    def drained_poll(self, child: BdrvChild) -> bool:
        blk = _backend(child)
        if blk.in_flight:
            return True
        return blk.dev_ops is not None and blk.dev_ops.drained_poll()

    def drained_end(self, child: BdrvChild) -> None:
        blk = _backend(child)
        assert blk.quiesce_counter > 0, "more ends than begins"
        blk.quiesce_counter -= 1
        if blk.limits is not None:
            blk.limits.member.enable_limits()
        if blk.quiesce_counter == 0:
            if blk.dev_ops is not None:
                blk.dev_ops.drained_end()
            blk.resume()

    def attach(self, child: BdrvChild) -> None:
        blk = _backend(child)
        if blk.limits is not None:
            blk.limits.attach(child.bs)

    def detach(self, child: BdrvChild) -> None:
        blk = _backend(child)
        if blk.limits is not None:
            blk.limits.detach(child.bs)

    def resize(self, child: BdrvChild) -> None:
        blk = _backend(child)
        if blk.dev_ops is not None:
            blk.dev_ops.resize()

    def check_aio_context(self, child: BdrvChild, ctx: AioContext) -> None:
        blk = _backend(child)
        if not blk.allow_aio_context_change and (blk.name or blk.dev_ops is not None):
            raise context.refuse_to_follow(blk.name)


def _backend(child: BdrvChild) -> BlockBackend:
    blk = child.user
    assert isinstance(blk, BlockBackend)
    return blk


child_root = ChildRoot()


class BlockBackend(BackendRequests):
    """A disk as a device sees it (blk_new); offsets and lengths in bytes."""

    def __init__(
        self,
        perm: int = f.BLK_PERM_CONSISTENT_READ,
        shared_perm: int = f.BLK_PERM_ALL,
        world: World | None = None,
    ) -> None:
        super().__init__(world)
        self.dev_id = ""
        self.refcnt = 1
        self.perm = perm
        self.shared_perm = shared_perm
        self.dev_ops: BlockDevOps | None = None
        self.allow_aio_context_change = False
        self.on_read_error = "report"
        self.on_write_error = "enospc"
        self.io_status = "ok"
        self.vm_stop: Callable[[], None] | None = None
        graph.backends[self] = None

    def __repr__(self) -> str:
        return f"<BlockBackend {self.name or self.dev_id or 'anonymous'}>"

    # -- life and tree; main thread

    def set_name(self, name: str) -> None:
        """Gives it the id that a person uses (monitor_add_blk)."""
        if not is_identifier(name):
            raise BlockError(errno.EINVAL, "Invalid device name")
        if graph.find_backend(name) is not None:
            raise BlockError(errno.EINVAL, f"Device with id '{name}' already exists")
        if graph.find_node(name) is not None:
            message = f"Device name '{name}' conflicts with an existing node name"
            raise BlockError(errno.EINVAL, message)
        self.name = name

    def insert_bs(self, bs: BlockDriverState) -> None:
        """Puts a tree in; takes a reference of its own (blk_insert_bs)."""
        assert self.root is None, "R1: there is a tree already"
        self.root = edge.root_attach_child(
            bs.ref(),
            "root",
            child_root,
            f.BDRV_CHILD_FILTERED | f.BDRV_CHILD_PRIMARY,
            None,
            self.perm,
            self.shared_perm,
            self,
        )

    def remove_bs(self) -> None:
        """Takes the tree out, after what is in flight (blk_remove_bs)."""
        if self.root is None:
            return
        root, bs = self.root, self.root.bs
        bs.ref()
        try:
            # Held all the time: nobody submits between the drain and the end.
            with bs.aio_context:
                self.drain()
                # Before the edge goes: that may resume requests, which must not look for a tree.
                self.root = None
                edge.root_unref_child(root)
            # Who was told to go on in the tree's loop looks for it in the main loop now.
            self.resume()
        finally:
            bs.unref()

    def ref(self) -> BlockBackend:
        """Takes a reference (blk_ref)."""
        assert self.refcnt > 0, "a closed backend"
        self.refcnt += 1
        return self

    def unref(self) -> None:
        """Drops a reference; the last one closes (blk_unref)."""
        assert self.refcnt > 0, "a closed backend"
        self.refcnt -= 1
        if self.refcnt == 0:
            self.remove_bs()
            if self._parked:
                self.drain()
            if self.limits is not None:
                self.limits.member.unregister()
            graph.backends.pop(self, None)

    def close(self) -> None:
        """Flushes, and drops the caller's reference. Raises what the flush raises; with the last
        reference, also what saving dirty bitmaps does."""
        if self.refcnt == 0:
            return
        try:
            if self.root is not None:
                self.flush()
                if self.root.bs.dirty_bitmaps and self.refcnt == self.root.bs.refcnt == 1:
                    from block.core import dirty_bitmap

                    dirty_bitmap.store(self.root.bs)
        finally:
            self.unref()

    def __enter__(self) -> BlockBackend:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        """Closes. Where the block has failed already, that is what its user hears of."""
        try:
            self.close()
        except OSError:
            if kind is None:
                raise

    @property
    def bs(self) -> BlockDriverState | None:
        """The node at the top of the tree (blk_bs)."""
        return self.root.bs if self.root is not None else None

    def set_perm(self, perm: int, shared_perm: int) -> None:
        """Changes what the device does and shares, or raises (blk_set_perm)."""
        if self.root is not None:
            self.root.try_set_perm(perm, shared_perm)
        self.perm = perm
        self.shared_perm = shared_perm

    def set_dev_ops(self, ops: BlockDevOps | None) -> None:
        """Sets whom to tell of drains and resizes (blk_set_dev_ops)."""
        self.dev_ops = ops
        if ops is not None and self.quiesce_counter:
            ops.drained_begin()

    def set_aio_context(self, ctx: AioContext) -> None:
        """Moves the tree; raises where another user of it cannot follow (blk_set_aio_context)."""
        if self.root is not None:
            context.set_aio_context(self.root.bs, ctx, self.root)

    # -- what the disk is

    @property
    def length(self) -> int:
        """The length in bytes (blk_getlength)."""
        return self._bs().getlength()

    @property
    def read_only(self) -> bool:
        """Whether the disk cannot be written (blk_is_read_only)."""
        return self.root is not None and self.root.bs.read_only

    def get_request_alignment(self) -> int:
        """What offsets and lengths are best multiples of (blk_get_request_alignment)."""
        return self.root.bs.bl.request_alignment if self.root is not None else f.SECTOR_SIZE

    @property
    def max_transfer(self) -> int:
        """The longest request that goes through in one piece (blk_get_max_transfer)."""
        limit = self.root.bs.bl.max_transfer if self.root is not None else 0
        return min(limit or f.INT_MAX, f.REQUEST_MAX_BYTES)

    @property
    def max_iov(self) -> int:
        """The most views of a request that goes through in one piece (blk_get_max_iov)."""
        return self.root.bs.bl.max_iov if self.root is not None else f.IOV_MAX

    # -- errors

    def get_error_action(self, is_read: bool, error: int) -> str:
        """Says what to do about an errno: report, ignore or stop (blk_get_error_action)."""
        policy = self.on_read_error if is_read else self.on_write_error
        if policy == "auto":
            policy = "report" if is_read else "enospc"
        if policy == "enospc":
            return "stop" if error == errno.ENOSPC else "report"
        return policy

    def error_action(self, action: str, is_read: bool, error: int) -> None:
        """Does it, as far as it is not the device's part (blk_error_action)."""
        from block.core import event

        assert error >= 0, "a positive errno"
        if event.subscribers:
            event.emit("BLOCK_IO_ERROR", self._io_error(action, is_read, error))
        if action == "stop":
            if self.io_status == "ok":
                self.io_status = "nospace" if error == errno.ENOSPC else "failed"
            if self.vm_stop is not None:
                self.vm_stop()

    def _io_error(self, action: str, is_read: bool, error: int) -> dict[str, object]:
        """The data of the event (send_qmp_error_event)."""
        stops = self.on_write_error in ("auto", "enospc", "stop") or self.on_read_error == "stop"
        node = {} if self.root is None else {"node-name": self.root.bs.node_name}
        return {
            "device": self.name,
            **node,
            "operation": "read" if is_read else "write",
            "action": action,
            "nospace": stops and error == errno.ENOSPC,
            "reason": os.strerror(error),
        }

    def iostatus_reset(self) -> None:
        """The person has seen to it (blk_iostatus_reset)."""
        self.io_status = "ok"
