# SPDX-License-Identifier: GPL-2.0-only
"""Throttle groups: limits that disks in several event loops share (block/throttle-groups.c).

    request --> member ----> group: one ThrottleState, one lock
                  | a queue, and      | whose turn it is (token),
                  | a timer, for      | who has the timer (armed, due)
                  | each direction    v
                timer fires --> the first of the member's queue runs --> the next turn

This is the group; throttle_member.py is the other half.

R1  At most one turn is given in a group for each direction: the member that has it arms its
    timer. The turn goes round among the members that have requests waiting.
R2  A member's timers and queues belong to its own context. Who gives a turn to a member
    elsewhere notes the time in the group and schedules that member's bottom half, which arms the
    timer at home (DESIGN.md, rule 5).
R3  A member that is being drained (io_limits_disabled) makes nobody wait. What waits there
    runs at once, in order, and is counted.
R4  Nothing waits in a member when it is detached; the turn that it had goes to the next.
R5  Nobody depends for ever on a loop that stands still (a main thread that drains another disk
    polls that disk's loop only): whose turn is overdue by NEIGHBOUR_LATE_NS, loses it.
Who may call it: groups come and go in the main thread; the rest is for members.

State that several threads write, under the group's `lock`, which is taken last: everything in a
ThrottleGroup but `refcnt`, and of each member `ctx`, `pending` and `io_limits_disabled`. A
member's `timers`, `queues` and `kick` are its home's; others touch `kick` only, to schedule it,
with the lock held and after they have seen a request waiting there.
"""

from __future__ import annotations

import errno

from block.aio.coroutine import in_coroutine
from block.aio.world import ClockType, the_world
from block.core.error import BlockError
from block.objects.throttle_bucket import READ, WRITE, ThrottleConfig, ThrottleState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.world import World
    from block.objects.throttle_member import ThrottleGroupMember

DIRECTIONS = (READ, WRITE)
NEIGHBOUR_LATE_NS = 100_000_000

groups: dict[str, ThrottleGroup] = {}  # by name; the main thread's


class ThrottleGroup:
    """Limits with a name (ThrottleGroup). `refcnt` counts the members, and the person's object."""

    def __init__(self, name: str, world: World | None = None) -> None:
        self.name = name
        self.world = world or the_world()
        self.clock_type = ClockType.REALTIME
        self.refcnt = 1
        self.lock = self.world.new_lock()
        self.state = ThrottleState()
        self.members: list[ThrottleGroupMember] = []
        self.waiting = [0, 0]  # the sum of the members' `pending`
        self.tokens: list[ThrottleGroupMember | None] = [None, None]
        self.armed: list[ThrottleGroupMember | None] = [None, None]
        self.due_ns = [0, 0]

    def __repr__(self) -> str:
        return f"<ThrottleGroup {self.name}>"

    def now(self) -> int:
        """Reads the group's clock, in nanoseconds."""
        return self.world.clock_ns(self.clock_type)

    def ref(self) -> ThrottleGroup:
        """Takes a reference."""
        self.refcnt += 1
        return self

    def unref(self) -> None:
        """Drops a reference; with the last one the name is free (throttle_group_unref)."""
        assert self.refcnt > 0, "more unrefs than refs"
        self.refcnt -= 1
        if self.refcnt == 0:
            assert not self.members, "a member without a reference"
            del groups[self.name]

    def configure(self, config: ThrottleConfig) -> None:
        """Changes the limits for all members (throttle_group_config). The buckets are empty then,
        so whoever waited for the old limits tries again at once."""
        with self.lock:
            self.state.configure(config, self.now())
            for direction in DIRECTIONS:
                token = self.armed[direction]
                if token is not None:
                    self.arm(token, direction, self.now())

    def config(self) -> ThrottleConfig:
        """The limits, without what the buckets hold (throttle_group_get_config)."""
        with self.lock:
            return self.state.config.copy()

    # -- whose turn is it; the lock is held in all that follows

    def _next_token(self, member: ThrottleGroupMember, direction: int) -> ThrottleGroupMember:
        """The next in the round with requests waiting, else `member` (next_throttle_token)."""
        if member.pending[direction] and member.io_limits_disabled:
            return member
        last = self.tokens[direction]
        assert last is not None, "a member without a token"
        place = self.members.index(last) + 1
        for other in (*self.members[place:], *self.members[:place]):
            if other.pending[direction]:
                return other
        return member

    def must_wait(self, member: ThrottleGroupMember, direction: int) -> bool:
        """Whether the next request of a member has to wait; then a timer is armed, its own if no
        other is (throttle_group_schedule_timer, R1)."""
        if member.io_limits_disabled:
            return False
        if self.armed[direction] is not None:
            return True
        now = self.now()
        wait = self.state.compute_wait(direction, now)
        if wait:
            self.arm(member, direction, now + wait)
        return wait > 0

    def arm(self, member: ThrottleGroupMember, direction: int, due_ns: int) -> None:
        """Gives a member the turn at that time, wherever it lives (R2)."""
        self.tokens[direction] = self.armed[direction] = member
        self.due_ns[direction] = due_ns
        assert member.ctx is not None, "R4: a turn for a member that is detached"
        assert member.kick is not None
        if member.ctx.is_home():
            member.timers[direction].mod(due_ns)
        else:
            member.kick.schedule()

    def admits(self, member: ThrottleGroupMember, direction: int) -> bool:
        """Whether a new request of a member may run now; if not, somebody has the timer."""
        if member.io_limits_disabled:
            return not member.pending[direction]
        if not self.waiting[direction]:
            return not self.must_wait(member, direction)
        token = self._next_token(member, direction)
        return not self.must_wait(token, direction) and not member.pending[direction]

    def schedule_next(self, member: ThrottleGroupMember, direction: int) -> None:
        """Gives the next turn, now or by a timer; `member` is at home here and has just had its
        own (schedule_next_request)."""
        if not self.waiting[direction]:
            return
        token = self._next_token(member, direction)
        if not token.pending[direction] or self.must_wait(token, direction):
            return
        if in_coroutine() and member.queues[direction].next():
            self.tokens[direction] = member  # it is quicker to go on here
        else:
            self.arm(token, direction, self.now())


# -- groups by name; main thread


def throttle_group_exists(name: str) -> bool:
    """Whether there is a group of that name."""
    return name in groups


def throttle_group_incref(name: str, world: World | None = None) -> ThrottleGroup:
    """Takes a reference to a group by its name; makes one without limits where there is none."""
    if name in groups:
        return groups[name].ref()
    groups[name] = group = ThrottleGroup(name, world)
    return group


def throttle_group_create(
    name: str, config: ThrottleConfig, world: World | None = None
) -> ThrottleGroup:
    """Makes the object `throttle-group`; who calls holds a reference (throttle_group_obj_complete).

    Raises BlockError(EINVAL): the name is taken, or the limits contradict each other.
    """
    if throttle_group_exists(name):
        raise BlockError(errno.EINVAL, "A group with this name already exists")
    config.check()
    group = throttle_group_incref(name, world)
    group.configure(config)
    return group
