# SPDX-License-Identifier: GPL-2.0-only
"""As it was before dc868fb03b: the timers move first, and then the tree is drained.

A limited device took its timers to the other loop by itself; no notifier of the node did it. What
waited for a timer was forgotten by `detach`, but the group still believed that it has the turn.
The drained section of the move that follows lets the waiting requests run, and so hides how
they were treated. Nobody takes the turn back.
"""

from __future__ import annotations

from block.aio.context import AioContext
from block.core import context
from block.core.backend import BlockBackend
from block.core.backend_limits import BackendLimits
from block.core.node import BlockDriverState
from block.objects.throttle_group import DIRECTIONS, ThrottleGroup
from block.objects.throttle_member import ThrottleGroupMember


def set_aio_context(self: BlockBackend, ctx: AioContext) -> None:
    if self.root is not None:
        with self.aio_context:  # the device held it, for all of the move
            if self.limits is not None:
                self.limits.member.detach()
                with ctx:
                    self.limits.member.attach(ctx)
            context.set_aio_context(self.root.bs, ctx, self.root)


def watch(self: BackendLimits, bs: BlockDriverState) -> None:
    """Nobody asked to be told when the tree moves."""


def unwatch(self: BackendLimits, bs: BlockDriverState) -> None:
    """So there is nothing to take back."""


def detach(self: ThrottleGroupMember) -> None:
    group = self.group
    assert group is not None
    assert self.kick is not None
    with group.lock:
        for direction in DIRECTIONS:
            if group.armed[direction] is self:
                group.armed[direction] = None
                group.schedule_next(self, direction)
        self.ctx = None
        self.kick.delete()
    for timer in self.timers:
        timer.delete()
    self.timers, self.kick = (), None


def restart(self: ThrottleGroupMember) -> None:
    if self.group is None or self.ctx is None:
        return
    for direction in DIRECTIONS:
        self._restart(direction)


def _watch(self: ThrottleGroupMember, group: ThrottleGroup, direction: int) -> None:
    """Whoever waited relied on the one timer of the group."""


FORMS = {
    "block.core.backend:BlockBackend.set_aio_context": set_aio_context,
    "block.core.backend_limits:BackendLimits.watch": watch,
    "block.core.backend_limits:BackendLimits.unwatch": unwatch,
    "block.objects.throttle_member:ThrottleGroupMember.detach": detach,
    "block.objects.throttle_member:ThrottleGroupMember.restart": restart,
    "block.objects.throttle_member:ThrottleGroupMember._watch": _watch,
}
