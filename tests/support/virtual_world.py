# SPDX-License-Identifier: GPL-2.0-only
"""A World whose clocks stand still until somebody waits.

A wait with a timeout takes no time: if no descriptor is ready, the clocks jump to its end. So
a test of timers neither sleeps nor depends on the machine's speed. Threads, locks and
descriptors are the real ones.
"""

from __future__ import annotations

from collections.abc import Iterable

from block.aio.poller import Poller
from block.aio.world import ClockType, World

START_NS = 1_000_000_000


class VirtualWorld(World):
    """The real world with virtual time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = dict.fromkeys(ClockType, START_NS)
        self.n_waits = 0

    def clock_ns(self, clock: ClockType) -> int:
        return self.now[clock]

    def realtime_ns(self) -> int:  # type: ignore[override]  # the real one is a builtin
        return self.now[ClockType.REALTIME]

    def advance(self, ns: int) -> None:
        """Lets time go by on all clocks."""
        for clock in self.now:
            self.now[clock] += ns

    def new_poller(self) -> Poller:
        return VirtualPoller(self, super().new_poller())


class VirtualPoller(Poller):
    """A poller in virtual time around a real one."""

    def __init__(self, world: VirtualWorld, real: Poller) -> None:
        super().__init__()
        self.world = world
        self.real = real

    def wait(self, timeout_ns: int) -> Iterable[tuple[int, int]]:
        self.world.n_waits += 1
        if timeout_ns < 0:
            return self.real.wait(timeout_ns)
        ready = list(self.real.wait(0))
        if not ready:
            self.world.advance(timeout_ns)
        return ready

    def update(self, fd: int, events: int) -> None:
        self.real.update(fd, events)

    def remove(self, fd: int) -> None:
        self.real.remove(fd)

    def fileno(self) -> int | None:
        return self.real.fileno()

    def watched(self) -> dict[int, int]:
        return self.real.watched()

    @property
    def always_ready(self) -> bool:
        return self.real.always_ready

    def close(self) -> None:
        super().close()
        self.real.close()
