# SPDX-License-Identifier: GPL-2.0-only
"""explore(): what it finds, how it tells, and that it leaves everything as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from block.aio import switch_interval
from block.aio.bh import BottomHalf
from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.aio.lock import RFifoLock
from block.aio.thread_pool import ThreadPool, Worker
from block.aio.world import the_world
from block.core import graph
from block.testing.choices import Seeded
from block.testing.explore import Result, explore, run_once
from block.testing.failures import Deadlock, Diverged, Livelock, ThreadDied
from block.testing.replaced import replaced
from block.testing.report import Row, rows_that_matter, table
from block.testing.state import State
from block.testing.world import DeterministicWorld
from tests.support.descriptors import open_fds
from tests.support.drivers import Disk, Ram, make_node
from tests.support.exploring import work_for_an_idle_worker


class Counter:
    """Counts without a lock: between reading and writing another one may have counted."""

    def __init__(self) -> None:
        self.value = 0

    def count(self) -> None:
        value = self.value
        self.value = value + 1


def two_count(world: DeterministicWorld) -> None:
    counter = Counter()
    other = world.start_thread("other", counter.count)
    counter.count()
    other.join()
    assert counter.value == 2, f"{counter.value} of 2"


def two_count_with_a_lock(world: DeterministicWorld) -> None:
    counter = Counter()
    lock = world.new_lock()

    def count() -> None:
        with lock:
            counter.count()

    other = world.start_thread("other", count)
    count()
    other.join()
    assert counter.value == 2


def test_a_lost_count_needs_one_preemption_and_is_found() -> None:
    assert explore(two_count, preemptions=0).failure is None
    result = explore(two_count, preemptions=2)
    assert result.failure is not None
    assert result.failure.preemptions == 1
    assert "1 of 2" in str(result.failure.error)


def test_with_a_lock_all_orders_pass_and_the_result_says_how_many() -> None:
    result = explore(two_count_with_a_lock, preemptions=2)
    assert result.failure is None
    assert result.complete
    assert result.preemptions == 2
    assert result.threads == 2
    assert result.interleavings >= 3
    assert f"{result.interleavings} interleavings" in str(result)
    assert "all with at most 2 preemptions" in str(result)


def test_the_table_has_a_column_for_each_thread_and_marks_the_switch_by_force() -> None:
    failure = explore(two_count).failure
    assert failure is not None
    text = failure.table()
    head, _, *lines = text.splitlines()
    assert head.split() == ["main", "|", "other"]
    assert [line.startswith("=>") for line in lines].count(True) == 1
    forced = next(number for number, line in enumerate(lines) if line.startswith("=>"))
    assert "self.value = value + 1" not in "".join(lines[:forced]), "it lost its turn too late"
    assert "value = self.value" in lines[forced - 1]


def test_the_rows_are_data_too() -> None:
    failure = explore(two_count).failure
    assert failure is not None
    rows = failure.data()["rows"]
    assert isinstance(rows, list)
    assert {row["thread"] for row in rows} == {1, 2}
    assert all(row["where"].startswith("test_explore.py:") for row in rows if row["text"])
    assert sum(row["forced"] for row in rows) == 1


def test_the_same_search_finds_the_same_after_the_same_number_of_orders() -> None:
    def facts(result: Result) -> tuple[object, ...]:
        assert result.failure is not None
        counts = (result.interleavings, result.pruned, result.points, result.steps)
        return (*counts, result.failure.plan, result.failure.table())

    assert facts(explore(two_count)) == facts(explore(two_count))


def test_a_search_without_time_says_that_it_is_not_complete() -> None:
    result = explore(two_count_with_a_lock, seconds=0)
    assert not result.complete
    assert "not all" in str(result)


def a_wait_that_is_long_enough(world: DeterministicWorld) -> None:
    lock = world.new_lock()
    lock.acquire()
    other = world.start_thread("other", lock.release)
    in_time = lock.acquire(timeout=10)
    other.join()
    assert in_time, "its time was up"


def test_time_is_up_early_only_where_the_search_is_asked_for_that() -> None:
    assert explore(a_wait_that_is_long_enough, preemptions=3).failure is None
    result = explore(a_wait_that_is_long_enough, preemptions=0, early_timeouts=True)
    assert result.failure is None, "nobody expects that"
    failure = explore(a_wait_that_is_long_enough, preemptions=1, early_timeouts=True).failure
    assert failure is not None
    assert failure.preemptions == 1
    assert "<its time is up>" in failure.table()


def test_when_nobody_else_can_go_on_time_is_up_at_its_time() -> None:
    def scenario(world: DeterministicWorld) -> None:
        lock = world.new_lock()
        lock.acquire()
        before = world.now_ns()
        assert not lock.acquire(timeout=10)
        assert world.now_ns() - before == 10_000_000_000

    assert explore(scenario, early_timeouts=True).failure is None


def ends_all_the_same(pool: ThreadPool, worker: Worker) -> bool:
    """A form of `_retire` that does not ask whether the worker's gate is being opened just now."""
    with pool._lock:
        if worker in pool._idle:
            pool._idle.remove(worker)
        pool._end_worker(worker)
    return True


def leaves_its_gate_open(pool: ThreadPool, worker: Worker) -> bool:
    """One that does not wait for the gate which is being opened: it is open the next time."""
    with pool._lock:
        if worker in pool._idle:
            pool._idle.remove(worker)
            pool._end_worker(worker)
            return True
    return False


@pytest.mark.parametrize("form", [ends_all_the_same, leaves_its_gate_open])
def test_a_worker_that_ends_wrongly_when_its_time_is_up_is_found(
    form: Callable[[ThreadPool, Worker], bool],
) -> None:
    with replaced({"block.aio.thread_pool:ThreadPool._retire": form}):
        assert explore(work_for_an_idle_worker, preemptions=3).failure is None
        failure = explore(work_for_an_idle_worker, early_timeouts=True).failure
    assert failure is not None
    assert "<its time is up>" in failure.table()


def test_an_error_in_another_thread_is_a_failure() -> None:
    def scenario(world: DeterministicWorld) -> None:
        thread = world.start_thread("falling", lambda: {}["nothing"])
        thread.join()

    failure = explore(scenario).failure
    assert failure is not None
    assert isinstance(failure.error, ThreadDied)
    assert isinstance(failure.error.__cause__, KeyError)


def count_beside(world: DeterministicWorld, counter: Counter) -> None:
    """Counts here while another thread counts."""
    other = world.start_thread("other", counter.count)
    counter.count()
    other.join()


def test_what_happens_in_one_order_is_not_explored() -> None:
    def scenario(world: DeterministicWorld) -> None:
        counter = Counter()
        with world.in_one_order():
            count_beside(world, counter)
        assert counter.value == 2

    result = explore(scenario)
    assert result.complete
    assert result.points == 0
    assert result.failure is None


@pytest.mark.parametrize("place", ["before", "after", "around"])
def test_what_is_beside_a_part_in_one_order_is_explored_as_ever(place: str) -> None:
    def scenario(world: DeterministicWorld) -> None:
        counter, quiet = Counter(), Counter()
        if place == "before":
            count_beside(world, counter)
        other = world.start_thread("other", counter.count) if place == "around" else None
        if place == "around":
            counter.count()
        with world.in_one_order():
            count_beside(world, quiet)
        if other is not None:
            other.join()
        if place == "after":
            count_beside(world, counter)
        assert counter.value == 2, f"{counter.value} of 2"

    failure = explore(scenario).failure
    assert failure is not None
    assert failure.preemptions == 1
    assert "1 of 2" in str(failure.error)


def test_a_part_in_one_order_begins_and_ends_when_the_others_are_idle() -> None:
    def scenario(world: DeterministicWorld) -> None:
        before, within = Counter(), Counter()
        world.start_thread("before", before.count)
        with world.in_one_order():
            assert before.value == 1, "somebody was in the middle of something"
            world.start_thread("within", within.count)
        assert within.value == 1, "somebody is in the middle of something"

    result = explore(scenario)
    assert result.complete
    assert result.failure is None, str(result.failure)


def test_an_error_in_an_iothreads_callback_is_a_failure() -> None:
    def scenario(world: DeterministicWorld) -> None:
        with IOThread("io0", world) as iothread:
            iothread.ctx.bh_schedule_oneshot(lambda: 1 // 0)  # type: ignore[arg-type]  # it fails

    failure = explore(scenario, preemptions=0).failure
    assert failure is not None
    assert isinstance(failure.error, ZeroDivisionError)


def test_who_waits_for_ever_is_a_failure_and_so_is_who_goes_in_circles() -> None:
    def stuck(world: DeterministicWorld) -> None:
        world.new_gate().wait()

    def circle(world: DeterministicWorld) -> None:
        lock = world.new_lock()
        while True:
            with lock:
                pass

    for scenario, kind in ((stuck, Deadlock), (circle, Livelock)):
        failure = explore(scenario, preemptions=0).failure
        assert failure is not None
        assert isinstance(failure.error, kind)


def test_a_scenario_that_is_different_each_time_is_noticed() -> None:
    runs: list[int] = []

    def scenario(world: DeterministicWorld) -> None:
        runs.append(1)
        if len(runs) % 2:
            world.start_thread("a surprise", lambda: None).join()
        two_count_with_a_lock(world)

    with pytest.raises(Diverged, match="other threads can go on than before"):
        explore(scenario)


def test_everything_is_as_before_when_it_has_failed() -> None:
    world, schedule, fds = the_world(), BottomHalf.schedule.__code__, open_fds()
    nodes = dict(graph.all_states)
    assert explore(two_count).failure is not None
    assert the_world() is world
    assert BottomHalf.schedule.__code__ is schedule
    assert graph.all_states == nodes
    assert open_fds() == fds


def test_one_run_without_line_steps() -> None:
    def leak(world: DeterministicWorld) -> None:
        ctx = AioContext("leaky", world)
        ctx.close()
        raise AssertionError("it leaks")

    result = run_once(leak, Seeded(0))
    assert result.failure is not None
    assert result.points == 0
    assert run_once(two_count_with_a_lock, Seeded(0)).failure is None


def test_variables_of_modules_are_put_back_in_place() -> None:
    states = graph.all_states
    kept, counter = State(["block.core.graph"]), graph._counter
    graph.all_states[None] = None  # type: ignore[index]  # what a broken run leaves
    graph._counter += 5
    kept.restore()
    assert graph.all_states is states
    assert None not in states
    assert graph._counter == counter


def test_how_many_real_threads_want_to_switch_quickly_is_not_put_back() -> None:
    """One may end while we search; if it were counted again, nobody would switch quickly."""
    before = switch_interval._n_users
    begun: list[int] = []

    def scenario(world: DeterministicWorld) -> None:
        begun.append(1)
        switch_interval.shorten_switch_interval()

    explore(scenario, preemptions=0)
    assert switch_interval._n_users == before + len(begun)
    for _ in begun:
        switch_interval.restore_switch_interval()


def test_nodes_that_broken_runs_leave_are_gone_afterwards() -> None:
    def scenario(world: DeterministicWorld) -> None:
        make_node(Ram(), Disk(512))
        raise AssertionError("broken")

    before = dict(graph.all_states), dict(graph._by_name)
    assert explore(scenario, preemptions=0).failure is not None
    assert run_once(scenario, Seeded(0)).failure is not None
    assert (graph.all_states, graph._by_name) == before


def test_rows_of_one_line_are_one_and_those_without_a_race_are_none() -> None:
    steps = ((1, ""), (2, ""), (2, "acquire"), (3, ""))
    rows = [Row(1, __file__, line, label, False) for line, label in steps]
    rows[1].in_race = rows[2].in_race = True
    made = rows_that_matter(rows)
    assert [(row.line, row.label) for row in made] == [(2, "acquire"), (3, "")]
    assert "<acquire>" in table(["main"], made)


def test_a_real_thread_that_runs_the_same_code_is_none_of_the_worlds() -> None:
    """As an idle worker of the process does that retires while something is explored."""
    lock = RFifoLock()
    ends = threading.Event()

    def take_it_again_and_again() -> None:
        while not ends.is_set():
            lock.lock()
            lock.unlock()

    alone = explore(a_bottom_half_in_an_iothread)
    thread = threading.Thread(target=take_it_again_and_again)
    thread.start()
    try:
        beside = explore(a_bottom_half_in_an_iothread)
    finally:
        ends.set()
        thread.join()
    assert (beside.interleavings, beside.steps) == (alone.interleavings, alone.steps)


def a_bottom_half_in_an_iothread(world: DeterministicWorld) -> None:
    done: list[int] = []
    with IOThread("io0", world) as iothread:
        iothread.ctx.bh_schedule_oneshot(lambda: done.append(1))
    assert done == [1]
