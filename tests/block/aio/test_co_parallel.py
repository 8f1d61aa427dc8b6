# SPDX-License-Identifier: GPL-2.0-only
"""Several pieces of work side by side, or one after the other, and their failures."""

from __future__ import annotations

import errno
import inspect
from collections.abc import Awaitable, Iterator

import pytest

from block.aio.co_parallel import co_parallel, co_then
from block.aio.context import AioContext
from block.aio.coroutine import Coroutine, co_yield, current


class Pieces:
    """Pieces of work that wait until the test lets them go on."""

    def __init__(self, ctx: AioContext) -> None:
        self.ctx = ctx
        self.waiting: dict[str, Coroutine] = {}
        self.log: list[str] = []
        self.failures: list[OSError | None] = []

    async def piece(self, name: str, error: BaseException | None = None) -> None:
        self.log.append(f"{name} begins")
        me = current()
        assert me is not None
        self.waiting[name] = me
        await co_yield()
        self.log.append(f"{name} ends")
        if error is not None:
            raise error

    async def at_once(self, error: BaseException | None = None) -> None:
        if error is not None:
            raise error

    async def all(self, *works: Awaitable[object]) -> None:
        self.failures = await co_parallel(*works)
        self.log.append("all have ended")

    def start(self, *works: object) -> Coroutine:
        co = Coroutine(self.all(*works), ctx=self.ctx)
        co.enter()
        return co


@pytest.fixture
def pieces(ctx: AioContext) -> Pieces:
    return Pieces(ctx)


def test_all_begin_before_one_has_ended_and_the_last_one_ends_it(pieces: Pieces) -> None:
    co = pieces.start(pieces.piece("a"), pieces.piece("b"))
    assert pieces.log == ["a begins", "b begins"]
    pieces.waiting["b"].wake()
    assert not co.done
    pieces.waiting["a"].wake()
    assert co.done
    assert pieces.log[2:] == ["b ends", "a ends", "all have ended"]
    assert pieces.failures == [None, None]


def test_pieces_that_never_wait_need_nobody_to_wake_them(pieces: Pieces) -> None:
    assert pieces.start(pieces.at_once(), pieces.at_once()).done
    assert pieces.start().done
    assert pieces.failures == []


def test_each_failure_is_told_and_none_stops_another(pieces: Pieces) -> None:
    early, late = OSError(errno.EIO, "early"), OSError(errno.ENOSPC, "late")
    co = pieces.start(pieces.at_once(early), pieces.piece("a", late), pieces.piece("b"))
    pieces.waiting["a"].wake()
    assert not co.done
    pieces.waiting["b"].wake()
    assert pieces.failures == [early, late, None]


def test_a_mistake_is_raised_when_all_have_ended(pieces: Pieces) -> None:
    co = pieces.start(pieces.at_once(ZeroDivisionError("mistake")), pieces.piece("a"))
    assert not co.done
    with pytest.raises(ZeroDivisionError, match="mistake"):
        pieces.waiting["a"].wake()
    assert co.done
    assert pieces.log == ["a begins", "a ends"]


def test_the_pieces_are_in_the_context_of_their_caller(pieces: Pieces) -> None:
    pieces.start(pieces.piece("a"), pieces.piece("b"))
    assert {co.ctx for co in pieces.waiting.values()} == {pieces.ctx}
    pieces.ctx.bh_schedule_oneshot(pieces.waiting["a"].wake)
    pieces.ctx.bh_schedule_oneshot(pieces.waiting["b"].wake)
    while len(pieces.log) < 5:
        pieces.ctx.poll(True)
    assert pieces.log[-1] == "all have ended"


def test_one_piece_after_the_other(pieces: Pieces) -> None:
    co = Coroutine(co_then(pieces.piece("a"), pieces.piece("b")), ctx=pieces.ctx)
    co.enter()
    pieces.waiting["a"].wake()
    assert pieces.log == ["a begins", "a ends", "b begins"]
    pieces.waiting["b"].wake()
    assert co.done


def test_the_second_never_begins_where_the_first_fails(pieces: Pieces) -> None:
    second = pieces.piece("b")
    co = Coroutine(co_then(pieces.at_once(OSError(errno.EIO, "broken")), second), ctx=pieces.ctx)
    with pytest.raises(OSError, match="broken"):
        co.enter()
    assert inspect.getcoroutinestate(second) == inspect.CORO_CLOSED
    assert pieces.log == []


def test_a_second_that_is_no_coroutine_needs_no_taking_back(pieces: Pieces) -> None:
    class Later:
        def __await__(self) -> Iterator[None]:
            return iter(())

    error = OSError(errno.EIO, "broken")
    co = Coroutine(co_then(pieces.at_once(error), Later()), ctx=pieces.ctx)
    with pytest.raises(OSError, match="broken"):
        co.enter()


def test_the_second_is_taken_back_where_nobody_wakes_the_first(pieces: Pieces) -> None:
    second = pieces.piece("b")
    co = Coroutine(co_then(pieces.piece("a"), second), ctx=pieces.ctx)
    co.enter()
    co._co.close()
    assert inspect.getcoroutinestate(second) == inspect.CORO_CLOSED
    assert pieces.log == ["a begins"]
