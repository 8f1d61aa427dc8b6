# SPDX-License-Identifier: GPL-2.0-only
"""throttle: requests wait until the limits of a group allow them (block/throttle.c).

    -object throttle-group,id=slow,x-iops-total=100
    -blockdev driver=throttle,node-name=d,throttle-group=slow,file.driver=file,...

R1  Reads wait in one queue, all that changes the disk in another; a flush does not wait.
R2  The timers live in the node's context and move with it. A drained section lets all go that
    waits, so nothing is in flight when the node is detached.
R3  A read that could be answered at once still has to be admitted: try_preadv asks first, and
    counts what it did.
Who may call it: block.core. What is shared with other nodes is behind the group's lock
(block/objects/throttle_group.py).
"""

from __future__ import annotations

import errno

from block.aio.co_parallel import co_then
from block.core import io
from block.core.error import BlockError
from block.core.filter import AroundDriver, filtered
from block.core.options import Option, invalid, take_options
from block.objects.throttle_bucket import READ, WRITE
from block.objects.throttle_group import throttle_group_exists
from block.objects.throttle_member import ThrottleGroupMember

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable

    from block.aio.context import AioContext
    from block.core.iov import Iov
    from block.core.node import BlockDriverState

DIRECTION = {"read": READ, "write": WRITE, "zero": WRITE, "discard": WRITE}


class ThrottleDriver(AroundDriver):
    """The driver `throttle` (bdrv_throttle); the state of a node is its ThrottleGroupMember."""

    format_name = "throttle"
    runtime_opts = (Option("throttle-group", "string", "Name of the throttle group"),)
    strong_runtime_opts = ("throttle-group",)
    mutable_opts = ("throttle-group",)

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        super().open(bs, options, flags)
        name = self._take_group(options)
        bs.opaque = ThrottleGroupMember(bs)
        bs.opaque.register(name, bs.aio_context)

    def _take_group(self, options: dict[str, object]) -> str:
        """Returns the name of a group that there is (throttle_parse_options)."""
        name: str | None = take_options(options, self.runtime_opts)["throttle-group"]
        if name is None:
            raise invalid("Please specify a throttle group")
        if not throttle_group_exists(name):
            raise BlockError(errno.EINVAL, f"Throttle group '{name}' does not exist")
        return name

    def close(self, bs: BlockDriverState) -> None:
        bs.opaque.unregister()

    def reopen_prepare(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> str:
        """Looks whether the new group is there (throttle_reopen_prepare)."""
        return self._take_group(options)

    def reopen_commit(self, bs: BlockDriverState, prepared: object) -> None:
        """Changes to the other group; the node is drained (throttle_reopen_commit)."""
        member: ThrottleGroupMember = bs.opaque
        assert member.group is not None
        if prepared != member.group.name:
            member.unregister()
            member.register(str(prepared), bs.aio_context)

    # -- requests

    def try_preadv(self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> int | None:
        member: ThrottleGroupMember = bs.opaque
        if not member.may_pass(READ):
            return None
        ret = io.try_preadv(filtered(bs), offset, nbytes, qiov)
        if ret is not None:
            member.account(READ, nbytes)
        return ret

    def around(
        self,
        bs: BlockDriverState,
        kind: str,
        offset: int,
        nbytes: int,
        flags: int,
        request: Awaitable[None],
    ) -> Awaitable[None]:
        """A request that the group admits at once goes down without a level of its own (R1)."""
        member: ThrottleGroupMember = bs.opaque
        direction = DIRECTION.get(kind)
        if direction is None or member.passes(direction, nbytes):
            return request
        return co_then(member.co_wait(direction, nbytes), request)

    # -- drained sections and moves

    def drain_begin(self, bs: BlockDriverState) -> None:
        bs.opaque.disable_limits()

    def drain_end(self, bs: BlockDriverState) -> None:
        bs.opaque.enable_limits()

    def detach_aio_context(self, bs: BlockDriverState) -> None:
        bs.opaque.detach()

    def attach_aio_context(self, bs: BlockDriverState, ctx: AioContext) -> None:
        bs.opaque.attach(ctx)
