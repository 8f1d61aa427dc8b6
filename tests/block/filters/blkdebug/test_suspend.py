# SPDX-License-Identifier: GPL-2.0-only
"""Break points: who stops where, and goes on when."""

from __future__ import annotations

import errno

import pytest

from block.aio.context import AioContext
from block.aio.coroutine import Coroutine
from block.aio.iothread import IOThread
from block.core.error import BlockError
from block.core.wait import poll_while
from tests.support.blkdebug import debugged_ram, node, write
from tests.support.drivers import Disk, Outcome, backend_on, pass_node, ram_node

SECTOR = b"x" * 512


def test_a_request_stops_at_its_event_and_goes_on_when_told(main: AioContext) -> None:
    disk = Disk()
    with debugged_ram(disk) as blk:
        bs = node(blk)
        bs.debug_breakpoint("pwritev", "A")
        assert not bs.debug_is_suspended("A")
        outcome = write(blk, 0, SECTOR)
        assert bs.debug_is_suspended("A")
        assert disk.asked("pwritev") == []
        bs.debug_resume("A")
        assert not bs.debug_is_suspended("A")
        poll_while(main, lambda: outcome.pending)
        assert outcome.ret == 0
        assert len(disk.asked("pwritev")) == 1


def test_the_next_request_does_not_stop() -> None:
    with debugged_ram(Disk()) as blk:
        node(blk).debug_breakpoint("pwritev", "A")
        outcome = write(blk, 0, SECTOR)
        blk.pwrite(512, SECTOR)
        node(blk).debug_resume("A")
        blk.drain()
        assert outcome.ret == 0


def test_at_several_break_points_all_must_be_resumed(main: AioContext) -> None:
    with debugged_ram(Disk()) as blk:
        bs = node(blk)
        bs.debug_breakpoint("pwritev", "A")
        bs.debug_breakpoint("pwritev", "B")
        outcome = write(blk, 0, SECTOR)
        assert bs.debug_is_suspended("A")
        assert bs.debug_is_suspended("B")
        bs.debug_resume("A")
        assert not bs.debug_is_suspended("A")
        assert bs.debug_is_suspended("B")
        while main.poll(False):
            continue
        assert outcome.pending
        bs.debug_resume("B")
        poll_while(main, lambda: outcome.pending)
        assert outcome.ret == 0


def test_of_two_with_one_name_the_last_goes_on_first(main: AioContext) -> None:
    disk = Disk()
    with debugged_ram(disk) as blk:
        outcomes = []
        for offset in (0, 512):
            node(blk).debug_breakpoint("pwritev", "A")
            outcomes.append(write(blk, offset, SECTOR))
        node(blk).debug_resume("A")
        poll_while(main, lambda: outcomes[1].pending)
        assert outcomes[0].pending
        node(blk).debug_resume("A")
        poll_while(main, lambda: outcomes[0].pending)
    assert [entry[1] for entry in disk.asked("pwritev")] == [512, 0]


def test_who_goes_on_is_not_suspended_any_more() -> None:
    with debugged_ram(Disk()) as blk:
        seen: list[bool] = []

        async def write_and_look() -> None:
            await blk.co_pwritev(0, 512, [memoryview(SECTOR)], 0)
            seen.append(node(blk).debug_is_suspended("A"))

        node(blk).debug_breakpoint("pwritev", "A")
        node(blk).aio_context.co_enter(Coroutine(write_and_look()))
        assert seen == []
        node(blk).debug_resume("A")
        assert seen == [False]


def test_a_break_point_that_is_taken_away_stops_nobody() -> None:
    with debugged_ram(Disk()) as blk:
        node(blk).debug_breakpoint("pwritev", "A")
        node(blk).debug_breakpoint("pwritev_done", "A")
        node(blk).debug_remove_breakpoint("A")
        blk.pwrite(0, SECTOR)


def test_to_take_it_away_resumes_all_who_stand_there() -> None:
    with debugged_ram(Disk()) as blk:
        outcomes = []
        for offset in (0, 512):
            node(blk).debug_breakpoint("pwritev", "A")
            outcomes.append(write(blk, offset, SECTOR))
        node(blk).debug_remove_breakpoint("A")
        blk.drain()
        assert [outcome.ret for outcome in outcomes] == [0, 0]


@pytest.mark.parametrize("function", ["debug_resume", "debug_remove_breakpoint"])
def test_a_name_that_nobody_has_is_told(function: str) -> None:
    with debugged_ram(Disk()) as blk:
        with pytest.raises(BlockError, match="'A'") as failure:
            getattr(node(blk), function)("A")
        assert failure.value.errno == errno.ENOENT


def test_an_event_that_is_none_is_told() -> None:
    with debugged_ram(Disk()) as blk:
        with pytest.raises(BlockError, match="'wrte_aio'") as failure:
            node(blk).debug_breakpoint("wrte_aio", "A")
        assert failure.value.errno == errno.ENOENT


def test_a_tree_without_blkdebug_says_so() -> None:
    blk = backend_on(ram_node(Disk()))
    try:
        with pytest.raises(BlockError, match="there is no blkdebug") as failure:
            node(blk).debug_breakpoint("pwritev", "A")
        assert failure.value.errno == errno.ENOTSUP
    finally:
        blk.unref()


def test_break_points_are_found_through_what_lies_above() -> None:
    with debugged_ram(Disk()) as below:
        blk = backend_on(pass_node(node(below).ref()))
        try:
            node(blk).debug_breakpoint("pwritev", "A")
            outcome = write(blk, 0, SECTOR)
            assert node(blk).debug_is_suspended("A")
            assert node(below).debug_is_suspended("A")
            node(blk).debug_resume("A")
            blk.drain()
            assert outcome.ret == 0
        finally:
            blk.unref()


def test_a_coroutine_of_an_iothread_is_resumed_from_outside(
    main: AioContext, iothread: IOThread
) -> None:
    with debugged_ram(Disk()) as blk:
        blk.set_aio_context(iothread.ctx)
        node(blk).debug_breakpoint("pwritev", "A")
        outcomes: list[Outcome] = []
        iothread.ctx.bh_schedule_oneshot(lambda: outcomes.append(write(blk, 0, SECTOR)))
        node(blk).debug_wait_break("A")
        outcome = outcomes[0]
        node(blk).debug_resume("A")
        poll_while(iothread.ctx, lambda: outcome.pending)
        assert outcome.ret == 0
        blk.set_aio_context(main)
