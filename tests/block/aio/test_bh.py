# SPDX-License-Identifier: GPL-2.0-only
"""Bottom halves: the rules of bh.py that QEMU's own cases do not reach."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from block.aio.bh import BottomHalf
from block.aio.context import AioContext
from block.aio.errors import UsedAfterFree
from block.aio.iothread import IOThread
from tests.support.virtual_world import VirtualWorld


class Request(BottomHalf):
    """A request that is its own bottom half."""

    __slots__ = ("n",)

    def __init__(self, ctx: AioContext) -> None:
        super().__init__(ctx)
        self.n = 0

    def callback(self) -> None:
        self.n += 1


def test_a_request_can_be_its_own_bottom_half(ctx: AioContext) -> None:
    request = Request(ctx)
    request.schedule()
    assert request.scheduled
    assert ctx.poll(True)
    assert request.n == 1
    assert not request.scheduled


def test_a_request_that_ran_is_held_by_nobody(ctx: AioContext) -> None:
    request = Request(ctx)
    request.schedule()
    gone = weakref.ref(request)
    del request
    assert gone() is not None
    ctx.poll(True)
    assert gone() is None


def test_scheduled_twice_runs_once(ctx: AioContext) -> None:
    request = Request(ctx)
    request.schedule()
    request.schedule()
    ctx.poll(True)
    assert not ctx.poll(False)
    assert request.n == 1


def test_cancelled_and_scheduled_again_runs_once(ctx: AioContext) -> None:
    request = Request(ctx)
    for _ in range(3):
        request.schedule()
        request.cancel()
    request.schedule()
    ctx.poll(True)
    ctx.poll(False)
    assert request.n == 1


def test_bottom_halves_run_in_the_order_of_scheduling(ctx: AioContext) -> None:
    order: list[int] = []
    bhs = [ctx.bh_new(lambda n=n: order.append(n)) for n in range(5)]  # type: ignore[misc]  # a lambda's default
    for n in (3, 1, 4, 0, 2):
        bhs[n].schedule()
    ctx.poll(True)
    assert order == [3, 1, 4, 0, 2]


def test_what_a_callback_schedules_runs_in_the_next_pass(ctx: AioContext) -> None:
    order: list[str] = []

    def first() -> None:
        order.append("first")
        ctx.bh_schedule_oneshot(lambda: order.append("second"))

    ctx.bh_schedule_oneshot(first)
    ctx.poll(True)
    assert order == ["first"]
    ctx.poll(True)
    assert order == ["first", "second"]


def test_one_deleted_by_an_earlier_callback_does_not_run(ctx: AioContext) -> None:
    second = ctx.bh_new(lambda: pytest.fail("deleted, but it ran"))
    ctx.bh_schedule_oneshot(second.delete)
    second.schedule()
    ctx.poll(True)
    assert not ctx.poll(False)


@pytest.mark.parametrize("method", ["schedule", "schedule_idle", "cancel"])
def test_a_deleted_one_is_not_to_be_touched(ctx: AioContext, method: str) -> None:
    ctx.world.audit = True
    bh = ctx.bh_new(lambda: None, owner="disk0")
    bh.delete()
    bh.delete()
    with pytest.raises(UsedAfterFree, match=r"tested.*disk0.*test_bh"):
        getattr(bh, method)()


def test_a_deleted_one_is_held_by_nobody_although_nobody_polls(ctx: AioContext) -> None:
    """a076972a4d: those that were deleted while scheduled leaked with the context."""
    bh = ctx.bh_new(lambda: None)
    gone = weakref.ref(bh)
    bh.schedule()
    bh.delete()
    del bh
    ctx.close()
    assert gone() is None


def test_an_idle_one_is_no_progress(ctx: AioContext) -> None:
    ran: list[int] = []
    bh = ctx.bh_new(lambda: ran.append(1))
    bh.schedule_idle()
    assert not ctx.poll(False)
    assert ran == [1]


def test_an_idle_one_lets_poll_sleep_for_10_ms(
    virtual_ctx: AioContext, virtual_world: VirtualWorld
) -> None:
    ran: list[int] = []
    bh = virtual_ctx.bh_new(lambda: ran.append(1))
    bh.schedule_idle()
    before = dict(virtual_world.now)
    assert not virtual_ctx.poll(True)
    assert ran == [1]
    assert {after - before[clock] for clock, after in virtual_world.now.items()} == {10_000_000}


def test_an_idle_one_can_be_cancelled(ctx: AioContext) -> None:
    bh = ctx.bh_new(lambda: pytest.fail("cancelled, but it ran"))
    bh.schedule_idle()
    bh.cancel()
    ctx.poll(False)


def test_a_nested_poll_runs_what_was_left_and_the_outer_one_ends(ctx: AioContext) -> None:
    order: list[str] = []

    def nested() -> None:
        order.append("nested begins")
        bh.schedule()
        assert ctx.poll(True)
        bh.schedule()
        order.append("nested ends")

    bh = ctx.bh_new(lambda: order.append("bh"))
    ctx.bh_schedule_oneshot(nested)
    ctx.bh_schedule_oneshot(lambda: order.append("left over"))
    ctx.poll(True)
    assert order == ["nested begins", "left over", "bh", "nested ends"]
    ctx.poll(True)
    assert order[4:] == ["bh"]


def test_cancelled_ones_among_those_that_a_nested_poll_takes_over(ctx: AioContext) -> None:
    order: list[str] = []
    cancelled = ctx.bh_new(lambda: order.append("cancelled"))
    late = ctx.bh_new(lambda: order.append("late"))

    def nested() -> None:
        cancelled.cancel()
        ctx.poll(False)
        late.schedule()

    ctx.bh_schedule_oneshot(nested)
    cancelled.schedule()
    ctx.poll(True)
    assert order == []  # `late` is for the next pass
    ctx.poll(True)
    assert order == ["late"]


def test_an_exception_leaves_poll_and_the_others_run_next_time(ctx: AioContext) -> None:
    ran: list[int] = []
    ctx.bh_schedule_oneshot(lambda: ran.append(1))
    ctx.bh_schedule_oneshot(lambda: ran.append(1 // 0))
    ctx.bh_schedule_oneshot(lambda: ran.append(2))
    with pytest.raises(ZeroDivisionError):
        ctx.poll(True)
    assert ran == [1]
    assert ctx.poll(True)
    assert ran == [1, 2]


def test_descriptors_are_looked_at_while_bottom_halves_keep_the_loop_busy(ctx: AioContext) -> None:
    seen: list[int] = []
    n_passes = 0
    notifier = ctx.world.new_notifier()
    ctx.set_event_notifier(notifier, lambda e: seen.append(e.test_and_clear()))
    notifier.set()
    bh = ctx.bh_new(lambda: bh.schedule())
    bh.schedule()
    while not seen:
        ctx.poll(True)
        n_passes += 1
    assert n_passes <= 33
    ctx.set_event_notifier(notifier, None)
    notifier.close()
    bh.delete()


def test_many_threads_schedule_and_nothing_is_lost() -> None:
    """Each schedule of each thread is followed by a run of the callback that sees its write."""
    n_threads, n_each = 4, 500
    written = [0] * n_threads
    seen = [0] * n_threads
    caught_up = threading.Semaphore(0)

    def callback() -> None:
        for number in range(n_threads):
            if seen[number] != written[number]:
                seen[number] = written[number]
                caught_up.release()

    with IOThread("io0") as iothread:
        with iothread.ctx:
            bh = iothread.ctx.bh_new(callback)

        def work(number: int) -> None:
            for n in range(1, n_each + 1):
                written[number] = n
                bh.schedule()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(n_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        while seen != [n_each] * n_threads:
            caught_up.acquire(timeout=10)
    assert seen == written


def test_nothing_refers_to_a_closed_context() -> None:
    ctx = AioContext("short-lived")
    gone = weakref.ref(ctx)
    ctx.bh_new(lambda: None).schedule()
    ctx.poll(True)
    ctx.close()
    del ctx
    gc.collect()
    assert gone() is None
