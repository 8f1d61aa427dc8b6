# SPDX-License-Identifier: GPL-2.0-only
"""The deterministic World: threads in an order that is chosen, clocks that jump."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.aio.world import ClockType
from block.testing.choices import Chooser, Replayed, Seeded
from block.testing.failures import (
    Aborted,
    Deadlock,
    Diverged,
    Livelock,
    ThreadDied,
    WorldIsOver,
)
from block.testing.world import DeterministicWorld
from tests.support.descriptors import open_fds

SECOND = 1_000_000_000


@pytest.fixture
def world() -> Iterator[DeterministicWorld]:
    """A world in which nobody loses a turn."""
    yield from closed(DeterministicWorld(Chooser()))


def closed(world: DeterministicWorld) -> Iterator[DeterministicWorld]:
    yield world
    world.close()


def race(world: DeterministicWorld) -> list[str]:
    """Three threads take a lock three times each; returns in which order they had it."""
    lock = world.new_lock()
    order: list[str] = []

    def work(name: str) -> Callable[[], None]:
        def run() -> None:
            for _ in range(3):
                with lock:
                    order.append(name)

        return run

    threads = [world.start_thread(name, work(name)) for name in "abc"]
    for thread in threads:
        thread.join()
    return order


def run(decider: Chooser, scenario: Callable[[DeterministicWorld], list[str]]) -> list[str]:
    world = DeterministicWorld(decider)
    try:
        return scenario(world)
    finally:
        world.close()


def test_a_seed_decides_everything() -> None:
    assert run(Seeded(3), race) == run(Seeded(3), race)


def test_seeds_lead_to_many_orders() -> None:
    assert len({"".join(run(Seeded(seed), race)) for seed in range(30)}) > 10


def test_without_a_seed_each_thread_runs_as_far_as_it_can() -> None:
    assert "".join(run(Chooser(), race)) == "aaabbbccc"


def test_a_recording_gives_the_same_run_without_the_seed() -> None:
    seeded = Seeded(11)
    order = run(seeded, race)
    replayed = Replayed(seeded.made)
    assert run(replayed, race) == order
    assert replayed.made == seeded.made


def test_a_recording_of_something_else_is_noticed() -> None:
    seeded = Seeded(11)
    run(seeded, race)
    wrong = [(n + 1, which) for n, which in seeded.made]
    with pytest.raises(Diverged, match="choice 0 has 2 candidates, and had 3"):
        run(Replayed(wrong), race)


def test_who_waits_for_what_is_told_when_nobody_can_go_on(world: DeterministicWorld) -> None:
    lock = world.new_lock()
    lock.acquire()
    with pytest.raises(Deadlock, match="main waits for a lock of main"):
        lock.acquire()


def test_a_deadlock_of_other_threads_reaches_the_main_one(world: DeterministicWorld) -> None:
    gate = world.new_gate()
    thread = world.start_thread("visitor", gate.wait)
    with pytest.raises(Deadlock, match="main waits for visitor to end; visitor waits for a gate"):
        thread.join()


def test_an_error_in_a_thread_reaches_the_main_one(world: DeterministicWorld) -> None:
    def fall() -> None:
        raise KeyError("lost")

    thread = world.start_thread("worker", fall)
    with pytest.raises(ThreadDied, match="worker: KeyError") as died:
        thread.join()
    assert isinstance(died.value.__cause__, KeyError)


def test_who_goes_round_in_a_circle_is_stopped(world: DeterministicWorld) -> None:
    world.scheduler.most_steps = 1000
    lock = world.new_lock()

    def circle() -> None:
        while True:
            with lock:
                pass

    with pytest.raises(Livelock, match="more than 1000 steps"):
        circle()


def test_who_looks_again_and_again_lets_others_go_on(world: DeterministicWorld) -> None:
    ctx = AioContext("spinning", world)
    came: list[int] = []
    thread = world.start_thread("other", lambda: ctx.bh_schedule_oneshot(lambda: came.append(1)))
    while not came:
        ctx.poll(False)
    thread.join()
    ctx.close()


def test_clocks_stand_still_while_anybody_can_go_on(world: DeterministicWorld) -> None:
    start = world.clock_ns(ClockType.REALTIME)
    with IOThread("io0", world) as iothread:
        for _ in range(100):
            iothread.ctx.bh_schedule_oneshot(lambda: None)
    assert world.clock_ns(ClockType.VIRTUAL) == start


def test_clocks_jump_to_the_first_timer_when_all_wait(world: DeterministicWorld) -> None:
    fired: list[tuple[str, int]] = []
    start = world.clock_ns(ClockType.VIRTUAL)
    contexts = [AioContext(name, world) for name in ("slow", "quick")]
    for ctx, seconds in zip(contexts, (3600, 5), strict=True):
        timer = ctx.timer_new(
            ClockType.VIRTUAL,
            lambda ctx=ctx: fired.append((ctx.name, world.now_ns() - start)),  # type: ignore[misc]  # a lambda's default
        )
        timer.mod(start + seconds * SECOND)

    def quick() -> None:
        with contexts[1]:
            contexts[1].poll(True)

    thread = world.start_thread("quick", quick)
    contexts[0].poll(True)
    thread.join()
    for ctx in contexts:
        ctx.close()
    assert fired == [("quick", 5 * SECOND), ("slow", 3600 * SECOND)]


def test_a_wait_with_a_limit_takes_just_that_long(world: DeterministicWorld) -> None:
    lock = world.new_lock()
    lock.acquire()
    start = world.now_ns()
    assert not lock.acquire(timeout=10)
    assert world.now_ns() - start == 10 * SECOND


def test_a_condition_wakes_those_who_have_waited_longest(world: DeterministicWorld) -> None:
    lock = world.new_lock()
    condition = world.new_condition(lock)
    woken: list[str] = []

    def wait(name: str) -> Callable[[], None]:
        def run() -> None:
            with lock:
                condition.wait()
                woken.append(name)

        return run

    threads = [world.start_thread(name, wait(name)) for name in "ab"]
    world.let_others_go_on()
    for expected in (["a"], ["a", "b"]):
        with lock:
            condition.notify()
        world.let_others_go_on()
        assert woken == expected
    for thread in threads:
        thread.join()


def test_the_thread_pool_works_and_its_idle_workers_end_after_ten_seconds(
    world: DeterministicWorld,
) -> None:
    ctx = AioContext("pool", world)
    rets: list[int] = []
    ctx.thread_pool.submit_aio(lambda: 7, rets.append)
    while not rets:
        ctx.poll(True)
    assert ctx.thread_pool.n_threads == 1
    timer = ctx.timer_new(ClockType.REALTIME, lambda: None)
    timer.mod(world.now_ns() + 11 * SECOND)
    ctx.poll(True)
    assert ctx.thread_pool.n_threads == 0
    ctx.close()
    assert rets == [7]


def test_threads_that_are_left_end_with_the_world_and_leave_no_descriptor() -> None:
    before = open_fds()
    world = DeterministicWorld(Chooser())
    ended: list[str] = []

    def wait_for_ever() -> None:
        try:
            world.new_gate().wait()
        finally:
            ended.append("unwound")

    world.start_thread("left behind", wait_for_ever)
    world.new_notifier()
    world.let_others_go_on()
    world.close()
    assert ended == ["unwound"]
    assert open_fds() == before


def test_a_thread_that_stumbles_while_it_unwinds_fails_nothing() -> None:
    """It was left in the middle of something: what it asserts there need not hold any more."""
    world = DeterministicWorld(Chooser())

    def wait_for_ever() -> None:
        try:
            world.new_gate().wait()
        finally:
            raise AssertionError("half done")

    world.start_thread("left behind", wait_for_ever)
    world.let_others_go_on()
    world.close()
    assert world.scheduler.failure is None


def test_what_clears_up_after_a_failure_gets_an_ordinary_error_if_it_is_told_so() -> None:
    world = DeterministicWorld(Chooser())
    with pytest.raises(Deadlock):
        world.new_gate().wait()
    with pytest.raises(Aborted):
        world.new_gate().open()
    world.scheduler.abort = WorldIsOver
    with pytest.raises(WorldIsOver):
        world.new_gate().open()
    world.close()
