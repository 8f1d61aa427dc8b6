# SPDX-License-Identifier: GPL-2.0-only
"""plug and unplug: what engines hold back, and when it goes."""

from __future__ import annotations

from block.aio.context import AioContext


def test_without_a_plug_a_deferred_call_runs_in_the_next_pass(ctx: AioContext) -> None:
    calls: list[str] = []
    bh = ctx.bh_new(lambda: calls.append("ran"))
    ctx.defer_call(bh)
    assert calls == []
    ctx.poll(False)
    assert calls == ["ran"]
    bh.delete()


def test_a_plug_holds_it_back_until_the_last_unplug(ctx: AioContext) -> None:
    calls: list[str] = []
    bh = ctx.bh_new(lambda: calls.append("ran"))
    ctx.plug()
    ctx.plug()
    ctx.defer_call(bh)
    ctx.poll(False)
    ctx.unplug()
    assert calls == []
    ctx.unplug()
    assert calls == ["ran"]
    ctx.poll(False)
    assert calls == ["ran"]
    bh.delete()


def test_an_unplug_with_nothing_held_back_does_nothing(ctx: AioContext) -> None:
    ctx.plug()
    ctx.unplug()
    assert not ctx.poll(False)
