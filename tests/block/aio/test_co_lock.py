# SPDX-License-Identifier: GPL-2.0-only
"""CoMutex, CoQueue and CoRwLock: QEMU's cases of test-coroutine.c under their names, and more."""

from __future__ import annotations

import pytest

from block.aio.co_lock import CoMutex, CoQueue, CoRwLock
from block.aio.context import AioContext
from block.aio.coroutine import Coroutine, co_yield


class Started:
    """Starts coroutines in a context."""

    def __init__(self, ctx: AioContext) -> None:
        self.ctx = ctx

    def __call__(self, co: object) -> Coroutine:
        coroutine = Coroutine(co, ctx=self.ctx)  # type: ignore[arg-type]  # an async def's
        coroutine.enter()
        return coroutine


@pytest.fixture
def start(ctx: AioContext) -> Started:
    return Started(ctx)


def test_co_mutex(start: Started) -> None:
    mutex = CoMutex()
    inside: list[int] = []
    done: list[int] = []

    async def mutex_fn(number: int) -> None:
        async with mutex:
            assert not inside
            inside.append(number)
            await co_yield()
            inside.clear()
        done.append(number)

    c1 = start(mutex_fn(1))
    assert inside == [1]
    c2 = start(mutex_fn(2))
    assert inside == [1]
    c1.enter()  # unlocks; c2 runs when c1 ends
    assert done == [1]
    assert inside == [2]
    c2.enter()
    assert done == [1, 2]
    assert not mutex.locked


def test_a_mutex_is_handed_over_in_the_order_of_arrival(start: Started) -> None:
    mutex = CoMutex()
    order: list[int] = []

    async def work(number: int) -> None:
        async with mutex:
            order.append(number)
            await co_yield()

    cos = [start(work(number)) for number in range(4)]
    for co in cos:
        co.enter()
    assert order == [0, 1, 2, 3]


def test_nobody_slips_in_between_unlock_and_the_next_in_line(start: Started) -> None:
    mutex = CoMutex()
    order: list[str] = []

    async def holder() -> None:
        await mutex.lock()
        await co_yield()
        mutex.unlock()
        await mutex.lock()
        order.append("holder again")
        mutex.unlock()

    async def waiter() -> None:
        async with mutex:
            order.append("waiter")

    first = start(holder())
    start(waiter())
    first.enter()
    assert order == ["waiter", "holder again"]


def test_a_mutex_is_not_recursive(start: Started) -> None:
    mutex = CoMutex()

    async def twice() -> None:
        async with mutex:
            await mutex.lock()

    with pytest.raises(AssertionError, match="not recursive"):
        start(twice())


def test_only_the_holder_unlocks_a_mutex(start: Started) -> None:
    mutex = CoMutex()

    async def take() -> None:
        await mutex.lock()
        await co_yield()

    async def steal() -> None:
        mutex.unlock()

    start(take())
    with pytest.raises(AssertionError, match="stranger"):
        start(steal())


@pytest.mark.parametrize("kind", ["mutex", "reader", "writer"])
def test_a_coroutine_that_is_thrown_away_lets_nobody_in(start: Started, kind: str) -> None:
    """Python does that in any thread, whenever it collects what nobody can wake any more."""
    mutex, rwlock = CoMutex(), CoRwLock()
    inside: list[str] = []

    async def take(name: str) -> None:
        async with {"mutex": mutex, "reader": rwlock.reading(), "writer": rwlock.writing()}[kind]:
            inside.append(name)
            await co_yield()

    async def wait() -> None:
        async with mutex if kind == "mutex" else rwlock.writing():
            inside.append("the next")

    holder = start(take("the first"))
    start(wait())
    holder._co.close()
    assert inside == ["the first"]


def test_a_queue_wakes_one_or_all(start: Started) -> None:
    queue = CoQueue()
    woken: list[int] = []

    async def wait(number: int) -> None:
        await queue.wait()
        woken.append(number)

    for number in range(4):
        start(wait(number))
    assert len(queue) == 4
    assert queue.next()
    assert woken == [0]
    queue.restart_all()
    assert woken == [0, 1, 2, 3]
    assert queue.empty
    assert not queue.next()


def test_a_queue_lets_the_mutex_go_while_it_waits(start: Started) -> None:
    queue, mutex = CoQueue(), CoMutex()
    order: list[str] = []

    async def consumer() -> None:
        async with mutex:
            order.append("waits")
            await queue.wait(mutex)
            assert mutex.locked
            order.append("goes on")

    async def producer() -> None:
        async with mutex:
            order.append("produces")
            queue.next()

    start(consumer())
    start(producer())
    assert order == ["waits", "produces", "goes on"]
    assert not mutex.locked


def test_who_waits_again_while_all_are_woken_is_not_woken_twice(start: Started) -> None:
    queue = CoQueue()
    n_woken: list[int] = []

    async def wait_for_ever() -> None:
        while True:
            await queue.wait()
            n_woken.append(1)

    start(wait_for_ever())
    queue.restart_all()
    assert len(n_woken) == 1


class Rw:
    """Coroutines that take a CoRwLock, note it, and give it back when entered."""

    def __init__(self, start: Started) -> None:
        self.lock = CoRwLock()
        self.order: list[str] = []
        self.start = start

    async def _read(self, name: str) -> None:
        async with self.lock.reading():
            self.order.append(name)
            await co_yield()

    async def _write(self, name: str) -> None:
        async with self.lock.writing():
            self.order.append(name)
            await co_yield()

    def reader(self, name: str) -> Coroutine:
        return self.start(self._read(name))

    def writer(self, name: str) -> Coroutine:
        return self.start(self._write(name))


def test_readers_go_in_together_a_writer_alone(start: Started) -> None:
    rw = Rw(start)
    readers = [rw.reader("r1"), rw.reader("r2")]
    writer = rw.writer("w")
    assert rw.order == ["r1", "r2"]
    readers[0].enter()
    assert rw.order == ["r1", "r2"]
    readers[1].enter()
    assert rw.order == ["r1", "r2", "w"]
    writer.enter()
    assert writer.done


def test_a_reader_does_not_pass_a_waiting_writer(start: Started) -> None:
    rw = Rw(start)
    first = rw.reader("r1")
    writer = rw.writer("w")
    late = rw.reader("r2")
    assert rw.order == ["r1"]
    first.enter()
    assert rw.order == ["r1", "w"]
    writer.enter()
    assert rw.order == ["r1", "w", "r2"]
    late.enter()
    assert late.done


def test_co_rwlock_upgrade(start: Started) -> None:
    """One that upgrades lets a waiting reader in first, then becomes the writer."""
    rw = Rw(start)

    async def upgrader() -> None:
        await rw.lock.rdlock()
        await co_yield()
        await rw.lock.upgrade()
        rw.order.append("upgraded")
        rw.lock.unlock()

    upgrading = start(upgrader())
    other = rw.reader("r")
    upgrading.enter()
    assert rw.order == ["r"]
    other.enter()
    assert rw.order == ["r", "upgraded"]
    assert upgrading.done


def test_a_lone_reader_upgrades_at_once(start: Started) -> None:
    rw = Rw(start)

    async def upgrader() -> None:
        await rw.lock.rdlock()
        await rw.lock.upgrade()
        rw.order.append("upgraded")
        rw.lock.unlock()

    assert start(upgrader()).done
    assert rw.order == ["upgraded"]


def test_co_rwlock_downgrade(start: Started) -> None:
    """QEMU's case of 2021: a downgrade wakes the readers in line, not the writer behind them."""
    rw = Rw(start)

    async def downgrader() -> None:
        await rw.lock.wrlock()
        await co_yield()
        rw.lock.downgrade()
        rw.order.append("downgraded")
        await co_yield()
        rw.lock.unlock()

    c1 = start(downgrader())
    c2 = rw.reader("r1")
    c3 = rw.writer("w")
    c4 = rw.reader("r2")
    c1.enter()
    assert rw.order == ["downgraded", "r1"]
    c2.enter()
    assert rw.order == ["downgraded", "r1"]
    c1.enter()
    assert rw.order == ["downgraded", "r1", "w"]
    c3.enter()
    assert rw.order == ["downgraded", "r1", "w", "r2"]
    c4.enter()
    assert c4.done


def test_unlock_of_a_free_rwlock_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="nobody holds"):
        CoRwLock().unlock()
