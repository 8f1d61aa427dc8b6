# SPDX-License-Identifier: GPL-2.0-only
"""Who may touch a context: the thread that is at home there (rule 5 of the design).

One thread at a time is at home in a context: the one that holds its lock; while nobody does, the
one that made it. An IOThread's context is always held by its thread. Where several threads are at
home by turns, each acquires it for its turn.

R1  All methods of a context are for the thread at home, but for the few doors that rule 5 names.
    An assertion says so, with the names of both contexts.

State that several threads write: `_home` and `_awake`, under the context's lock. Only a thread
itself writes its own identity there, or the lock's last holder the maker's, so "it is me" is
never stale.
"""

from __future__ import annotations

from block.aio.errors import UsedAfterFree
from block.aio.lock import RFifoLock
from block.aio.world import World

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    Self = TypeVar("Self", bound="Home")


class Home:
    """What a context knows of its threads.

    _awake  who need not be woken by itself: the thread at home, unless a foreign loop sleeps for it
    """

    __slots__ = ("_awake", "_current", "_home", "_maker", "_notify_me", "closed", "lock", "name",
                 "world")  # fmt: skip

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world
        self.closed = False
        self._current = world.current
        self._maker = self._home = self._awake = world.current()
        self._notify_me = 0  # see wakeup.py
        self.lock = RFifoLock(self.notify, world)

    def notify(self) -> None:
        """Somebody waits for the lock: its holder may be asleep."""
        raise NotImplementedError

    def acquire(self) -> None:
        """Makes the calling thread at home here, waiting for its turn (aio_context_acquire)."""
        if self.lock.lock():
            self._home = me = self._current()
            self._awake = 0 if self._notify_me & 1 else me

    def release(self) -> None:
        """Ends one acquire (aio_context_release)."""
        if self.lock.nesting == 1 and not self.closed:
            me = self._current()
            assert me == self._home, self.stranger()
            self._home = self._maker
            self._awake = me if me == self._maker and not self._notify_me & 1 else 0
        self.lock.unlock()

    def __enter__(self: Self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def disown(self) -> None:
        """Its maker is no longer at home here unless it holds the lock (for IOThread)."""
        assert self._current() == self._home, self.stranger()
        self._maker = 0
        if not self.lock.nesting:
            self._home = self._awake = 0

    def is_home(self) -> bool:
        """Whether the running thread may use this context (rule 5)."""
        return self._current() == self._home

    @property
    def maker(self) -> int:
        """The thread that is at home while nobody holds the lock; 0 for none."""
        return self._maker

    def stranger(self) -> str:
        """Returns what an assertion of rule 5 says: both contexts, and what to do."""
        from block.aio.iothread import current_context

        if self.closed:
            raise UsedAfterFree(f"context {self.name} is closed")
        mine = current_context(self.world)
        return (
            f"rule 5: a thread of context {mine.name!r} uses context {self.name!r}, where it is "
            f"not at home: acquire it, or schedule a bottom half there"
        )
