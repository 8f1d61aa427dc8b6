# SPDX-License-Identifier: GPL-2.0-only
"""The doors between fake threads: locks, conditions, gates, notifiers, the poller, threads.

Each method is a step, then something that nobody can interrupt, and says what it touches.

R1  Who gets a free lock is a choice: whoever takes its next step first.
R2  Descriptors are real, so that drivers can use them; but nobody ever waits in the kernel.
    The poller looks without waiting, and the scheduler lets others go on until it finds something.
R3  Which of several ready descriptors is served first is a choice, too.
R4  If time-outs may come early (scheduler.py, R6), a wait for a lock that is not for ever is a
    try, too: whether it comes before the release or after it is a race. To begin such a wait is
    to look whether the lock is free.
"""

from __future__ import annotations

from block.aio.gate import Gate
from block.aio.notifier import PipeNotifier
from block.aio.poller import Poller, PollPoller
from block.testing.accesses import READ, RELEASE, TRY, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from block.testing.scheduler import FakeThread, Scheduler
    from block.testing.world import DeterministicWorld

NS = 1_000_000_000


def deadline(scheduler: Scheduler, seconds: float | None) -> int:
    """Returns when a wait ends, -1 for never."""
    return -1 if seconds is None or seconds < 0 else scheduler.now_ns + int(seconds * NS)


class Waiters:
    """Threads that wait for the same thing."""

    __slots__ = ("scheduler", "threads")

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.threads: dict[FakeThread, None] = {}

    def wait(self, what: str, access: int, deadline_ns: int = -1, early: bool = False) -> bool:
        """Blocks the running thread; False: its time is up."""
        scheduler, me = self.scheduler, self.scheduler.running
        self.threads[me] = None
        try:
            scheduler.block(what, (access,), deadline_ns, early=early)
        finally:
            woken = self.threads.pop(me, 0) == 0
        return woken

    def wake(self, n: int = -1) -> None:
        """Lets those go on that have waited longest; -1: all."""
        while self.threads and n:
            thread = next(iter(self.threads))
            del self.threads[thread]
            self.scheduler.wake(thread)
            n -= 1


class FakeLock:
    """A lock; also used as a gate that one thread closes and another opens."""

    __slots__ = ("_scheduler", "_thing", "_waiters", "holder")

    def __init__(self, world: DeterministicWorld) -> None:
        self._scheduler = world.scheduler
        self._thing = world.names.new() << 2
        self._waiters = Waiters(self._scheduler)
        self.holder: FakeThread | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        scheduler = self._scheduler
        scheduler.step("acquire")
        if scheduler.closed:
            return True
        deadline_ns = deadline(scheduler, timeout)
        early = scheduler.early_timeouts and deadline_ns >= 0
        while self.holder is not None:
            if not blocking or 0 <= deadline_ns <= scheduler.now_ns:
                scheduler.touch(self._thing | TRY)
                return False
            what = f"a lock of {self.holder.name}"
            if early:
                scheduler.touch(self._thing | TRY)
            woken = self._waiters.wait(what, self._thing | WRITE, deadline_ns, early)
            if early and not woken:
                scheduler.touch(self._thing | TRY)
                return False
        self.holder = scheduler.running
        if early:
            scheduler.touch(self._thing | TRY)
        scheduler.touch(self._thing | WRITE)
        return True

    def release(self) -> None:
        if self._scheduler.dying:
            self.holder = None
            return
        assert self.holder is not None, "release of a lock that nobody holds"
        self.holder = None
        self._scheduler.touch(self._thing | RELEASE)
        self._waiters.wake()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class FakeCondition:
    """A condition variable."""

    __slots__ = ("_lock", "_thing", "_waiters")

    def __init__(self, world: DeterministicWorld, lock: FakeLock) -> None:
        self._lock = lock
        self._thing = world.names.new() << 2
        self._waiters = Waiters(world.scheduler)

    def wait(self, timeout: float | None = None) -> bool:
        scheduler = self._waiters.scheduler
        scheduler.step("wait")
        scheduler.touch(self._thing | WRITE)
        self._lock.release()
        woken = self._waiters.wait("a condition", self._thing, deadline(scheduler, timeout))
        scheduler.touch(self._thing | READ)
        self._lock.acquire()
        return woken

    def notify(self, n: int = 1) -> None:
        self._waiters.scheduler.step("notify")
        self._waiters.scheduler.touch(self._thing | WRITE)
        self._waiters.wake(n)

    def notify_all(self) -> None:
        self.notify(-1)


class FakeGate(Gate):
    """A gate without a descriptor."""

    __slots__ = ("_is_open", "_scheduler", "_thing", "_waiters")

    def __init__(self, world: DeterministicWorld) -> None:
        self._scheduler = world.scheduler
        self._thing = world.names.new() << 2
        self._waiters = Waiters(self._scheduler)
        self._is_open = False

    def open(self) -> None:
        self._scheduler.step("open the gate")
        self._scheduler.touch(self._thing | WRITE)
        self._is_open = True
        self._waiters.wake()

    def wait(self) -> None:
        self._scheduler.step("wait at the gate")
        while not self._is_open:
            self._waiters.wait("a gate to open", self._thing | WRITE)
        self._is_open = False
        self._scheduler.touch(self._thing | WRITE)

    def close(self) -> None:
        pass


class FakeNotifier(PipeNotifier):
    """A notifier by a real pipe, which every system has."""

    __slots__ = ("_scheduler", "_thing", "_world")

    def __init__(self, world: DeterministicWorld) -> None:
        super().__init__()
        self._world = world
        self._scheduler = world.scheduler
        self._thing = world.names.new() << 2
        world.things[self._fd] = self._thing
        world.closers[self] = None

    def set(self) -> None:
        self._scheduler.step("set the notifier")
        if self._scheduler.closed:  # R5 of scheduler.py
            return
        self._scheduler.touch(self._thing | WRITE)
        super().set()

    def test_and_clear(self) -> bool:
        self._scheduler.step("clear the notifier")
        self._scheduler.touch(self._thing | WRITE)
        return super().test_and_clear()

    def close(self) -> None:
        self._world.things.pop(self._fd, None)
        self._world.closers.pop(self, None)
        super().close()


class FakePoller(Poller):
    """A poller that lets other threads go on instead of waiting."""

    def __init__(self, world: DeterministicWorld) -> None:
        self._world = world
        self._scheduler = world.scheduler
        self._real = PollPoller()
        self._now: Callable[[int], list[tuple[int, int]]] = self._real.look  # type: ignore[assignment]  # poll(2)'s list
        super().__init__()

    def update(self, fd: int, events: int) -> None:
        self._real.update(fd, events)

    def remove(self, fd: int) -> None:
        self._real.remove(fd)

    def _has_work(self) -> bool:
        return bool(self._now(0))

    def wait(self, timeout_ns: int) -> list[tuple[int, int]]:
        scheduler = self._scheduler
        scheduler.step("look" if timeout_ns == 0 else "sleep")
        end_ns = scheduler.now_ns + timeout_ns
        ready = self._now(0)
        while not ready and (timeout_ns < 0 or end_ns > scheduler.now_ns):
            what = "work" if timeout_ns < 0 else f"work, until {end_ns / NS:.6f} s"
            end = end_ns if timeout_ns > 0 else -1
            scheduler.block(what, self._things(), end, self._has_work)
            ready = self._now(0)
        for thing in self._things():
            scheduler.touch(thing)
        if not ready and timeout_ns == 0:
            scheduler.look_was_empty()
        return self._in_some_order(ready) if len(ready) > 1 else ready

    def _things(self) -> dict[int, None]:
        """Returns what a look reads, as an ordered set."""
        things, kernel = self._world.things, self._world.kernel
        return {things.get(fd, kernel): None for fd in self._real.watched()}

    def _in_some_order(self, ready: list[tuple[int, int]]) -> list[tuple[int, int]]:
        first = self._scheduler.decider.pick(len(ready))
        return [*ready[first:], *ready[:first]]

    def watched(self) -> dict[int, int]:
        return self._real.watched()

    def close(self) -> None:
        super().close()
        self._real.close()


class FakeThreadHandle:
    """What `start_thread` returns."""

    __slots__ = ("_scheduler", "_thing", "_thread")

    def __init__(self, world: DeterministicWorld, name: str, target: Callable[[], None]) -> None:
        self._scheduler = world.scheduler
        self._thing = world.names.new() << 2

        def run() -> None:
            target()
            world.scheduler.step("end")
            world.scheduler.touch(self._thing | RELEASE)

        self._thread = self._scheduler.start(name, run)

    def join(self) -> None:
        scheduler = self._scheduler
        scheduler.step("join")
        if not self._thread.ended:
            self._thread.joiners.append(scheduler.running)
            scheduler.block(f"{self._thread.name} to end", ())
        scheduler.touch(self._thing | READ)
