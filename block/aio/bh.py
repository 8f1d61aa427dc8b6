# SPDX-License-Identifier: GPL-2.0-only
"""Bottom halves: callbacks that run in the next pass of the loop (async.c, QEMUBH).

A bottom half is scheduled by any thread and runs once in the thread of its context. To
schedule it twice before it has run is to schedule it once.

R1  `schedule` and `schedule_idle` may be called from any thread; all else is for home
    (rule 5 of the design). Not from a signal handler: set an EventNotifier there.
R2  Whatever was written before `schedule` is seen by the callback.
R3  What is scheduled while a pass runs, runs in the next pass.
R4  An idle bottom half runs some time, at the latest after 10 ms, and is no progress.
R5  A deleted one never runs. Touching it raises UsedAfterFree.

State that several threads write:
    ctx._bhs, ctx._idle_bhs   deques; append and popleft are thread-safe by their
                              documentation. Only home takes out.
    bh.state                  0 -> SCHEDULED by any thread, before it appends; back to 0 by home,
                              before it calls. So whoever finds SCHEDULED and returns knows
                              that the callback is still to come (R2). Two threads that both
                              find 0 append twice; the second entry finds 0 and is passed over.

What went wrong here once (924fe1293c, 2014): `schedule` read bh.ctx after it had made the
bottom half visible. Home ran it and freed it in between. So `ctx` is read first.

Discussion: the callback is called as `bh.callback()`. It is a slot, which bh_new fills; or a
subclass defines it as a method. A request that is its own bottom half (an AIOCB) does so, and
completing it costs no second object.
"""

from __future__ import annotations

from itertools import repeat

from block.aio.audit import caller
from block.aio.defer_call import DeferCall
from block.aio.errors import UsedAfterFree
from block.aio.world import World
from block.lean import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from block.aio.context import AioContext

SCHEDULED = 1
SCHEDULED_IDLE = 2
DELETED = 3


class BottomHalf:
    """What every bottom half has; subclasses define `callback` as a method.

    Such a one is known to its context only while it is scheduled; it need not be deleted.
    """

    __slots__ = ("__weakref__", "ctx", "owner", "state", "where")

    def __init__(self, ctx: AioContext, owner: object = None) -> None:
        self.ctx = ctx
        self.owner = owner
        self.state = 0
        self.where = caller() if ctx.world.audit else ""

    if TYPE_CHECKING:

        def callback(self) -> None:
            """Runs in the thread of the context."""

    def schedule(self) -> None:
        """Runs the callback in the next pass; any thread (qemu_bh_schedule)."""
        if self.state:
            if self.state == DELETED:
                raise self._gone()
            return
        ctx = self.ctx
        self.state = SCHEDULED
        ctx._bhs.append(self)
        if ctx._awake != ctx._current():
            ctx.notify()

    def schedule_idle(self) -> None:
        """Runs the callback when there is time, within 10 ms (qemu_bh_schedule_idle)."""
        if self.state:
            if self.state == DELETED:
                raise self._gone()
            return
        ctx = self.ctx
        self.state = SCHEDULED_IDLE
        ctx._idle_bhs.append(self)
        if ctx._awake != ctx._current():
            ctx.notify()

    @property
    def scheduled(self) -> bool:
        """Whether the callback is still to come."""
        return self.state in (SCHEDULED, SCHEDULED_IDLE)

    def cancel(self) -> None:
        """Takes a scheduled callback back (qemu_bh_cancel). Home only."""
        if self.state == DELETED:
            raise self._gone()
        assert self.ctx.is_home(), self.ctx.stranger()
        self.state = 0

    def _gone(self) -> UsedAfterFree:
        where = f", {self.where}" if self.where else ""
        return UsedAfterFree(f"bottom half of {self.ctx.name}, owner {self.owner!r}{where}")


class BH(BottomHalf):
    """A bottom half that calls what it was made with (QEMUBH); made by ctx.bh_new()."""

    __slots__ = ("callback",)

    def __init__(self, ctx: AioContext, callback: Callable[[], None], owner: object = None) -> None:
        super().__init__(ctx, owner)
        self.callback = callback  # type: ignore[method-assign]  # the slot, see Discussion
        ctx._bh_registry[self] = None

    def delete(self) -> None:
        """Cancels it and ends its life; also from its own callback (qemu_bh_delete). Home only."""
        assert self.ctx.is_home(), self.ctx.stranger()
        self.state = DELETED
        self.ctx._bh_registry.pop(self, None)


class BhQueues(DeferCall):
    """The bottom halves of one context: those that are scheduled, and all that bh_new made."""

    __slots__ = ("_bh_budget", "_bh_registry", "_bhs", "_idle_bhs")

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name, world)
        self._bhs: deque[Any] = deque()  # of BottomHalf, and of tuples: one-shots
        self._idle_bhs: deque[BottomHalf] = deque()
        self._bh_budget: Iterator[None] = iter(())
        self._bh_registry: dict[BH, None] = {}

    def bh_schedule_oneshot(self, callback: Callable[[], None], *, owner: object = None) -> None:
        """Runs a callback once in the next pass; any thread (aio_bh_schedule_oneshot)."""
        self._bhs.append((callback, owner, caller()) if self.world.audit else (callback, owner))
        if self._awake != self._current():
            self.notify()

    def _take_bhs(self) -> Iterator[None]:
        """Returns an iterator with an item for each bottom half that is there now.

        An outer poll that is in the middle of its bottom halves has then none left.
        """
        for _ in self._bh_budget:
            pass
        self._bh_budget = budget = repeat(None, len(self._bhs))
        return budget

    def run_bottom_halves(self) -> bool:
        """Runs those that are there now, and says whether there were any (aio_bh_poll). Home only.

        For a thread that is here as a guest, while another sleeps in our stead: a wake-up that is
        meant for that one is left to it.
        """
        assert self._current() == self._home, self.stranger()
        bhs, progress = self._bhs, False
        for _ in self._take_bhs() if bhs else ():
            bh = bhs.popleft()
            if type(bh) is tuple:
                progress = True
                bh[0]()
            elif bh.state == SCHEDULED:
                bh.state = 0
                progress = True
                bh.callback()
        return progress

    def _run_idle_bhs(self) -> None:
        idle_bhs = self._idle_bhs
        for _ in repeat(None, len(idle_bhs)):
            bh = idle_bhs.popleft()
            if bh.state == SCHEDULED_IDLE:
                bh.state = 0
                bh.callback()


def _demo() -> None:
    from block.aio.context import AioContext
    from block.aio.demo import Timeline

    say = Timeline()
    ctx = AioContext("demo")

    def first() -> None:
        say("the first runs and schedules a third")
        ctx.bh_schedule_oneshot(lambda: say("the third runs: a pass later"))

    second = ctx.bh_new(lambda: say("the second runs: once, although scheduled twice"))
    ctx.bh_schedule_oneshot(first)
    second.schedule()
    second.schedule()
    say("scheduled; nothing runs before the loop is polled")
    while ctx.poll(False):
        say("-- end of a pass --")
    ctx.close()


if __name__ == "__main__":
    _demo()
