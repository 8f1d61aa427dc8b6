# SPDX-License-Identifier: GPL-2.0-only
"""Timers (qemu-timer.c): callbacks at a time of one of three clocks.

R1  Times are absolute and in nanoseconds of the timer's own clock.
R2  Home only (rule 5 of the design).
R3  A timer fires once; its callback may arm it again. What is armed while the timers of a pass
    run, fires in the next pass at the earliest, even if its time has come.
R4  Timers with the same time fire in the order in which they were armed.
R5  A deleted timer never fires. Touching it raises UsedAfterFree.

Discussion: a heap per clock, of (time, number, timer). An entry counts only while its number is
the timer's own; disarming a timer gives it number 0 and leaves the entry where it is (lazy
deletion). Dead entries are dropped when they come up, and all at once when they are the
majority, so a timer that is moved on and on holds no memory.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from block.aio.audit import caller
from block.aio.errors import UsedAfterFree
from block.aio.world import ClockType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.aio.context import AioContext

DELETED = -1
DEAD_ENTRIES_ALLOWED = 64


class TimerList:
    """The timers of one context on one clock (QEMUTimerList)."""

    __slots__ = ("_clock_ns", "_last_number", "clock", "heap", "n_armed")

    def __init__(self, clock: ClockType, clock_ns: Callable[[ClockType], int]) -> None:
        self.clock = clock
        self.heap: list[tuple[int, int, Timer]] = []
        self.n_armed = 0
        self._last_number = 0
        self._clock_ns = clock_ns

    def arm(self, timer: Timer, expire_ns: int) -> None:
        """Enters a timer that is not armed."""
        self._last_number = timer.number = number = self._last_number + 1
        timer.expire_ns = expire_ns
        self.n_armed += 1
        heappush(self.heap, (expire_ns, number, timer))

    def disarm(self, timer: Timer) -> None:
        """Takes an armed timer out."""
        timer.number = 0
        self.n_armed -= 1
        dead = len(self.heap) - self.n_armed
        if dead > DEAD_ENTRIES_ALLOWED and dead > self.n_armed:
            self.heap[:] = [entry for entry in self.heap if entry[2].number == entry[1]]
            heapify(self.heap)

    def timeout_ns(self) -> int:
        """Returns how long until the first one fires, -1 for never (timerlist_deadline_ns)."""
        heap = self.heap
        while heap and heap[0][2].number != heap[0][1]:
            heappop(heap)
        if not heap:
            return -1
        return max(0, heap[0][0] - self._clock_ns(self.clock))

    def run(self) -> bool:
        """Fires what is due; says whether anything was (timerlist_run_timers)."""
        heap = self.heap
        now = self._clock_ns(self.clock)
        last = self._last_number  # R3: later numbers wait
        progress = False
        while heap and heap[0][0] <= now and heap[0][1] <= last:
            _, number, timer = heappop(heap)
            if timer.number == number:
                timer.number = 0
                self.n_armed -= 1
                progress = True
                timer.callback()
        return progress


class Timer:
    """A timer (QEMUTimer); made by ctx.timer_new()."""

    __slots__ = (
        "__weakref__", "_list", "callback", "clock", "ctx", "expire_ns", "number", "owner", "where",
    )  # fmt: skip

    def __init__(
        self, ctx: AioContext, clock: ClockType, callback: Callable[[], None], owner: object
    ) -> None:
        self.ctx = ctx
        self.clock = clock
        self.callback = callback
        self.owner = owner
        self.expire_ns = -1
        self.number = 0  # of its entry in the heap; 0 while it is not armed
        self.where = caller() if ctx.world.audit else ""
        self._list = ctx._timer_lists[clock]

    @property
    def pending(self) -> bool:
        """Whether it is armed (timer_pending)."""
        return self.number > 0

    def mod(self, expire_ns: int) -> None:
        """Arms it, or changes its time (timer_mod_ns)."""
        assert self.ctx.is_home(), self.ctx.stranger()
        if self.number:
            self._disarm()
        self._list.arm(self, expire_ns)
        if self.ctx._awake != self.ctx._current():
            self.ctx.notify()

    def mod_anticipate(self, expire_ns: int) -> None:
        """Arms it, or moves it to an earlier time, never to a later (timer_mod_anticipate_ns)."""
        if self.number <= 0 or expire_ns < self.expire_ns:
            self.mod(expire_ns)

    def cancel(self) -> None:
        """Disarms it; it can be armed again (timer_del)."""
        assert self.ctx.is_home(), self.ctx.stranger()
        if self.number:
            self._disarm()

    def delete(self) -> None:
        """Disarms it and ends its life (timer_free)."""
        if self.number == DELETED:
            return
        self.cancel()
        self.number = DELETED
        self.ctx._timer_registry.pop(self, None)

    def _disarm(self) -> None:
        if self.number == DELETED:
            raise UsedAfterFree(f"timer of {self.ctx.name}, owner {self.owner!r}, {self.where}")
        self._list.disarm(self)
