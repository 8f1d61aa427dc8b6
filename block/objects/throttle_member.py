# SPDX-License-Identifier: GPL-2.0-only
"""One disk's part in a throttle group: its queues and timers (block/throttle-groups.c).

The rules are those of throttle_group.py. In short: a request asks the group, under its lock,
whether it may run. If not, it waits in the member's queue for its direction until the group
gives the member a turn, which is a timer in the member's own context. A request that has run
gives the next turn.

Who may call it: the home thread of the member's context; register and unregister from the main
thread.

What once went wrong: a member was detached with requests in flight (dc868fb03b, 2017), and the
guest's disk stood still after `stop` and `cont`; hence the assertions in `detach`.
"""

from __future__ import annotations

from block.aio.co_lock import CoQueue
from block.lean import partial
from block.objects.throttle_group import (
    DIRECTIONS,
    NEIGHBOUR_LATE_NS,
    ThrottleGroup,
    throttle_group_incref,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.bh import BH
    from block.aio.context import AioContext
    from block.aio.timer import Timer


class ThrottleGroupMember:
    """One disk in a group (ThrottleGroupMember): a throttle node's, or a BlockBackend's.

    `owner` is what the context calls the owner of its timers.
    """

    def __init__(self, owner: object) -> None:
        self.owner = owner
        self.group: ThrottleGroup | None = None
        self.ctx: AioContext | None = None
        self.timers: tuple[Timer, ...] = ()
        self.kick: BH | None = None
        self.queues = (CoQueue(), CoQueue())
        self.pending = [0, 0]
        self.io_limits_disabled = 0

    # -- requests

    def may_pass(self, direction: int) -> bool:
        """Whether a request could run now. It counts only with `account`, and must not wait
        between the two: for a fast path that does not know yet whether it will be taken."""
        group = self.group
        assert group is not None
        with group.lock:
            if self.io_limits_disabled:
                return not self.pending[direction]
            if group.waiting[direction] or group.armed[direction] is not None:
                return False
            return not group.state.compute_wait(direction, group.now())

    def account(self, direction: int, nbytes: int) -> None:
        """Counts a request that ran because `may_pass` said so."""
        group = self.group
        assert group is not None
        with group.lock:
            group.state.account(direction, nbytes)

    def passes(self, direction: int, nbytes: int) -> bool:
        """Counts a request that can run at once; False: it has to wait, by `co_wait`."""
        group = self.group
        assert group is not None
        with group.lock:
            return self._try(group, direction, nbytes)

    def _try(self, group: ThrottleGroup, direction: int, nbytes: int) -> bool:
        if not group.admits(self, direction):
            return False
        group.state.account(direction, nbytes)
        group.schedule_next(self, direction)
        return True

    async def co_wait(self, direction: int, nbytes: int) -> None:
        """Waits until a request may run, and counts it (throttle_group_co_io_limits_intercept)."""
        group = self.group
        assert group is not None
        with group.lock:
            if self._try(group, direction, nbytes):
                return
            self._count(group, direction, 1)
            self._watch(group, direction)
        await self.queues[direction].wait()
        with group.lock:
            self._count(group, direction, -1)
            group.state.account(direction, nbytes)
            group.schedule_next(self, direction)
            self._watch(group, direction)

    def _count(self, group: ThrottleGroup, direction: int, step: int) -> None:
        self.pending[direction] += step
        group.waiting[direction] += step

    def _watch(self, group: ThrottleGroup, direction: int) -> None:
        """Sees to it that a member whose requests wait has a timer, even out of its turn (R5)."""
        timer = self.timers[direction]
        if self.pending[direction] and not timer.pending:
            timer.mod(max(group.due_ns[direction], group.now()) + NEIGHBOUR_LATE_NS)

    def _timer(self, direction: int) -> None:
        """The turn has come, or a neighbour's is overdue (timer_cb, R5)."""
        group = self.group
        assert group is not None
        with group.lock:
            if group.armed[direction] is not self:
                self._take_over(group, direction)
            if group.armed[direction] is not self or group.now() < group.due_ns[direction]:
                self._watch(group, direction)
                return
            group.armed[direction] = None
        self._restart(direction)

    def _take_over(self, group: ThrottleGroup, direction: int) -> None:
        """Takes the turn of a neighbour that is overdue (R5)."""
        overdue = group.now() >= group.due_ns[direction] + NEIGHBOUR_LATE_NS
        if overdue and self.pending[direction]:
            group.armed[direction] = None
            if not group.must_wait(self, direction):
                group.arm(self, direction, group.now())

    def _kicked(self) -> None:
        """Somebody in another loop gave this member a turn: arms the timer (R2)."""
        group = self.group
        assert group is not None
        with group.lock:
            for direction in DIRECTIONS:
                if group.armed[direction] is self:
                    self.timers[direction].mod(group.due_ns[direction])

    def _restart(self, direction: int) -> None:
        """Lets the first request that waits here run; if there is none, it is another member's
        turn (throttle_group_restart_queue_entry)."""
        if not self.queues[direction].next():
            group = self.group
            assert group is not None
            with group.lock:
                group.schedule_next(self, direction)

    def restart(self) -> None:
        """Lets what waits here go on now and not when the timer says (throttle_group_restart_tgm).

        Each request that runs wakes the next where no limits are in force, else arms the timer.
        """
        group = self.group
        if group is None or self.ctx is None:
            return
        for direction in DIRECTIONS:
            with group.lock:
                self.timers[direction].cancel()
                if group.armed[direction] is self:
                    group.armed[direction] = None
            self._restart(direction)

    # -- drained sections

    def disable_limits(self) -> None:
        """Begins a section without limits; what waits runs at once (R3)."""
        self._change_disabled(1)
        if self.io_limits_disabled == 1:
            self.restart()

    def enable_limits(self) -> None:
        """Ends it; sections nest."""
        assert self.io_limits_disabled > 0, "more ends than begins"
        self._change_disabled(-1)

    def _change_disabled(self, step: int) -> None:
        group = self.group
        if group is None:
            self.io_limits_disabled += step
            return
        with group.lock:
            self.io_limits_disabled += step

    # -- groups and contexts

    def register(self, name: str, ctx: AioContext) -> None:
        """Joins the group of that name, or a new one (throttle_group_register_tgm)."""
        assert self.group is None, "a member of two groups"
        group = throttle_group_incref(name, ctx.world)
        with group.lock:
            group.members.append(self)
            for direction in DIRECTIONS:
                group.tokens[direction] = group.tokens[direction] or self
        self.group = group
        self.attach(ctx)

    def unregister(self) -> None:
        """Leaves the group; nothing may wait here (throttle_group_unregister_tgm)."""
        group = self.group
        if group is None:
            return
        if self.ctx is not None:
            self.detach()
        with group.lock:
            place = group.members.index(self)
            group.members.remove(self)
            for direction in DIRECTIONS:
                if group.tokens[direction] is self:
                    before = group.members[place - 1] if group.members else None
                    group.tokens[direction] = before
        self.group = None
        group.unref()

    def attach(self, ctx: AioContext) -> None:
        """Makes the timers in a context (throttle_group_attach_aio_context)."""
        group = self.group
        assert group is not None
        self.timers = tuple(
            ctx.timer_new(group.clock_type, partial(self._timer, direction), owner=self.owner)
            for direction in DIRECTIONS
        )
        self.kick = ctx.bh_new(self._kicked, owner=self.owner)
        with group.lock:
            self.ctx = ctx

    def detach(self) -> None:
        """Deletes the timers; a turn goes to the next member (throttle_group_detach_aio_context).

        Requests have been drained (R4).
        """
        group = self.group
        assert group is not None
        assert self.kick is not None
        with group.lock:
            assert self.pending == [0, 0], "R4: requests wait here"
            assert not any(len(queue) for queue in self.queues), "R4: requests wait here"
            for direction in DIRECTIONS:
                if group.armed[direction] is self:
                    group.armed[direction] = None
                    group.schedule_next(self, direction)
            self.ctx = None
            self.kick.delete()
        for timer in self.timers:
            timer.delete()
        self.timers, self.kick = (), None
