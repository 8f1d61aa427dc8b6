# SPDX-License-Identifier: GPL-2.0-only
"""The search against one that leaves nothing out, on random programs of two or three threads.

A program's threads read and change variables, take locks, wait for notifiers. What a run ends with
(all values, or who is stuck) is its outcome. Both searches must see the same outcomes.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from block.testing.accesses import READ, WRITE
from block.testing.explore import Exploration
from block.testing.failures import Aborted, Deadlock
from block.testing.lines import Lines, Recorder
from block.testing.search import Node, Search, Seen
from block.testing.state import State
from block.testing.world import DeterministicWorld

Op = tuple[str, int]
Program = list[list[Op]]
Outcome = tuple[object, ...]
FOR_EVER = 1e9
KINDS = ["read", "write", "copy", "wait", "either", "set", "lock", "in_time"]
WEIGHTS = [7, 7, 2, 2, 1, 1, 2, 0]
WITH_TIMEOUTS = [4, 3, 1, 1, 0, 1, 5, 6]
N_VARIABLES = 2
N_LOCKS = 2
N_NOTIFIERS = 2


class Exhaustive(Search):
    """Tries everybody at every point."""

    def _on_path(self, node: Node) -> Node:
        is_new = self._depth >= len(self.path)
        node = super()._on_path(node)
        if is_new:
            node.todo = node.ready
        return node

    def _look_up(self, running: int) -> Seen | None:
        return None


def random_program(dice: random.Random, weights: list[int] = WEIGHTS) -> Program:
    n_threads = dice.choice([2, 2, 3])
    n_ops = dice.choice([2, 3, 4, 5] if n_threads == 2 else [2, 3])
    return [random_thread(dice, n_ops, number, weights) for number in range(n_threads)]


def random_thread(dice: random.Random, n_ops: int, number: int, weights: list[int]) -> list[Op]:
    ops: list[Op] = []
    held = -1
    for _ in range(n_ops):
        kind = dice.choices(KINDS, weights)[0]
        if kind != "lock":
            ops.append((kind, dice.randrange(2)))
        elif held < 0:
            held = dice.randrange(N_LOCKS)
            ops.append(("lock", held))
        else:
            ops.append(("unlock", held))
            held = -1
    if held >= 0:
        ops.append(("unlock", held))
    return [*ops, ("set", number % N_NOTIFIERS)]


class Machine:
    """Runs a program's threads in a world."""

    def __init__(self, world: DeterministicWorld, n_threads: int) -> None:
        self.world = world
        self.step = world.scheduler.step
        self.touch = world.scheduler.touch
        self.things = [world.names.of(("variable", n)) << 2 for n in range(N_VARIABLES)]
        self.values = [0] * N_VARIABLES
        self.locks = [world.new_lock() for _ in range(N_LOCKS)]
        self.notifiers = [world.new_notifier() for _ in range(N_NOTIFIERS)]
        self.seen = [n + 1 for n in range(n_threads)]

    def run(self, thread: int, ops: list[Op]) -> None:
        for kind, which in ops:
            getattr(self, kind)(thread, which)

    def read(self, thread: int, which: int) -> None:
        self.step("read")
        self.touch(self.things[which] | READ)
        self.seen[thread] = (self.seen[thread] * 31 + self.values[which]) % 100_003

    def write(self, thread: int, which: int) -> None:
        self.step("write")
        self.touch(self.things[which] | WRITE)
        self.values[which] = self.seen[thread]

    def copy(self, thread: int, which: int) -> None:
        """Changes the other variable if this one is even: what a thread does depends on others."""
        self.read(thread, which)
        if self.values[which] % 2 == 0:
            self.write(thread, 1 - which)

    def lock(self, thread: int, which: int) -> None:
        self.locks[which].acquire()

    def unlock(self, thread: int, which: int) -> None:
        self.locks[which].release()

    def in_time(self, thread: int, which: int) -> None:
        """Takes a lock, unless its time is up first: that leads elsewhere."""
        lock = self.locks[which]
        if lock.holder is self.world.scheduler.running:
            return
        in_time = lock.acquire(timeout=1)
        self.write(thread, which if in_time else 1 - which)
        if in_time:
            lock.release()

    def set(self, thread: int, which: int) -> None:
        self.notifiers[which].set()

    def wait(self, thread: int, which: int) -> None:
        poller = self.world.new_poller()
        poller.update(self.notifiers[which].fileno(), 1)
        poller.wait(-1)
        poller.close()

    def either(self, thread: int, which: int) -> None:
        """Waits for both; which comes first, if both are ready, is a choice as well."""
        poller = self.world.new_poller()
        for notifier in self.notifiers:
            poller.update(notifier.fileno(), 1)
        first = poller.wait(-1)[0][0]
        poller.close()
        self.seen[thread] += 7 * (first == self.notifiers[which].fileno())
        self.write(thread, which)


def outcomes(
    program: Program,
    preemptions: int,
    search: Search,
    most_runs: int = 10_000,
    early_timeouts: bool = False,
    fewest_first: bool = True,
) -> tuple[set[Outcome], int]:
    """Returns what the runs of a program end with, and how many there were; none: too many."""
    found: set[Outcome] = set()

    def scenario(world: DeterministicWorld) -> None:
        machine = Machine(world, len(program))
        threads = [
            world.start_thread(f"thread {n}", bound(machine.run, n, ops))
            for n, ops in enumerate(program)
        ]
        try:
            for thread in threads:
                thread.join()
        except Deadlock as deadlock:
            found.add((str(deadlock), *machine.seen, *machine.values))
            raise Aborted from deadlock
        found.add((*machine.seen, *machine.values))

    exploration = Exploration(
        scenario, Lines(Recorder()), State([]), FOR_EVER, early_timeouts=early_timeouts
    )
    exploration.search = search
    n_runs = 0
    for bound_now in range(0 if fewest_first else preemptions, preemptions + 1):
        search.restart(bound_now)
        more = True
        while more:
            exploration.once()
            n_runs += 1
            if n_runs > most_runs:
                return set(), n_runs
            more = search.next()
    return found, n_runs


def bound(run: Callable[[int, list[Op]], None], number: int, ops: list[Op]) -> Callable[[], None]:
    return lambda: run(number, ops)


MORE = [pytest.param(seed, marks=pytest.mark.full) for seed in range(2, 6)]


@pytest.mark.parametrize("seed", [0, 1, *MORE])
def test_the_search_sees_every_outcome_that_there_is(seed: int) -> None:
    dice = random.Random(seed)
    n_all = n_tried = 0
    for _ in range(15):
        program, preemptions = random_program(dice), dice.randrange(3)
        everything, n_runs = outcomes(program, preemptions, Exhaustive(), most_runs=700)
        if everything:
            found, n_few = outcomes(program, preemptions, Search(), fewest_first=False)
            assert found == everything, (program, preemptions)
            n_all += n_runs
            n_tried += n_few
    assert n_tried < n_all / 2


@pytest.mark.parametrize("seed", [0, 1, *MORE])
def test_it_sees_every_outcome_of_time_outs_that_come_early(seed: int) -> None:
    dice = random.Random(seed)
    n_all = n_tried = 0
    for _ in range(15):
        program, preemptions = random_program(dice, WITH_TIMEOUTS), dice.choice([1, 2])
        everything, n_runs = outcomes(program, preemptions, Exhaustive(), 700, early_timeouts=True)
        if everything:
            found, n_few = outcomes(program, preemptions, Search(), 10_000, True, False)
            assert found == everything, (program, preemptions)
            n_all += n_runs
            n_tried += n_few
    assert n_tried < n_all / 2


def test_a_time_out_that_comes_early_leads_where_nothing_else_does() -> None:
    """The first thread loses its turn while it holds the lock; then the second one's time is up."""
    program: Program = [[("lock", 0), ("write", 0), ("unlock", 0)], [("in_time", 0)]]
    in_time = [outcomes(program, n, Search())[0] for n in (1, 2)]
    early = [outcomes(program, n, Search(), early_timeouts=True)[0] for n in (1, 2)]
    assert in_time[0] == in_time[1] == early[0]
    assert early[1] > early[0]


def test_the_same_search_makes_the_same_runs() -> None:
    program = random_program(random.Random(5))
    assert outcomes(program, 2, Search()) == outcomes(program, 2, Search())


def test_a_second_preemption_sees_more() -> None:
    """Each thread must lose its turn once between reading and writing."""
    ops = [("read", 0), ("write", 0), ("read", 0), ("write", 0)]
    found = [outcomes([ops, ops], n, Search())[0] for n in (0, 1, 2)]
    assert found[0] < found[1] < found[2]


def test_two_locks_in_two_orders_are_a_deadlock_after_one_preemption() -> None:
    first = [("lock", 0), ("lock", 1), ("unlock", 1), ("unlock", 0)]
    second = [("lock", 1), ("lock", 0), ("unlock", 0), ("unlock", 1)]
    assert not any(len(each) > 4 for each in outcomes([first, second], 0, Search())[0])
    found, _ = outcomes([first, second], 1, Search())
    stuck = [each[0] for each in found if len(each) > 4]
    assert stuck
    assert "thread 0 waits for a lock of thread 1" in str(stuck[0])
