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

from block.core import flags as f
from block.core import io, zero
from block.core.driver import BlockDriver
from block.core.error import BlockError
from block.core.open import open_child
from block.core.options import Option, invalid, take_options
from block.objects.throttle_bucket import READ, WRITE
from block.objects.throttle_group import throttle_group_exists
from block.objects.throttle_member import ThrottleGroupMember

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable

    from block.aio.context import AioContext
    from block.core.edge import BdrvChild
    from block.core.iov import Iov
    from block.core.node import BlockDriverState


def _file(bs: BlockDriverState) -> BdrvChild:
    assert bs.file is not None
    return bs.file


class ThrottleDriver(BlockDriver):
    """The driver `throttle` (bdrv_throttle); the state of a node is its ThrottleGroupMember."""

    format_name = "throttle"
    is_filter = True
    runtime_opts = (Option("throttle-group", "string", "Name of the throttle group"),)
    strong_runtime_opts = ("throttle-group",)
    mutable_opts = ("throttle-group",)

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        role = f.BDRV_CHILD_FILTERED | f.BDRV_CHILD_PRIMARY
        bs.file = open_child(None, options, "file", bs, role)
        below = _file(bs).bs
        bs.supported_write_flags = below.supported_write_flags | f.REQ_WRITE_UNCHANGED
        bs.supported_zero_flags = below.supported_zero_flags | f.REQ_WRITE_UNCHANGED
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

    def refresh_limits(self, bs: BlockDriverState) -> None:
        bs.bl.fast_read = _file(bs).bs.bl.fast_read

    def getlength(self, bs: BlockDriverState) -> int:
        return _file(bs).bs.getlength()

    def child_resized(self, bs: BlockDriverState, child: BdrvChild) -> None:
        bs.refresh_total_sectors()
        bs.parents_resized()

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
        ret = io.try_preadv(_file(bs), offset, nbytes, qiov)
        if ret is not None:
            member.account(READ, nbytes)
        return ret

    def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        request = io.co_preadv(_file(bs), offset, nbytes, qiov, flags)
        return _after_its_turn(bs, READ, nbytes, request)

    def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        request = io.co_pwritev(_file(bs), offset, nbytes, qiov, flags)
        return _after_its_turn(bs, WRITE, nbytes, request)

    def co_pwrite_zeroes(
        self, bs: BlockDriverState, offset: int, nbytes: int, flags: int
    ) -> Awaitable[None]:
        request = zero.co_pwrite_zeroes(_file(bs), offset, nbytes, flags)
        return _after_its_turn(bs, WRITE, nbytes, request)

    def co_pdiscard(self, bs: BlockDriverState, offset: int, nbytes: int) -> Awaitable[None]:
        return _after_its_turn(bs, WRITE, nbytes, _file(bs).co_pdiscard(offset, nbytes))

    # -- drained sections and moves

    def drain_begin(self, bs: BlockDriverState) -> None:
        bs.opaque.disable_limits()

    def drain_end(self, bs: BlockDriverState) -> None:
        bs.opaque.enable_limits()

    def detach_aio_context(self, bs: BlockDriverState) -> None:
        bs.opaque.detach()

    def attach_aio_context(self, bs: BlockDriverState, ctx: AioContext) -> None:
        bs.opaque.attach(ctx)


def _after_its_turn(
    bs: BlockDriverState, direction: int, nbytes: int, request: Awaitable[None]
) -> Awaitable[None]:
    """A request that the group admits at once goes down without a level of its own."""
    member: ThrottleGroupMember = bs.opaque
    if member.passes(direction, nbytes):
        return request
    return _wait_and_do(member, direction, nbytes, request)


async def _wait_and_do(
    member: ThrottleGroupMember, direction: int, nbytes: int, request: Awaitable[None]
) -> None:
    await member.co_wait(direction, nbytes)
    await request
