# SPDX-License-Identifier: GPL-2.0-only
"""The lock of a context: recursive, and first come, first served (util/rfifolock.c).

A ticket lock. Whoever comes takes the next ticket; unlocking calls the next number. An
ordinary lock would not do: an IOThread lets its context go only for an instant between two
polls and would nearly always get it back itself.

R1  The contention callback runs in the thread that has to wait, after its ticket is drawn.
    A context uses it to notify its holder, who may be asleep in poll().
R2  A holder that sees `contended` and unlocks gets the lock again only after the waiter.

State that several threads write: all of it, under `_lock`. `contended` reads it without the
lock; a stale answer is put right by R1.
"""

from __future__ import annotations

from block.aio.world import World, the_world

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class RFifoLock:
    """A recursive FIFO lock (rfifolock_init)."""

    __slots__ = (
        "_condition", "_contention", "_current", "_head", "_lock", "_nesting", "_owner", "_tail",
    )  # fmt: skip

    def __init__(
        self, contention: Callable[[], None] | None = None, world: World | None = None
    ) -> None:
        world = world or the_world()
        self._lock = world.new_lock()
        self._condition = world.new_condition(self._lock)
        self._current = world.current
        self._contention = contention
        self._head = self._tail = 0
        self._nesting = 0
        self._owner = 0

    def lock(self) -> bool:
        """Takes the lock, waiting for its turn (rfifolock_lock). True if it was not ours yet."""
        me = self._current()
        with self._lock:
            if self._nesting and self._owner == me:
                self._nesting += 1
                return False
            ticket = self._tail
            self._tail += 1
            while ticket != self._head:
                self._wait_for_turn()
            self._owner = me
            self._nesting = 1
            return True

    def _wait_for_turn(self) -> None:
        if self._contention is not None:
            self._contention()
        self._condition.wait()

    def unlock(self) -> None:
        """Lets the lock go, as often as it was taken (rfifolock_unlock)."""
        with self._lock:
            assert self._nesting > 0, "unlock of a lock that nobody holds"
            assert self._owner == self._current(), "unlock by a stranger"
            self._nesting -= 1
            if self._nesting == 0:
                self._owner = 0
                self._head += 1
                self._condition.notify_all()

    @property
    def nesting(self) -> int:
        """How often the holder has taken it; meaningful to the holder only."""
        return self._nesting

    @property
    def contended(self) -> bool:
        """Whether somebody waits for the holder (a hint: read without the lock)."""
        return self._tail - self._head > 1

    @property
    def owner(self) -> int:
        """The identity of the holding thread, 0 for nobody."""
        return self._owner


def _demo() -> None:
    import threading

    from block.aio.demo import Timeline

    say = Timeline()
    queued = threading.Semaphore(0)

    def contention() -> None:
        say("has to wait, and says so")
        queued.release()

    demo_lock = RFifoLock(contention)

    def take_it() -> None:
        demo_lock.lock()
        say("its turn")
        demo_lock.unlock()

    demo_lock.lock()
    threads = [threading.Thread(target=take_it, name=f"visitor {n}") for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
        queued.acquire()
    say("unlocks")
    demo_lock.unlock()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    _demo()
