# SPDX-License-Identifier: GPL-2.0-only
"""Who registered what: coroutines and one-shots are known while the audit is on."""

from __future__ import annotations

import sys

from block.aio import audit
from block.aio.context import AioContext
from block.aio.coroutine import Coroutine, co_yield


def here() -> str:
    """Returns "file:line" of the caller."""
    frame = sys._getframe(1)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


async def wait_once() -> None:
    await co_yield()


async def wait_deeper() -> None:
    await wait_once()


LINE_OF_THE_YIELD = f"{__file__}:{wait_once.__code__.co_firstlineno + 1}"


def test_a_coroutine_is_known_until_it_has_ended(ctx: AioContext) -> None:
    ctx.world.audit = True
    owner = object()
    co, where = Coroutine(wait_deeper(), name="tested", ctx=ctx, owner=owner), here()
    co.enter()
    [found] = ctx.registrations(owner=owner)
    assert (found.kind, found.where) == ("coroutine", where)
    assert found.what == f"<Coroutine tested> at {LINE_OF_THE_YIELD}"
    co.wake()
    assert co.done
    assert ctx.registrations(owner=owner) == []


def test_a_coroutine_without_a_context_is_known_from_its_first_context_on(ctx: AioContext) -> None:
    ctx.world.audit = True
    entered, scheduled = Coroutine(wait_once()), Coroutine(wait_once())
    ctx.co_enter(entered)
    ctx.co_schedule(scheduled)
    assert [r.kind for r in ctx.registrations()].count("coroutine") == 2
    ctx.poll(True)
    entered.wake()
    scheduled.wake()
    assert ctx.registrations() == []


def test_a_coroutine_that_goes_elsewhere_is_asked_for_there(ctx: AioContext) -> None:
    ctx.world.audit = True
    other = AioContext("other", ctx.world)
    co = Coroutine(wait_once(), ctx=ctx)
    co.enter()
    co.ctx = other
    assert ctx.registrations() == []
    assert [r.kind for r in other.registrations()] == ["coroutine"]
    co.wake()
    other.close()


def test_while_the_audit_is_off_no_coroutine_is_known(ctx: AioContext) -> None:
    co = Coroutine(wait_once(), ctx=ctx)
    co.enter()
    assert ctx.registrations() == []
    assert ctx.world.coroutines == {}
    co.wake()


def test_coroutines_that_have_ended_do_not_pile_up(ctx: AioContext) -> None:
    ctx.world.audit = True
    for _ in range(3 * audit.COROUTINES_KEPT):
        co = Coroutine(wait_once(), ctx=ctx)
        co.enter()
        co.wake()
    assert len(ctx.world.coroutines) <= audit.COROUTINES_KEPT + 1


def test_a_one_shot_bottom_half_tells_who_scheduled_it(ctx: AioContext) -> None:
    ctx.world.audit = True
    ran: list[int] = []
    ctx.bh_schedule_oneshot(lambda: ran.append(1), owner=ran)
    where = here().rpartition(":")
    [found] = ctx.registrations(owner=ran)
    assert found.where == f"{where[0]}:{int(where[2]) - 1}"
    ctx.poll(True)
    assert ran == [1]
