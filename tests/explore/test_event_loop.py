# SPDX-License-Identifier: GPL-2.0-only
"""The event loop's promises, in every order of its threads' lines; most with three preemptions.

Those that begin more than 4,000 orders are marked `full`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from block.aio.context import AioContext
from block.aio.coroutine import Coroutine, co_yield
from block.aio.iothread import IOThread
from block.aio.world import ClockType
from block.testing.world import DeterministicWorld
from tests.support.exploring import must_hold, work_for_an_idle_worker

SECOND = 1_000_000_000


@contextmanager
def in_an_iothread(world: DeterministicWorld, id: str = "io0") -> Iterator[AioContext]:
    """The context of an IOThread, which starts and ends in one order: others look at that."""
    with world.in_one_order():
        iothread = IOThread(id, world)
    yield iothread.ctx
    with world.in_one_order():
        iothread.close()


@pytest.mark.full
def test_a_bottom_half_from_another_thread_runs_once_for_all_that_was_written_before() -> None:
    def scenario(world: DeterministicWorld) -> None:
        written: list[int] = []
        seen: list[int] = []
        with IOThread("io0", world) as iothread:
            with iothread.ctx as ctx:
                bh = ctx.bh_new(lambda: seen.append(len(written)))
            written.append(1)
            bh.schedule()
            written.append(2)
            bh.schedule()
        assert seen, "a bottom half was lost"
        assert seen[-1] == 2, "it ran before what was written, and not again"

    must_hold(scenario, preemptions=3)


def test_two_threads_that_schedule_the_same_bottom_half_lose_nothing() -> None:
    def scenario(world: DeterministicWorld) -> None:
        wanted: list[int] = []
        served: list[int] = []

        def serve() -> None:
            served.extend(wanted[len(served) :])

        with in_an_iothread(world) as ctx:
            with world.in_one_order(), ctx:
                bh = ctx.bh_new(serve)

            def ask(number: int) -> Callable[[], None]:
                def run() -> None:
                    wanted.append(number)
                    bh.schedule()

                return run

            other = world.start_thread("other", ask(1))
            ask(2)()
            other.join()
        assert sorted(served) == [1, 2]

    must_hold(scenario, preemptions=3)


def test_a_bottom_half_that_is_cancelled_or_deleted_at_home_does_not_run_afterwards() -> None:
    def scenario(world: DeterministicWorld) -> None:
        gone: list[str] = []
        with in_an_iothread(world) as ctx:

            def run(name: str) -> Callable[[], None]:
                def callback() -> None:
                    assert name not in gone, f"{name} ran after it was gone"

                return callback

            with world.in_one_order(), ctx:
                cancelled, deleted = ctx.bh_new(run("cancelled")), ctx.bh_new(run("deleted"))
            cancelled.schedule()
            deleted.schedule()
            with ctx:
                cancelled.cancel()
                deleted.delete()
                gone += ["cancelled", "deleted"]

    must_hold(scenario, preemptions=3)


def test_a_notify_ends_the_sleep_that_it_comes_before_or_in() -> None:
    """R2 of wakeup.py: no order of notify and sleep makes the loop sleep for ever."""

    def scenario(world: DeterministicWorld) -> None:
        ctx = AioContext("main", world)
        thread = world.start_thread("notifier", ctx.notify)
        ctx.poll(True)
        thread.join()
        ctx.close()

    must_hold(scenario, preemptions=3)


def test_work_comes_while_the_loop_is_in_the_middle_of_a_pass() -> None:
    def scenario(world: DeterministicWorld) -> None:
        ctx = AioContext("main", world)
        done: list[str] = []

        def bring() -> None:
            ctx.bh_schedule_oneshot(lambda: done.append("first"))
            ctx.bh_schedule_oneshot(lambda: done.append("second"))

        thread = world.start_thread("bringer", bring)
        while len(done) < 2:
            ctx.poll(True)
        thread.join()
        ctx.close()
        assert done == ["first", "second"]

    must_hold(scenario, preemptions=3)


def test_a_loop_in_a_foreign_loop_is_woken_like_any_other() -> None:
    def scenario(world: DeterministicWorld) -> None:
        ctx = AioContext("embedded", world)
        done: list[int] = []
        thread = world.start_thread(
            "other", lambda: ctx.bh_schedule_oneshot(lambda: done.append(1))
        )
        while not done:
            timeout_ns = ctx.prepare()
            poller = world.new_poller()
            for fd, events in ctx.fds.poller.watched().items():
                poller.update(fd, events)
            poller.wait(timeout_ns)
            poller.close()
            ctx.dispatch()
        thread.join()
        ctx.close()

    must_hold(scenario, preemptions=3)


@pytest.mark.full
def test_whoever_acquires_a_context_is_alone_in_it_and_gets_it_in_the_end() -> None:
    """With two preemptions: three are 30,000 orders, a quarter of what all take together."""

    def scenario(world: DeterministicWorld) -> None:
        inside: list[str] = []

        def visit(name: str) -> None:
            with ctx:
                inside.append(name)
                assert inside == [name], "two threads are at home in one context"
                inside.clear()

        def check() -> None:
            assert not inside, "the IOThread runs beside a visitor"

        with in_an_iothread(world) as ctx:
            ctx.bh_schedule_oneshot(check)
            other = world.start_thread("other", lambda: visit("other"))
            visit("main")
            other.join()

    must_hold(scenario)


@pytest.mark.full
def test_an_iothread_lets_a_visitor_in_as_often_as_it_comes() -> None:
    def scenario(world: DeterministicWorld) -> None:
        with IOThread("io0", world) as iothread:
            with iothread.ctx as ctx:
                assert ctx.is_home()
            iothread.ctx.bh_schedule_oneshot(lambda: None)
            with iothread.ctx as ctx:
                assert ctx.is_home()

    must_hold(scenario, preemptions=3)


@pytest.mark.full
def test_a_coroutine_that_another_thread_wakes_goes_on_once_and_at_home() -> None:
    def scenario(world: DeterministicWorld) -> None:
        threads: list[int] = []

        async def work() -> None:
            await co_yield()
            threads.append(world.current())

        with IOThread("io0", world) as iothread:
            with iothread.ctx as ctx:
                co = Coroutine(work(), ctx=ctx)
                co.enter()
            co.wake()
        assert threads == [2], "it must run once, in the IOThread"

    must_hold(scenario, preemptions=3)


@pytest.mark.full
def test_a_coroutine_is_scheduled_from_outside_into_a_sleeping_loop() -> None:
    def scenario(world: DeterministicWorld) -> None:
        done: list[int] = []

        async def work() -> None:
            done.append(world.current())

        with IOThread("io0", world) as iothread:
            iothread.ctx.co_schedule(Coroutine(work()))
        assert done == [2]

    must_hold(scenario, preemptions=3)


def test_timers_that_arm_themselves_again_go_on_beside_work_from_outside() -> None:
    def scenario(world: DeterministicWorld) -> None:
        ctx = AioContext("main", world)
        start = ctx.clock_ns(ClockType.VIRTUAL)
        fired: list[int] = []
        done: list[int] = []

        def tick() -> None:
            fired.append((ctx.clock_ns(ClockType.VIRTUAL) - start) // SECOND)
            if len(fired) < 3:
                timer.mod(start + (len(fired) + 1) * SECOND)

        timer = ctx.timer_new(ClockType.VIRTUAL, tick)
        timer.mod(start + SECOND)
        thread = world.start_thread(
            "other", lambda: ctx.bh_schedule_oneshot(lambda: done.append(1))
        )
        while len(fired) < 3:
            ctx.poll(True)
        thread.join()
        timer.delete()
        while ctx.poll(False):
            pass
        ctx.close()
        assert fired == [1, 2, 3]
        assert done == [1]

    must_hold(scenario, preemptions=3)


@pytest.mark.full
def test_each_piece_of_work_in_the_thread_pool_is_completed_once() -> None:
    def scenario(world: DeterministicWorld) -> None:
        ctx = AioContext("main", world)
        rets: list[int] = []
        for number in (1, 2):
            ctx.thread_pool.submit_aio(lambda number=number: number, rets.append)  # type: ignore[misc]  # a lambda's default
        assert not rets, "a callback came before its submit returned"
        while len(rets) < 2:
            ctx.poll(True)
        ctx.close()
        assert sorted(rets) == [1, 2]

    must_hold(scenario, preemptions=3)


@pytest.mark.full
def test_work_that_is_cancelled_is_either_done_or_not_but_completed_once() -> None:
    def scenario(world: DeterministicWorld) -> None:
        ctx = AioContext("main", world)
        ctx.thread_pool.max_threads = 1
        done: list[int] = []
        rets: list[int] = []
        ctx.thread_pool.submit_aio(lambda: 0, lambda ret: None)
        request = ctx.thread_pool.submit_aio(lambda: done.append(1) or 7, rets.append)
        request.cancel()
        while not rets:
            ctx.poll(True)
        while ctx.thread_pool._in_flight:
            ctx.poll(True)
        ctx.close()
        assert rets == ([7] if done else [-errno.ECANCELED])

    must_hold(scenario, preemptions=3)


def test_work_that_comes_just_as_a_workers_time_is_up_is_done_once() -> None:
    must_hold(work_for_an_idle_worker, preemptions=3, early_timeouts=True)


def test_an_iothread_ends_in_whatever_moment_it_is_told_to() -> None:
    def scenario(world: DeterministicWorld) -> None:
        with IOThread("io0", world) as iothread:
            iothread.stop()
            iothread.stop()
        assert not world.iothreads
        assert not world.contexts

    must_hold(scenario, preemptions=3)


def test_two_iothreads_schedule_into_each_other() -> None:
    def scenario(world: DeterministicWorld) -> None:
        rallies: list[str] = []
        with in_an_iothread(world, "a") as a, in_an_iothread(world, "b") as b:

            def back() -> None:
                rallies.append("b")
                a.bh_schedule_oneshot(lambda: rallies.append("a"))

            a.bh_schedule_oneshot(lambda: b.bh_schedule_oneshot(back))
            ctx = AioContext("main", world)
            while len(rallies) < 2:
                timer = ctx.timer_new(ClockType.REALTIME, lambda: None)
                timer.mod(world.now_ns() + SECOND)
                ctx.poll(True)
                timer.delete()
            ctx.close()
        assert rallies == ["b", "a"]

    must_hold(scenario, preemptions=3)
