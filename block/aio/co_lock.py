# SPDX-License-Identifier: GPL-2.0-only
"""Locks and queues for coroutines (qemu-coroutine-lock.c): waiting means to yield.

R1  They are used within one context; threads do not share them. (QEMU's CoMutex of 2017 may be
    shared by several contexts. Here only what a thread lock protects is.)
R2  All are fair: first come, first served. A lock is handed over to the next in line, who
    holds it from that moment on, although it runs only later.
R3  Only the coroutine that holds a lock lets it go.
R4  One that is thrown away, because nobody will ever wake it, lets nothing go: Python does that in
    whatever thread and moment it likes, and what the lock guards is in the middle of something.
"""

from __future__ import annotations

from block.aio.coroutine import NOTHING_TO_WAIT_FOR, Coroutine, co_yield, current
from block.lean import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def _self() -> Coroutine:
    co = current()
    assert co is not None, "only a coroutine can wait here"
    return co


class CoMutex:
    """A mutex (CoMutex); use `async with`."""

    __slots__ = ("_waiters", "holder")

    def __init__(self) -> None:
        self.holder: Coroutine | None = None
        self._waiters: deque[Coroutine] = deque()

    @property
    def locked(self) -> bool:
        """Whether a coroutine holds it."""
        return self.holder is not None

    def lock(self) -> Awaitable[None]:
        """Takes it, waiting for its turn (qemu_co_mutex_lock); to be awaited at once."""
        me = _self()
        if self.holder is None:
            self.holder = me
            return NOTHING_TO_WAIT_FOR
        assert self.holder is not me, "CoMutex is not recursive"
        self._waiters.append(me)
        return co_yield()

    def unlock(self) -> None:
        """Hands it to the next in line (qemu_co_mutex_unlock)."""
        holder = self.holder
        assert holder is not None, "R3: nobody holds it"
        assert holder.entered, "R3: unlock by a stranger"
        if self._waiters:
            self.holder = self._waiters.popleft()
            self.holder.wake()
        else:
            self.holder = None

    def __aenter__(self) -> Awaitable[None]:
        return self.lock()

    def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> Awaitable[None]:
        if kind is not GeneratorExit:  # R4
            self.unlock()
        return NOTHING_TO_WAIT_FOR


class CoQueue:
    """Coroutines that wait for something to happen (CoQueue): a condition variable."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: deque[Coroutine] = deque()

    def __len__(self) -> int:
        return len(self._waiters)

    @property
    def empty(self) -> bool:
        """Whether nobody waits (qemu_co_queue_empty)."""
        return not self._waiters

    async def wait(self, lock: CoMutex | None = None) -> None:
        """Waits until woken; lets `lock` go meanwhile (qemu_co_queue_wait)."""
        self._waiters.append(_self())
        if lock is not None:
            lock.unlock()
        await co_yield()
        if lock is not None:
            await lock.lock()

    def next(self) -> bool:
        """Wakes who has waited longest; False if nobody waits (qemu_co_queue_next).

        Outside of coroutines it runs at once (qemu_co_enter_next).
        """
        if not self._waiters:
            return False
        self._waiters.popleft().wake()
        return True

    def restart_all(self) -> None:
        """Wakes all that wait now (qemu_co_queue_restart_all)."""
        waiters, self._waiters = self._waiters, deque()
        for co in waiters:
            co.wake()


class CoRwLock:
    """A lock for many readers or one writer (CoRwlock), in order of arrival.

    As QEMU has it since 2021: one line of tickets for both kinds. Readers next to each other in
    the line go in together.
    """

    __slots__ = ("_line", "_owners")

    def __init__(self) -> None:
        self._owners = 0  # number of readers, or -1 for a writer
        self._line: deque[tuple[bool, Coroutine]] = deque()  # (is a reader, who)

    async def rdlock(self) -> None:
        """Goes in as a reader (qemu_co_rwlock_rdlock)."""
        if self._owners == 0 or (self._owners > 0 and not self._line):
            self._owners += 1
            return
        await self._stand_in_line(reader=True)

    async def wrlock(self) -> None:
        """Goes in as the writer (qemu_co_rwlock_wrlock)."""
        if self._owners == 0:
            self._owners = -1
            return
        await self._stand_in_line(reader=False)

    def unlock(self) -> None:
        """Goes out (qemu_co_rwlock_unlock)."""
        assert self._owners != 0, "unlock of a CoRwLock that nobody holds"
        self._owners = 0 if self._owners < 0 else self._owners - 1
        self._let_in()

    def downgrade(self) -> None:
        """The writer becomes a reader and lets others in (qemu_co_rwlock_downgrade)."""
        assert self._owners == -1, "downgrade by somebody who is not the writer"
        self._owners = 1
        self._let_in()

    async def upgrade(self) -> None:
        """A reader becomes the writer; others may write in between (qemu_co_rwlock_upgrade)."""
        assert self._owners > 0, "upgrade by somebody who is not a reader"
        if self._owners == 1 and not self._line:
            self._owners = -1
            return
        self._line.append((False, _self()))
        self._owners -= 1
        self._let_in()
        await co_yield()

    async def _stand_in_line(self, *, reader: bool) -> None:
        self._line.append((reader, _self()))
        await co_yield()

    def _let_in(self) -> None:
        """Lets in whoever is first in line and fits; ownership passes before they run."""
        while self._line:
            reader, co = self._line[0]
            if self._owners != 0 and not (reader and self._owners > 0):
                return
            self._line.popleft()
            self._owners = self._owners + 1 if reader else -1
            co.wake()

    def reading(self) -> _Section:
        """Returns `async with` for a reader."""
        return _Section(self, self.rdlock)

    def writing(self) -> _Section:
        """Returns `async with` for the writer."""
        return _Section(self, self.wrlock)


class _Section:
    """`async with` around a CoRwLock."""

    __slots__ = ("_lock", "_take")

    def __init__(self, lock: CoRwLock, take: Callable[[], Awaitable[None]]) -> None:
        self._lock = lock
        self._take = take

    async def __aenter__(self) -> None:
        await self._take()

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is not GeneratorExit:  # R4
            self._lock.unlock()


def _demo() -> None:
    from block.aio.context import AioContext
    from block.aio.demo import Timeline

    say = Timeline()
    ctx = AioContext("demo")
    mutex = CoMutex()

    async def worker(name: str) -> None:
        say(f"{name} wants the mutex")
        async with mutex:
            say(f"{name} has it, and waits for something")
            await co_yield()
        say(f"{name} let it go")

    workers = [Coroutine(worker(name), ctx=ctx) for name in ("first", "second", "third")]
    for co in workers:
        co.enter()
    for co in workers:
        co.wake()
    ctx.close()


if __name__ == "__main__":
    _demo()
