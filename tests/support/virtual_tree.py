# SPDX-License-Identifier: GPL-2.0-only
"""Trees in virtual time: fixtures for drivers that wait.

world       virtual time for the length of a test; block.open and all else is in it
elsewhere   a second context, whose thread is the test's own: `with elsewhere:`
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from block.aio.context import AioContext
from block.aio.world import ClockType, set_world
from block.core import graph
from block.core.backend import BlockBackend
from block.core.node import BlockDriverState
from block.core.wait import poll_while
from tests.support.drivers import Outcome
from tests.support.virtual_world import START_NS, VirtualWorld


@pytest.fixture
def world() -> Iterator[VirtualWorld]:
    """The world of the test; at its end no node and no registration may be left."""
    before = set(graph.all_states)
    virtual = VirtualWorld()
    real = set_world(virtual)
    try:
        yield virtual
        assert set(graph.all_states) == before, "the test left nodes behind"
        left = virtual.main_context.registrations()
        assert [each for each in left if isinstance(each.owner, BlockDriverState)] == []
        virtual.main_context.close()
    finally:
        set_world(real)


@pytest.fixture
def elsewhere(world: VirtualWorld) -> Iterator[AioContext]:
    """Another context of that world; nobody polls it unless the test does."""
    ctx = AioContext("elsewhere", world)
    ctx.disown()
    yield ctx
    with ctx:
        ctx.close()


def elapsed(world: VirtualWorld) -> int:
    """The nanoseconds that have gone by since the world began."""
    return world.now[ClockType.REALTIME] - START_NS


def reads(blk: BlockBackend, count: int, nbytes: int = 512, start: int = 0) -> list[Outcome]:
    """Submits reads, in the context of the tree; returns what becomes of them."""
    outcomes = [Outcome() for _ in range(count)]
    with blk.aio_context:
        for n, outcome in enumerate(outcomes):
            blk.aio_preadv(start + n * nbytes, [memoryview(bytearray(nbytes))], outcome)
    return outcomes


def wait_for(blk: BlockBackend, outcomes: list[Outcome]) -> None:
    """Polls the tree's context until all have ended, well."""
    poll_while(blk.aio_context, lambda: any(outcome.pending for outcome in outcomes))
    assert [outcome.ret for outcome in outcomes] == [0] * len(outcomes)
