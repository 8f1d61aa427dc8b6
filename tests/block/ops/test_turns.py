# SPDX-License-Identifier: GPL-2.0-only
"""Turns: workers that read ahead begin to write in the order of what they have read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from block.aio.context import AioContext
from block.aio.coroutine import Coroutine, co_yield, current
from block.ops.turns import Turns


class Workers:
    """Workers that write pieces of 10 bytes; the test says when one is through."""

    def __init__(self, ctx: AioContext, at_once: int, alone: bool = False) -> None:
        self.ctx = ctx
        self.turns = Turns(at_once)
        self.alone = alone
        self.writing: dict[int, Coroutine] = {}
        self.log: list[str] = []

    async def work(self, offset: int) -> None:
        await self.turns.begin(offset)
        if self.turns.stopped:
            self.log.append(f"{offset} is let go")
            return
        self.log.append(f"{offset} begins")
        if not self.alone:
            self.turns.pass_on(offset + 10)
        me = current()
        assert me is not None
        self.writing[offset] = me
        await co_yield()
        self.log.append(f"{offset} ends")
        if self.alone:
            self.turns.pass_on(offset + 10)
        self.turns.end()

    def come(self, *offsets: int) -> None:
        for offset in offsets:
            Coroutine(self.work(offset), ctx=self.ctx).enter()

    async def read_on(self) -> None:
        await self.turns.caught_up()
        self.log.append("reads on")

    def reader(self) -> None:
        Coroutine(self.read_on(), ctx=self.ctx).enter()

    def through(self, offset: int) -> None:
        self.writing.pop(offset).wake()

    def told(self) -> list[str]:
        told, self.log = self.log, []
        return told


@pytest.fixture
def ctx() -> Iterator[AioContext]:
    context = AioContext("turns")
    yield context
    context.close()


def test_one_at_a_time_each_begins_when_the_one_before_has_ended(ctx: AioContext) -> None:
    workers = Workers(ctx, at_once=1)
    workers.come(20, 0, 10)
    assert workers.told() == ["0 begins"]
    workers.through(0)
    assert workers.told() == ["0 ends", "10 begins"]
    workers.through(10)
    assert workers.told() == ["10 ends", "20 begins"]


def test_several_at_once_begin_in_order_and_end_as_they_like(ctx: AioContext) -> None:
    workers = Workers(ctx, at_once=2)
    workers.come(10, 30, 20)
    assert workers.told() == []
    workers.come(0)
    assert workers.told() == ["0 begins", "10 begins"]
    workers.through(10)
    assert workers.told() == ["10 ends", "20 begins"]
    workers.through(20)
    assert workers.told() == ["20 ends", "30 begins"]


def test_who_passes_it_on_at_its_end_is_alone(ctx: AioContext) -> None:
    workers = Workers(ctx, at_once=3, alone=True)
    workers.come(20, 0, 10)
    assert workers.told() == ["0 begins"]
    workers.through(0)
    assert workers.told() == ["0 ends", "10 begins"]
    workers.through(10)
    workers.through(20)
    assert workers.told() == ["10 ends", "20 begins", "20 ends"]


def test_who_comes_when_it_is_its_turn_does_not_wait(ctx: AioContext) -> None:
    workers = Workers(ctx, at_once=2)
    for offset in (0, 10):
        workers.come(offset)
        assert workers.told() == [f"{offset} begins"]
    workers.come(20)
    assert workers.told() == []


def test_two_that_end_together_wake_the_next_once(ctx: AioContext) -> None:
    """A coroutine that wakes another goes on first: the other is still to run."""
    workers = Workers(ctx, at_once=2)
    workers.come(0, 10, 20)
    workers.told()

    async def end_both() -> None:
        workers.turns.end()
        workers.turns.end()

    Coroutine(end_both(), ctx=ctx).enter()
    while ctx.poll(False):
        pass
    assert workers.told() == ["20 begins"]  # and has not ended
    for offset in (0, 10, 20):
        workers.through(offset)


def test_stop_lets_all_go_that_wait(ctx: AioContext) -> None:
    workers = Workers(ctx, at_once=1)
    workers.come(0, 10, 20)
    assert workers.told() == ["0 begins"]
    workers.turns.stop()
    assert sorted(workers.told()) == ["10 is let go", "20 is let go"]
    workers.come(30)
    assert workers.told() == ["30 is let go"]
    workers.through(0)


def test_who_reads_ahead_waits_while_the_next_one_waits_for_room(ctx: AioContext) -> None:
    workers = Workers(ctx, at_once=1)
    workers.come(0)
    workers.reader()
    assert workers.told() == ["0 begins", "reads on"]  # nobody waits
    workers.come(10, 20)
    workers.reader()
    assert workers.told() == []
    workers.through(0)
    assert workers.told() == ["0 ends", "10 begins"]  # now 20 waits
    workers.through(10)
    assert workers.told() == ["10 ends", "20 begins", "reads on"]
    workers.through(20)


def test_who_reads_ahead_does_not_wait_for_those_whose_turn_it_is_not_yet(ctx: AioContext) -> None:
    workers = Workers(ctx, at_once=1)
    workers.come(20, 30)
    workers.reader()
    assert workers.told() == ["reads on"]


def test_who_reads_ahead_waits_while_others_wait_for_one_who_writes_alone(ctx: AioContext) -> None:
    workers = Workers(ctx, at_once=2, alone=True)
    workers.come(0)
    workers.reader()
    assert workers.told() == ["0 begins", "reads on"]
    workers.come(20)
    workers.reader()
    assert workers.told() == []
    workers.through(0)
    assert workers.told() == ["0 ends", "reads on"]  # 10 has still to come


def test_who_reads_ahead_is_woken_where_the_turn_goes_to_one_who_is_not_there_yet(
    ctx: AioContext,
) -> None:
    workers = Workers(ctx, at_once=2, alone=True)
    workers.turns.begun = 2
    workers.come(0)
    workers.reader()
    assert workers.told() == []
    workers.turns.pass_on(50)
    assert workers.told() == ["reads on"]


def test_stop_lets_the_one_who_reads_ahead_go(ctx: AioContext) -> None:
    workers = Workers(ctx, at_once=1)
    workers.come(0, 10)
    workers.reader()
    assert workers.told() == ["0 begins"]
    workers.turns.stop()
    assert workers.told() == ["10 is let go", "reads on"]
    workers.through(0)
