# SPDX-License-Identifier: GPL-2.0-only
"""Limits of a device's own: a BlockBackend as member of a throttle group (block-backend.c).

This is what `-drive throttling.iops-total=...` makes. A throttle node (block/filters/throttle.py)
limits whoever uses the node; this limits one device.

R1  A request is checked first; what is refused does not count. Reads and writes count (zeroes are
    writes), a flush and a discard do not.
R2  The timers follow the root: there are none without a tree, and they move with it.
R3  A backend without limits pays nothing: `blk.limits` is None, and the fast path calls
    `blk.try_read`, which is the tree's own function until limits put theirs there.
Who may call it: the main thread; the requests come from the home thread of the tree's context.
"""

from __future__ import annotations

from block.core.io import try_preadv
from block.objects.throttle_bucket import READ, WRITE
from block.objects.throttle_member import ThrottleGroupMember

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.context import AioContext
    from block.core.backend import BlockBackend
    from block.core.context import AioContextNotifier
    from block.core.edge import BdrvChild
    from block.core.iov import Iov
    from block.core.node import BlockDriverState
    from block.objects.throttle_bucket import ThrottleConfig

__all__ = ["BackendLimits", "io_limits_disable", "io_limits_enable", "set_io_limits"]
# The kinds of accounting.py that count; they are the directions of a group.
COUNTED = (READ, WRITE)


class BackendLimits:
    """One backend's part in a group."""

    def __init__(self, blk: BlockBackend) -> None:
        self.blk = blk
        self.member = ThrottleGroupMember(blk)
        self.notifier: AioContextNotifier | None = None

    async def co_wait(self, kind: int, nbytes: int) -> None:
        """Waits until a request of the accounting's `kind` may run (R1)."""
        if kind in COUNTED:
            await self.member.co_wait(kind, nbytes)

    def try_read(self, child: BdrvChild, offset: int, nbytes: int, qiov: Iov) -> int | None:
        """The fast path, where the group admits the read at once."""
        if not self.member.may_pass(READ):
            return None
        ret = try_preadv(child, offset, nbytes, qiov)
        if ret is not None:
            self.member.account(READ, nbytes)
        return ret

    def join(self, name: str, ctx: AioContext) -> None:
        """Becomes a member of a group, with a place for timers if there is a tree."""
        self.member.register(name, ctx)
        if self.blk.root is None:
            self.member.detach()

    def attach(self, bs: BlockDriverState) -> None:
        """The backend has a tree now (R2)."""
        self.member.attach(bs.aio_context)
        self.watch(bs)

    def watch(self, bs: BlockDriverState) -> None:
        """Asks to be told when the tree moves."""
        self.notifier = bs.add_aio_context_notifier(self.member.attach, self.member.detach)

    def unwatch(self, bs: BlockDriverState) -> None:
        """Takes that back."""
        assert self.notifier is not None
        bs.remove_aio_context_notifier(self.notifier)
        self.notifier = None

    def detach(self, bs: BlockDriverState) -> None:
        """The backend loses its tree; it has been drained (R2)."""
        self.unwatch(bs)
        self.member.detach()


def io_limits_enable(blk: BlockBackend, group: str) -> None:
    """Puts a backend into the group of that name, which is made if need be (blk_io_limits_enable).

    A backend that is a member already changes to the other group (blk_io_limits_update_group).
    """
    if blk.limits is not None:
        assert blk.limits.member.group is not None
        if blk.limits.member.group.name == group:
            return
        io_limits_disable(blk)
    limits = BackendLimits(blk)
    bs = blk.bs
    with blk.aio_context as ctx:
        limits.join(group, ctx)
        limits.member.io_limits_disabled = blk.quiesce_counter
        if bs is not None:
            limits.watch(bs)
        blk.limits, blk.try_read = limits, limits.try_read


def io_limits_disable(blk: BlockBackend) -> None:
    """Lets go what waits, and leaves the group (blk_io_limits_disable)."""
    limits, bs = blk.limits, blk.bs
    if limits is None:
        return
    if bs is not None:
        bs.drained_begin()
    with blk.aio_context:
        if bs is not None:
            limits.unwatch(bs)
        limits.member.unregister()
        blk.limits, blk.try_read = None, try_preadv
    if bs is not None:
        bs.drained_end()


def set_io_limits(blk: BlockBackend, config: ThrottleConfig) -> None:
    """Sets the limits of a backend's group, for all its members (blk_set_io_limits)."""
    assert blk.limits is not None, "io_limits_enable comes first"
    assert blk.limits.member.group is not None
    blk.limits.member.group.configure(config)
