# SPDX-License-Identifier: GPL-2.0-only
"""A thread that calls a function when it is time: the clock of the interrupt controllers' timers.

Rules:
R1  `set` may be called from any thread; the earliest time that was asked for counts.
R2  `ring(now)` runs in the alarm's thread, holding none of its locks; it returns when it wants to
    be called next, or None.
R3  The thread is started by the first `set`: a guest without timers has none.
"""

from __future__ import annotations

from block.aio.world import ClockType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.aio.world import ThreadHandle, World

SECOND = 1_000_000_000


class Alarm:
    """One thread, one function, one time (QEMUTimer, with a thread of its own)."""

    def __init__(self, name: str, world: World, ring: Callable[[int], int | None]) -> None:
        self._name, self._world, self._ring = name, world, ring
        self._lock = world.new_lock()
        self._changed = world.new_condition(self._lock)
        self._at: int | None = None
        self._closed = False
        self._thread: ThreadHandle | None = None

    def now(self) -> int:
        """The time, in ns."""
        return self._world.clock_ns(ClockType.VIRTUAL)

    def set(self, at: int) -> None:
        """Rings at `at` or before (R1)."""
        with self._lock:
            if self._closed or (self._at is not None and self._at <= at):
                return
            self._at = at
            self._changed.notify_all()
            if self._thread is None:
                self._thread = self._world.start_thread(self._name, self._main)

    def _main(self) -> None:
        while self._wait():
            at = self._ring(self.now())
            if at is not None:
                self.set(at)

    def _wait(self) -> bool:
        """Sleeps until it is time; False: the end."""
        with self._lock:
            while not self._closed:
                left = None if self._at is None else self._at - self.now()
                if left is not None and left <= 0:
                    self._at = None
                    return True
                self._changed.wait(None if left is None else left / SECOND)
            return False

    def close(self) -> None:
        """Ends the thread."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
