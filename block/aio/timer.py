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

What is due is taken out before the first callback runs; `_due` is an iterator that a nested
poll goes on with, and what a callback's exception has left there fires in the next pass. Taking
many out of a heap one by one costs 0.5 µs each; sorting it (a sorted list is a heap) costs 0.1.

Mostly some timer is armed and far away. Then a pass looks at the lists that hold anything, which is
one, and compares its first time with the clock.
"""

from __future__ import annotations

from block.aio.audit import caller
from block.aio.errors import UsedAfterFree
from block.aio.world import ClockType
from block.lean import bisect_right, heapify, heappop, heappush, length_hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from block.aio.context import AioContext

    Entry = tuple[int, int, "Timer"]

DELETED = -1
DEAD_ENTRIES_ALLOWED = 64
SORT_FROM = 16


class TimerList:
    """The timers of one context on one clock (QEMUTimerList)."""

    __slots__ = ("_due", "_n_dead", "heap", "last_number", "now", "runs")

    def __init__(self, now: Callable[[], int]) -> None:
        self.now = now
        self.heap: list[Entry] = []
        self.last_number = 0
        self.runs = False  # False: nothing is left over
        self._due: Iterator[Entry] = iter(())
        self._n_dead = 0

    def disarm(self, timer: Timer) -> None:
        """Takes an armed timer out."""
        timer.number = 0
        self._n_dead += 1
        heap = self.heap
        if self._n_dead > DEAD_ENTRIES_ALLOWED and self._n_dead > len(heap) >> 1:
            n_before = len(heap)
            heap[:] = [entry for entry in heap if entry[2].number == entry[1]]
            heapify(heap)
            self._n_dead -= n_before - len(heap)

    @property
    def left_over(self) -> bool:
        """Whether a pass has taken out timers that it has not fired yet."""
        return length_hint(self._due) > 0

    def timeout_ns(self) -> int:
        """Returns how long until the first one fires, -1 for never (timerlist_deadline_ns)."""
        if self.runs and self.left_over:
            return 0
        heap = self.heap
        while heap and heap[0][2].number != heap[0][1]:
            heappop(heap)
            self._n_dead -= 1
        if not heap:
            return -1
        return max(0, heap[0][0] - self.now())

    def is_due(self) -> bool:
        """Whether `run` would find anything."""
        heap = self.heap
        if heap and heap[0][0] <= self.now():
            return True
        return self.runs and self.left_over

    def run(self) -> bool:
        """Fires what is due; says whether anything was (timerlist_run_timers)."""
        self._due = due = iter([*self._due, *self._take_due()])
        self.runs = True
        progress = False
        for _, number, timer in due:
            if timer.number == number:
                timer.number = 0
                progress = True
                timer.callback()
            else:
                self._n_dead -= 1
        self.runs = self.left_over  # a nested poll may have failed
        return progress

    def _take_due(self) -> list[Entry]:
        """Takes out of the heap what is due, in order."""
        now = self.now()
        heap = self.heap
        due: list[Entry] = []
        while heap and heap[0][0] <= now:
            due.append(heappop(heap))
            if len(due) == SORT_FROM:
                heap.sort()
                n = bisect_right(heap, now, key=_time)
                due += heap[:n]
                del heap[:n]
                break
        return due


def _time(entry: Entry) -> int:
    return entry[0]


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
        ctx = self.ctx
        me = ctx._current()
        assert me == ctx._home, ctx.stranger()
        if self.number:
            self._disarm()
        timers = self._list
        heap = timers.heap
        if not heap and timers not in ctx._timers_armed:
            ctx._timers_armed.append(timers)
        timers.last_number = self.number = number = timers.last_number + 1
        self.expire_ns = expire_ns
        heappush(heap, (expire_ns, number, self))
        if ctx._awake != me:
            ctx.notify()

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


def _demo() -> None:
    from block.aio.context import AioContext
    from block.aio.demo import Timeline

    say = Timeline()
    ctx = AioContext("demo")
    start_ns = ctx.clock_ns(ClockType.REALTIME)

    def tick() -> None:
        say("tick; it arms itself again")
        ticking.mod(ticking.expire_ns + 10_000_000)

    ticking = ctx.timer_new(ClockType.REALTIME, tick)
    alarm = ctx.timer_new(ClockType.REALTIME, lambda: say("the alarm"))
    ticking.mod(start_ns + 10_000_000)
    alarm.mod(start_ns + 35_000_000)
    say("ticks every 10 ms, an alarm after 35 ms")
    while alarm.pending:
        ctx.poll(True)
    ctx.close()


if __name__ == "__main__":
    _demo()
