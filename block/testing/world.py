# SPDX-License-Identifier: GPL-2.0-only
"""A World in which nothing happens by chance: its threads are fake, its clocks virtual.

    world = DeterministicWorld(Seeded(7))
    with IOThread("io0", world) as iothread: ...

The thread that makes it is its main thread. Whatever of `block` is given this world runs as in the
real one, but one step at a time, in an order that the seed, or a recording, or the explorer
chooses (choices.py, explore.py). Descriptors and files are the real ones.

R1  No real thread may touch what belongs to this world.
R2  Linux AIO and io_uring complete when the kernel likes. They are not there; drivers take the
    thread pool.
R3  `close` ends what still runs. Whoever makes a world closes it.
"""

from __future__ import annotations

import contextlib
import errno
import os

from block.aio.world import ClockType, World
from block.testing.accesses import KERNEL, Names
from block.testing.doors import (
    FakeCondition,
    FakeGate,
    FakeLock,
    FakeNotifier,
    FakePoller,
    FakeThreadHandle,
)
from block.testing.scheduler import Scheduler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from block.aio.io_uring import IoUring
    from block.aio.linux_aio import LinuxAio
    from block.aio.world import Lock
    from block.testing.choices import Decider


class DeterministicWorld(World):
    """A World whose every choice is made by `decider`."""

    def __init__(self, decider: Decider, names: Names | None = None) -> None:
        self.scheduler = Scheduler(decider)
        self.names = names or Names()
        self.names.begin(self.scheduler.current)
        self.kernel = self.names.of(KERNEL) << 2
        self.things: dict[int, int] = {}  # descriptor -> what is touched when it is used
        self.closers: dict[FakeNotifier, None] = {}
        super().__init__()

    def current(self) -> int:
        return self.scheduler.running.number

    def realtime_ns(self) -> int:
        return self.scheduler.now_ns

    def clock_ns(self, clock: ClockType) -> int:
        return self.scheduler.now_ns

    def processors(self) -> int:
        return 2  # whichever machine this is

    def new_poller(self) -> FakePoller:
        return FakePoller(self)

    def new_notifier(self) -> FakeNotifier:
        return FakeNotifier(self)

    def new_gate(self) -> FakeGate:
        return FakeGate(self)

    def new_linux_aio(self, depth: int, eventfd: int) -> LinuxAio:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def new_io_uring(self, entries: int, eventfd: int) -> IoUring:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def new_lock(self) -> FakeLock:
        return FakeLock(self)

    def new_condition(self, lock: Lock) -> FakeCondition:
        assert isinstance(lock, FakeLock), "R1: a lock of another world"
        return FakeCondition(self, lock)

    def start_thread(self, name: str, target: Callable[[], None]) -> FakeThreadHandle:
        return FakeThreadHandle(self, name, target)

    def shorten_switch_interval(self) -> None:
        pass

    def restore_switch_interval(self) -> None:
        pass

    def now_ns(self) -> int:
        """Returns what all its clocks say."""
        return self.scheduler.now_ns

    def let_others_go_on(self) -> None:
        """Waits until all other threads are blocked or have ended; no time passes."""
        scheduler = self.scheduler
        while scheduler.others_can_go_on():
            scheduler.give_way()
            scheduler.step("give way")

    @contextlib.contextmanager
    def in_one_order(self) -> Iterator[None]:
        """What happens in here is not explored: what a scenario builds up first, and clears away.

        Before it and at its end all others go on as far as they can. So all that was precedes all
        that comes, and nothing that is explored runs into it.
        """
        scheduler = self.scheduler
        self.let_others_go_on()
        scheduler.step("in one order")
        scheduler.quiet = True
        yield
        self.let_others_go_on()
        scheduler.quiet = False
        scheduler.decider.settled()

    def close(self) -> None:
        """Ends the threads that are left, and gives descriptors back (R3)."""
        self.scheduler.close()
        for notifier in list(self.closers):
            notifier.close()
