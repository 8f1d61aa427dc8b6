# SPDX-License-Identifier: GPL-2.0-only
"""Everything that the event loop takes from the outside, in one object (rule 6 of the design).

Clocks, the poller, notifiers, locks, threads, and "who am I". No other module of `block` reads
a clock, polls, starts a thread or asks for its identity. So the same code runs under a
virtual clock, or under a scheduler that decides which thread takes the next step: such
a test hands in a subclass.

R1  Any thread may call any method.
R2  `current` is on the hottest path. The real one is the interpreter's own function.
"""

from __future__ import annotations

import os
import select
import time
from _thread import allocate_lock, get_ident

from block.aio.gate import Gate, PipeGate
from block.aio.notifier import EventNotifier, PipeNotifier
from block.aio.poller import EpollPoller, Poller, PollPoller
from block.aio.switch_interval import restore_switch_interval, shorten_switch_interval
from block.aio.thread import RealCondition, RealThread
from block.lean import IntEnum, partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Protocol

    from block.aio.context import AioContext
    from block.aio.coroutine import Coroutine
    from block.aio.io_uring import IoUring
    from block.aio.iothread import IOThread
    from block.aio.linux_aio import LinuxAio

    class Lock(Protocol):
        """What `new_lock` returns."""

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...
        def release(self) -> None: ...
        def __enter__(self) -> bool: ...
        def __exit__(
            self,
            kind: type[BaseException] | None,
            value: BaseException | None,
            trace: TracebackType | None,
        ) -> None: ...

    class Condition(Protocol):
        """What `new_condition` returns; used with its lock held."""

        def wait(self, timeout: float | None = None) -> bool: ...
        def notify(self, n: int = 1) -> None: ...
        def notify_all(self) -> None: ...

    class ThreadHandle(Protocol):
        """What `start_thread` returns."""

        def join(self) -> None: ...


class ClockType(IntEnum):
    """QEMU's clocks (QEMUClockType)."""

    REALTIME = 0  # runs always, and never jumps
    VIRTUAL = 1  # the guest's time
    HOST = 2  # the wall clock: jumps when somebody sets it


class World:
    """The real world: the system's clocks, threads and descriptors."""

    def __init__(self) -> None:
        self.audit = False  # remember who registers what (costs time; see block/aio/audit.py)
        self.lock = self.new_lock()  # guards what follows
        self.iothreads: dict[str, IOThread] = {}  # the living ones, by id
        self.contexts: dict[int, AioContext] = {}  # of IOThreads, by thread
        self.coroutines: dict[Coroutine, tuple[object, str]] = {}  # for the audit: owner, line
        self._main_context: AioContext | None = None

    current = staticmethod(get_ident)
    # clock_ns(REALTIME) for whoever reads it for every request: the system's own function.
    realtime_ns = staticmethod(time.monotonic_ns)

    def clock_ns(self, clock: ClockType) -> int:
        """Reads a clock, in nanoseconds (qemu_clock_get_ns)."""
        return time.time_ns() if clock is ClockType.HOST else time.monotonic_ns()

    def clock_reader(self, clock: ClockType) -> Callable[[], int]:
        """Returns what reads one clock: for whoever does so in every pass, as `realtime_ns`."""
        if type(self).clock_ns is not World.clock_ns:  # a world with other clocks
            return partial(self.clock_ns, clock)
        return time.time_ns if clock is ClockType.HOST else time.monotonic_ns

    def processors(self) -> int:
        """How many processors there are for this process."""
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

    def new_poller(self) -> Poller:
        """Returns the best poller of this system."""
        return EpollPoller() if hasattr(select, "epoll") else PollPoller()

    def new_notifier(self) -> EventNotifier:
        """Returns an eventfd, or a pipe where there is none."""
        return EventNotifier() if hasattr(os, "eventfd") else PipeNotifier()

    def new_gate(self) -> Gate:
        """Returns what a worker thread waits at: an eventfd, or a pipe where there is none."""
        return Gate() if hasattr(os, "eventfd") else PipeGate()

    def new_linux_aio(self, depth: int, eventfd: int) -> LinuxAio:
        """Returns a kernel context of Linux AIO (io_setup). Raises OSError."""
        from block.aio.linux_aio import LinuxAio

        return LinuxAio(depth, eventfd)

    def new_io_uring(self, entries: int, eventfd: int) -> IoUring:
        """Returns a pair of rings (io_uring_queue_init). Raises OSError."""
        from block.aio.io_uring import IoUring

        return IoUring(entries, eventfd)

    def new_lock(self) -> Lock:
        """Returns an ordinary lock (qemu_mutex_init)."""
        return allocate_lock()

    def new_condition(self, lock: Lock) -> Condition:
        """Returns a condition variable that goes with a lock (qemu_cond_init)."""
        return RealCondition(lock)

    def start_thread(self, name: str, target: Callable[[], None]) -> ThreadHandle:
        """Starts a thread (qemu_thread_create). It does not keep the process alive."""
        return RealThread(name, target)

    def shorten_switch_interval(self) -> None:
        """Begins a time in which Python switches threads quickly; counts."""
        shorten_switch_interval()

    def restore_switch_interval(self) -> None:
        """Ends it."""
        restore_switch_interval()

    @property
    def main_context(self) -> AioContext:
        """The main loop's context, made on first use (qemu_get_aio_context)."""
        context = self._main_context
        if context is None:
            from block.aio.context import AioContext

            with self.lock:
                if self._main_context is None:
                    self._main_context = AioContext("main", self)
                context = self._main_context
        return context


_world: World | None = None


def the_world() -> World:
    """Returns the process's World: what `world=None` means everywhere."""
    global _world
    if _world is None:
        _world = World()
    return _world


def set_world(world: World | None) -> World | None:
    """Replaces the process's World, for a test; returns the one before, to put back."""
    global _world
    before, _world = _world, world
    return before
