# SPDX-License-Identifier: GPL-2.0-only
"""Explorations as tests: what is tried is counted, and a failure prints its table of threads."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.core.backend import BlockBackend
from block.testing.explore import Result, explore
from block.testing.world import DeterministicWorld
from tests.support.drivers import Outcome

spaces: dict[str, dict[str, float]] = {}  # the test -> what was tried, for its report
PATIENCE = 330.0  # for a machine that does much else; alone, each takes a tenth of it at most


def must_hold(
    scenario: Callable[[DeterministicWorld], object],
    preemptions: int = 2,
    watched: tuple[str, ...] = (),
    steps: tuple[str, ...] = ("block.aio",),
    early_timeouts: bool = False,
) -> Result:
    """Explores a scenario: every order within the limit must be tried, and pass.

    One that does not pass is looked for once more, with the fewest preemptions: it is easier read.
    """
    search = partial(
        explore,
        scenario,
        preemptions,
        PATIENCE,
        watched=watched,
        steps=steps,
        early_timeouts=early_timeouts,
    )
    result = search(fewest_first=False)
    if result.failure is not None:
        result = search()
    print(result)
    spaces[inspect.stack()[1].function] = {
        "orders": result.interleavings,
        "beginnings": result.pruned,
        "preemptions": result.preemptions,
        "threads": result.threads,
        "seconds": round(result.seconds, 1),
    }
    assert result.failure is None, str(result.failure)
    assert result.complete, f"the space is too large: {result}"
    return result


def work_for_an_idle_worker(world: DeterministicWorld) -> None:
    """A worker of the thread pool is idle; there is work for it, just as its time may be up."""
    ctx = AioContext("main", world)
    rets: list[int] = []
    with world.in_one_order():
        ctx.thread_pool.submit_aio(lambda: 1, rets.append)
        while not rets:
            ctx.poll(True)
    ctx.thread_pool.submit_aio(lambda: 2, rets.append)
    while len(rets) < 2:
        ctx.poll(True)
    with world.in_one_order():
        ctx.close()
    assert rets == [1, 2]


class Reader:
    """A user of a tree that has some requests in flight; submits in the thread where the tree is.

    ret  what each request shall end with
    """

    def __init__(self, blk: BlockBackend, count: int, ret: int = 0) -> None:
        self.blk = blk
        self.ret = ret
        self.outcomes = [Outcome() for _ in range(count)]

    def submit(self) -> None:
        """Submits, here or in a bottom half where the tree is now."""
        ctx = self.blk.aio_context
        if not ctx.is_home():
            ctx.bh_schedule_oneshot(self.submit)
            return
        for number, outcome in enumerate(self.outcomes):
            self.blk.aio_preadv(512 * number, [memoryview(bytearray(512))], outcome)

    @property
    def pending(self) -> int:
        return sum(outcome.pending for outcome in self.outcomes)

    def wait(self, world: DeterministicWorld) -> None:
        """Brings the tree home and waits there; each request must have completed once."""
        self.blk.set_aio_context(world.main_context)
        while self.pending:
            world.main_context.poll(True)
        assert [outcome.calls for outcome in self.outcomes] == [1] * len(self.outcomes)
        assert {outcome.ret for outcome in self.outcomes} == {self.ret}

    def close(self, world: DeterministicWorld) -> None:
        self.blk.close()
        world.main_context.close()

    def finish(self, world: DeterministicWorld) -> None:
        """Waits, and closes all."""
        self.wait(world)
        self.close(world)


@contextmanager
def in_a_thread(world: DeterministicWorld, reader: Reader) -> Iterator[IOThread]:
    """A reader's tree lives in an IOThread; it is brought there, and cleared away, in one order."""
    with world.in_one_order():
        iothread = IOThread("io0", world)
        reader.blk.set_aio_context(iothread.ctx)
    yield iothread
    with world.in_one_order():
        reader.finish(world)
        iothread.close()
