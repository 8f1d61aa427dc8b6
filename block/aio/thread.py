# SPDX-License-Identifier: GPL-2.0-only
"""The real World's threads and condition variables (util/qemu-thread-posix.c).

R1  A thread does not keep the process alive. One that shall end before is told so and joined.
R2  `wait`, `notify` and `notify_all` are called with the condition's lock held.

Discussion: Python's `threading` does the same and more, and importing it takes a tenth of a
start. What is below it, `_thread`, is part of the interpreter. Other libraries may import
`threading` later; they should do so in the main thread, which it takes for the main one.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread

from block.lean import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.aio.world import Lock


class RealThread:
    """A thread that runs `target` from now on (qemu_thread_create)."""

    __slots__ = ("_alive", "_target", "name")

    def __init__(self, name: str, target: Callable[[], None]) -> None:
        self.name = name
        self._target = target
        self._alive = allocate_lock()
        self._alive.acquire()
        start_new_thread(self._run, ())

    def _run(self) -> None:
        try:
            self._target()
        except Exception as error:
            report(error)
        finally:
            self._alive.release()

    def join(self) -> None:
        """Waits until it has ended (qemu_thread_join)."""
        with self._alive:
            pass


class RealCondition:
    """A condition variable that goes with a lock (QemuCond)."""

    __slots__ = ("_lock", "_waiters")

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._waiters: deque[Lock] = deque()  # a closed gate for each who waits

    def wait(self, timeout: float | None = None) -> bool:
        """Gives the lock away until somebody notifies; False: the seconds are over first."""
        gate = allocate_lock()
        gate.acquire()
        self._waiters.append(gate)
        self._lock.release()
        try:
            return gate.acquire(True, -1 if timeout is None else timeout)
        finally:
            self._lock.acquire()
            if gate in self._waiters:
                self._waiters.remove(gate)

    def notify(self, n: int = 1) -> None:
        """Wakes those that have waited longest (qemu_cond_signal)."""
        while self._waiters and n > 0:
            self._waiters.popleft().release()
            n -= 1

    def notify_all(self) -> None:
        """Wakes everybody that waits now (qemu_cond_broadcast)."""
        self.notify(len(self._waiters))


def report(error: BaseException) -> None:
    """Tells of an error that nobody in the thread has dealt with, as Python does."""
    import threading

    threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, None)))
