# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's tests/test-aio.c, the cases /aio-gsource/..., with the context embedded in asyncio.

`iteration(may_block)` stands for g_main_context_iteration: one pass of the foreign loop; True if
it dispatched the context.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from block.aio.context import AioContext
from block.aio.embed import EmbeddedContext
from block.aio.world import ClockType, World
from tests.block.aio.test_aio import MS, BHData, NotifierData, TimerData, a_silent_pipe
from tests.support.virtual_world import VirtualWorld

Iteration = Callable[[bool], bool]


class Foreign:
    """An asyncio loop with a context in it."""

    def __init__(self, ctx: AioContext) -> None:
        self.loop = asyncio.new_event_loop()
        self.embedded = EmbeddedContext(ctx, self.loop)
        self.errors: list[object] = []
        self.loop.set_exception_handler(lambda loop, what: self.errors.append(what))

    def iteration(self, may_block: bool) -> bool:
        before = self.embedded.n_dispatched
        while True:
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
            if self.embedded.n_dispatched > before or not may_block:
                return self.embedded.n_dispatched > before

    def close(self) -> None:
        self.embedded.close()
        self.loop.close()
        assert not self.errors


@pytest.fixture
def iteration(ctx: AioContext) -> Iterator[Iteration]:
    foreign = Foreign(ctx)
    yield foreign.iteration
    foreign.close()


@pytest.fixture
def virtual_iteration(virtual_ctx: AioContext) -> Iterator[Iteration]:
    foreign = Foreign(virtual_ctx)
    yield foreign.iteration
    foreign.close()


def settle(iteration: Iteration) -> None:
    while iteration(False):
        pass


def test_source_notify(ctx: AioContext, iteration: Iteration) -> None:
    settle(iteration)
    ctx.notify()
    assert iteration(True)
    assert not iteration(False)


def test_source_flush(ctx: AioContext, iteration: Iteration) -> None:
    assert not iteration(False)
    ctx.notify()
    settle(iteration)
    assert not iteration(False)


def test_source_bh_schedule(ctx: AioContext, iteration: Iteration) -> None:
    data = BHData(ctx)
    assert data.bh is not None
    data.bh.schedule()
    assert data.n == 0
    assert iteration(True)
    assert data.n == 1
    assert not iteration(False)
    assert data.n == 1
    data.bh.delete()


def test_source_bh_schedule10(ctx: AioContext, iteration: Iteration) -> None:
    data = BHData(ctx, max=10)
    assert data.bh is not None
    data.bh.schedule()
    assert data.n == 0
    assert iteration(False)
    assert data.n == 1
    assert iteration(True)
    assert data.n == 2
    settle(iteration)
    assert data.n == 10
    assert not iteration(False)
    assert data.n == 10
    data.bh.delete()


def test_source_bh_cancel(ctx: AioContext, iteration: Iteration) -> None:
    data = BHData(ctx)
    assert data.bh is not None
    data.bh.schedule()
    data.bh.cancel()
    assert data.n == 0
    settle(iteration)
    assert data.n == 0
    data.bh.delete()


def test_source_bh_delete(ctx: AioContext, iteration: Iteration) -> None:
    data = BHData(ctx)
    assert data.bh is not None
    data.bh.schedule()
    data.bh.delete()
    assert data.n == 0
    settle(iteration)
    assert data.n == 0


def test_source_bh_delete_from_cb(ctx: AioContext, iteration: Iteration) -> None:
    data = BHData(ctx, max=1, delete=True)
    assert data.bh is not None
    data.bh.schedule()
    assert data.n == 0
    iteration(True)
    assert data.n == data.max
    assert data.bh is None
    assert not iteration(False)


def test_source_bh_delete_from_cb_many(ctx: AioContext, iteration: Iteration) -> None:
    datas = [BHData(ctx, max=n, delete=True) for n in (1, 3, 2, 4)]
    for data in datas:
        assert data.bh is not None
        data.bh.schedule()
    assert [data.n for data in datas] == [0, 0, 0, 0]
    assert iteration(False)
    assert [data.n for data in datas] == [1, 1, 1, 1]
    assert datas[0].bh is None
    settle(iteration)
    assert [data.n for data in datas] == [1, 3, 2, 4]
    assert [data.bh for data in datas] == [None] * 4


def test_source_bh_flush(ctx: AioContext, iteration: Iteration) -> None:
    data = BHData(ctx)
    assert data.bh is not None
    data.bh.schedule()
    assert data.n == 0
    assert iteration(True)
    assert data.n == 1
    assert not iteration(False)
    assert data.n == 1
    data.bh.delete()


def test_source_set_event_notifier(ctx: AioContext, iteration: Iteration) -> None:
    data = NotifierData(ctx)
    settle(iteration)
    assert data.n == 0
    data.remove()
    settle(iteration)
    assert data.n == 0
    data.e.close()


def test_source_wait_event_notifier(ctx: AioContext, iteration: Iteration) -> None:
    data = NotifierData(ctx, active=1)
    assert iteration(False)
    assert (data.n, data.active) == (0, 1)
    data.e.set()
    assert iteration(False)
    assert (data.n, data.active) == (1, 0)
    settle(iteration)
    assert (data.n, data.active) == (1, 0)
    data.remove()
    settle(iteration)
    assert data.n == 1
    data.e.close()


def test_source_flush_event_notifier(ctx: AioContext, iteration: Iteration) -> None:
    data = NotifierData(ctx, active=10, auto_set=True)
    assert iteration(False)
    assert (data.n, data.active) == (0, 10)
    data.e.set()
    assert iteration(False)
    assert (data.n, data.active) == (1, 9)
    assert iteration(False)
    settle(iteration)
    assert (data.n, data.active) == (10, 0)
    assert not iteration(False)
    data.remove()
    settle(iteration)
    data.e.close()


def test_source_wait_event_notifier_noflush(ctx: AioContext, iteration: Iteration) -> None:
    data = NotifierData(ctx)
    settle(iteration)
    assert data.n == 0
    data.e.set()
    iteration(True)
    data.n = 0

    dummy = NotifierData(ctx, active=1)
    settle(iteration)
    for n in (1, 2):
        data.e.set()
        assert iteration(False)
        assert data.n == n
        assert not iteration(False)
        assert data.n == n

    dummy.e.set()
    settle(iteration)
    assert (data.n, dummy.n, dummy.active) == (2, 1, 0)
    dummy.remove()
    dummy.e.close()
    data.remove()
    settle(iteration)
    assert data.n == 2
    data.e.close()


def test_source_timer_schedule(
    virtual_ctx: AioContext, virtual_world: VirtualWorld, virtual_iteration: Iteration
) -> None:
    ctx, iteration = virtual_ctx, virtual_iteration
    data = TimerData(ctx, ns=750 * MS, max=2, clock=ClockType.VIRTUAL)
    with a_silent_pipe(ctx):
        settle(iteration)
        data.arm()
        settle(iteration)
        assert data.n == 0

        for n in (1, 2):
            virtual_world.advance(1000 * MS)
            ctx.notify()  # who moves a clock has to say so
            assert iteration(True)
            assert data.n == n
            settle(iteration)
            assert data.n == n
    data.timer.delete()


def test_a_timer_ends_the_sleep_of_the_foreign_loop(ctx: AioContext, iteration: Iteration) -> None:
    data = TimerData(ctx, ns=MS, max=1, clock=ClockType.REALTIME)
    data.arm()
    while not data.n:
        assert iteration(True)
    data.timer.delete()


def test_asyncio_awaits_one_of_our_coroutines(ctx: AioContext) -> None:
    async def work() -> int:
        return await ctx.thread_pool.submit_co(lambda: 42)

    async def main() -> int:
        with EmbeddedContext(ctx) as embedded:
            return await embedded.run(work())

    assert asyncio.run(main()) == 42


def test_an_error_of_our_coroutine_reaches_asyncio(ctx: AioContext) -> None:
    async def work() -> int:
        raise OSError(28, "no space")

    async def main() -> None:
        with EmbeddedContext(ctx) as embedded, pytest.raises(OSError, match="no space"):
            await embedded.run(work())

    asyncio.run(main())


def test_a_callbacks_error_goes_to_asyncio_and_the_rest_still_runs(world: World) -> None:
    ctx = AioContext("tested", world)
    foreign = Foreign(ctx)
    ran: list[int] = []
    ctx.bh_schedule_oneshot(lambda: ran.append(1 // 0))
    ctx.bh_schedule_oneshot(lambda: ran.append(2))
    settle(foreign.iteration)
    assert ran == [2]
    assert len(foreign.errors) == 1
    foreign.errors.clear()
    foreign.close()
    ctx.close()


def test_after_close_the_context_can_be_polled_as_before(ctx: AioContext) -> None:
    foreign = Foreign(ctx)
    foreign.close()
    assert ctx._awake == ctx._home
    data = BHData(ctx)
    assert data.bh is not None
    data.bh.schedule()
    assert ctx.poll(True)
    assert data.n == 1
    data.bh.delete()
