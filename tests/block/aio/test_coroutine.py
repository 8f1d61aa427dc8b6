# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's tests/test-coroutine.c under its names, and the rules of coroutine.py and co_sleep.py."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from block.aio.co_sleep import CoSleep, co_sleep_ns
from block.aio.context import AioContext
from block.aio.coroutine import Coroutine, co_yield, current, in_coroutine
from block.aio.iothread import IOThread, current_context
from block.aio.world import ClockType
from tests.support.virtual_world import VirtualWorld


def test_in_coroutine() -> None:
    async def verify() -> None:
        assert in_coroutine()

    assert not in_coroutine()
    Coroutine(verify()).enter()
    assert not in_coroutine()


def test_self() -> None:
    seen: list[Coroutine | None] = []

    async def verify() -> None:
        seen.append(current())

    co = Coroutine(verify())
    co.enter()
    assert seen == [co]
    assert current() is None


def test_entered() -> None:
    async def step_2(caller: Coroutine) -> None:
        me = current()
        assert me is not None
        for _ in range(2):
            assert caller.entered
            assert me.entered
            await co_yield()

    async def step_1() -> None:
        me = current()
        assert me is not None
        assert me.entered
        child = Coroutine(step_2(me))
        for _ in range(3):
            assert not child.entered
            child.enter()
        assert child.done

    co = Coroutine(step_1())
    assert not co.entered
    co.enter()
    assert co.done


def test_nesting() -> None:
    entered: list[int] = []
    returned: list[int] = []

    async def nest(level: int) -> None:
        entered.append(level)
        if level < 128:
            Coroutine(nest(level + 1)).enter()
        returned.append(level)

    Coroutine(nest(1)).enter()
    assert len(entered) == 128
    assert returned == list(range(128, 0, -1))


def test_yield() -> None:
    done: list[bool] = []

    async def yield_5_times() -> None:
        for _ in range(5):
            await co_yield()
        done.append(True)

    co = Coroutine(yield_5_times())
    n_entered = 0
    while not done:
        co.enter()
        n_entered += 1
    assert n_entered == 5 + 1  # one to return


def test_no_dangling_access() -> None:
    """Who entered a coroutine may be gone when it is entered again."""

    async def c2_fn() -> None:
        await co_yield()

    async def c1_fn() -> None:
        c2.enter()

    c2 = Coroutine(c2_fn())
    c1 = Coroutine(c1_fn())
    c1.enter()
    gone = weakref.ref(c1)
    del c1
    gc.collect()
    assert gone() is None
    c2.enter()
    assert c2.done


def test_lifecycle() -> None:
    done: list[bool] = []

    async def set_and_exit() -> None:
        done.append(True)

    for n in (1, 2):
        Coroutine(set_and_exit()).enter()
        assert len(done) == n


def test_order() -> None:
    records: list[tuple[int, int]] = []

    async def co_order_test() -> None:
        records.append((2, 1))
        assert in_coroutine()
        await co_yield()
        records.append((2, 2))
        assert in_coroutine()

    co = Coroutine(co_order_test())
    records.append((1, 1))
    co.enter()
    records.append((1, 2))
    assert not in_coroutine()
    co.enter()
    records.append((1, 3))
    assert not in_coroutine()
    assert records == [(1, 1), (2, 1), (1, 2), (2, 2), (1, 3)]


def test_a_result_is_kept() -> None:
    async def answer() -> int:
        await co_yield()
        return 42

    co = Coroutine(answer())
    co.enter()
    assert not co.done
    co.enter()
    assert co.done
    assert co.result == 42


def test_an_exception_leaves_the_enter_that_ran_it() -> None:
    async def fail() -> None:
        await co_yield()
        raise OSError(5, "bad")

    co = Coroutine(fail())
    co.enter()
    with pytest.raises(OSError, match="bad"):
        co.enter()
    assert co.done
    assert not in_coroutine()


def test_one_that_runs_cannot_be_entered() -> None:
    async def enter_myself() -> None:
        me = current()
        assert me is not None
        me.enter()

    with pytest.raises(RuntimeError, match=r"enter_myself.* re-entered recursively"):
        Coroutine(enter_myself()).enter()


def test_one_that_has_ended_cannot_be_entered() -> None:
    async def nothing() -> None:
        pass

    co = Coroutine(nothing(), name="short-lived")
    co.enter()
    with pytest.raises(RuntimeError, match=r"short-lived.* has ended"):
        co.enter()


def test_one_that_is_scheduled_cannot_be_entered_or_scheduled(ctx: AioContext) -> None:
    async def nothing() -> None:
        pass

    co = Coroutine(nothing(), ctx=ctx)
    ctx.co_schedule(co)
    with pytest.raises(RuntimeError, match="already scheduled in tested"):
        co.enter()
    with pytest.raises(RuntimeError, match="already scheduled in tested"):
        ctx.co_schedule(co)
    ctx.poll(False)
    assert co.done


def test_wake_outside_of_coroutines_runs_it_at_once(ctx: AioContext) -> None:
    async def once() -> None:
        await co_yield()

    co = Coroutine(once(), ctx=ctx)
    co.enter()
    co.wake()
    assert co.done


def test_wake_in_a_coroutine_runs_it_when_that_one_yields(ctx: AioContext) -> None:
    order: list[str] = []

    async def sleeper() -> None:
        await co_yield()
        order.append("sleeper runs")

    async def waker() -> None:
        sleeping.wake()
        order.append("waker goes on")
        await co_yield()
        order.append("waker ends")

    sleeping = Coroutine(sleeper(), ctx=ctx)
    sleeping.enter()
    waking = Coroutine(waker(), ctx=ctx)
    waking.enter()
    assert order == ["waker goes on", "sleeper runs"]
    waking.wake()
    assert waking.done


def test_those_that_were_woken_run_depth_first(ctx: AioContext) -> None:
    order: list[str] = []

    async def leaf(name: str, *wakes: Coroutine) -> None:
        await co_yield()
        order.append(name)
        for co in wakes:
            co.wake()

    def asleep(name: str, *wakes: Coroutine) -> Coroutine:
        co = Coroutine(leaf(name, *wakes), ctx=ctx)
        co.enter()
        return co

    first = asleep("first", asleep("woken by first"))
    asleep("root", first, asleep("second")).wake()
    assert order == ["root", "first", "woken by first", "second"]


def test_wake_from_another_thread_runs_it_in_its_own(world_thread: IOThread) -> None:
    ran = threading.Event()
    asleep = threading.Event()
    where: list[AioContext] = []

    async def work() -> None:
        asleep.set()
        await co_yield()
        where.append(current_context())
        ran.set()

    co = Coroutine(work(), ctx=world_thread.ctx)
    world_thread.ctx.co_enter(co)
    asleep.wait()
    with world_thread.ctx:  # when we get here it has yielded
        pass
    co.wake()
    ran.wait()
    assert where == [world_thread.ctx]


def test_enter_is_for_the_thread_at_home(world_thread: IOThread) -> None:
    async def nothing() -> None:
        pass

    co = Coroutine(nothing(), ctx=world_thread.ctx)
    with pytest.raises(AssertionError, match=r"'main' uses context 'io0'"):
        co.enter()
    with world_thread.ctx:
        co.enter()


@pytest.fixture
def world_thread() -> object:
    with IOThread("io0") as iothread:
        yield iothread


def test_co_enter_moves_it_to_the_context(ctx: AioContext) -> None:
    async def nothing() -> None:
        pass

    co = Coroutine(nothing())
    ctx.co_enter(co)
    assert co.ctx is ctx
    assert co.done


def test_sleep_takes_the_time_of_the_contexts_world(
    virtual_ctx: AioContext, virtual_world: VirtualWorld
) -> None:
    async def nap() -> int:
        before = virtual_world.clock_ns(ClockType.VIRTUAL)
        await co_sleep_ns(ClockType.VIRTUAL, 3_600_000_000_000)
        return virtual_world.clock_ns(ClockType.VIRTUAL) - before

    co = Coroutine(nap(), ctx=virtual_ctx)
    co.enter()
    while not co.done:
        virtual_ctx.poll(True)
    assert co.result == 3_600_000_000_000
    assert virtual_ctx.registrations() == []


def test_a_sleep_can_be_ended_early(virtual_ctx: AioContext, virtual_world: VirtualWorld) -> None:
    sleep = CoSleep()
    before = virtual_world.clock_ns(ClockType.VIRTUAL)

    async def nap() -> None:
        await sleep.sleep_ns(ClockType.VIRTUAL, 3_600_000_000_000)

    co = Coroutine(nap(), ctx=virtual_ctx)
    co.enter()
    sleep.wake()
    assert co.done
    assert virtual_world.clock_ns(ClockType.VIRTUAL) == before
    assert virtual_ctx.registrations() == []
    sleep.wake()  # nobody sleeps: nothing happens


def test_only_a_coroutine_can_sleep() -> None:
    with pytest.raises(AssertionError, match="only a coroutine"):
        co_sleep_ns(ClockType.REALTIME, 1).send(None)
