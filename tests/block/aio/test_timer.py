# SPDX-License-Identifier: GPL-2.0-only
"""Timers: the rules of timer.py, in virtual time."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from block.aio.context import AioContext
from block.aio.errors import UsedAfterFree
from block.aio.timer import DEAD_ENTRIES_ALLOWED, Timer
from block.aio.world import ClockType
from tests.support.virtual_world import START_NS, VirtualWorld

MS = 1_000_000


def timer(ctx: AioContext, callback: Callable[[], None]) -> Timer:
    return ctx.timer_new(ClockType.VIRTUAL, callback)


@pytest.mark.parametrize("clock", list(ClockType))
def test_poll_sleeps_until_the_first_timer_of_any_clock(
    virtual_ctx: AioContext, virtual_world: VirtualWorld, clock: ClockType
) -> None:
    fired: list[int] = []
    first = virtual_ctx.timer_new(clock, lambda: fired.append(virtual_world.now[clock]))
    later = virtual_ctx.timer_new(ClockType.VIRTUAL, lambda: fired.append(-1))
    later.mod(START_NS + 9 * MS)
    first.mod(START_NS + 5 * MS)
    assert virtual_ctx.poll(True)
    assert fired == [START_NS + 5 * MS]
    assert not first.pending
    assert later.pending


def test_a_timer_of_the_past_fires_in_the_next_pass(virtual_ctx: AioContext) -> None:
    fired: list[int] = []
    timer(virtual_ctx, lambda: fired.append(1)).mod(0)
    assert fired == []
    assert virtual_ctx.poll(False)
    assert fired == [1]


def test_real_time_is_never_early_and_hardly_late() -> None:
    ctx = AioContext("real")
    fired: list[int] = []
    one = ctx.timer_new(ClockType.REALTIME, lambda: fired.append(time.monotonic_ns()))
    due = time.monotonic_ns() + 2 * MS
    one.mod(due)
    assert ctx.poll(True)
    assert fired[0] >= due
    ctx.close()


def test_timers_of_the_same_time_fire_in_the_order_of_arming(virtual_ctx: AioContext) -> None:
    order: list[int] = []
    timers = [timer(virtual_ctx, lambda n=n: order.append(n)) for n in range(40)]  # type: ignore[misc]  # a lambda's default
    for one in timers:
        one.mod(START_NS + MS)
    virtual_ctx.poll(True)
    assert order == list(range(40))


def test_mod_moves_a_timer(virtual_ctx: AioContext, virtual_world: VirtualWorld) -> None:
    fired: list[int] = []
    one = timer(virtual_ctx, lambda: fired.append(virtual_world.now[ClockType.VIRTUAL]))
    for ns in (9 * MS, 1 * MS, 4 * MS):
        one.mod(START_NS + ns)
    assert virtual_ctx.poll(True)
    assert fired == [START_NS + 4 * MS]
    assert virtual_ctx.timeout_ns() == -1


def test_mod_anticipate_only_moves_it_forward(virtual_ctx: AioContext) -> None:
    one = timer(virtual_ctx, lambda: None)
    for ns, expected in ((5, 5), (9, 5), (3, 3)):
        one.mod_anticipate(START_NS + ns)
        assert one.expire_ns == START_NS + expected


def test_what_a_timer_arms_fires_in_the_next_pass(virtual_ctx: AioContext) -> None:
    n_fired = 0

    def again() -> None:
        nonlocal n_fired
        n_fired += 1
        one.mod(0)

    one = timer(virtual_ctx, again)
    one.mod(0)
    virtual_ctx.poll(False)
    assert n_fired == 1
    virtual_ctx.poll(False)
    assert n_fired == 2


def test_a_timer_cancelled_by_an_earlier_one_does_not_fire(virtual_ctx: AioContext) -> None:
    second = timer(virtual_ctx, lambda: pytest.fail("cancelled, but it fired"))
    first = timer(virtual_ctx, second.cancel)
    first.mod(START_NS)
    second.mod(START_NS)
    assert virtual_ctx.poll(False)
    assert not virtual_ctx.poll(False)


def test_a_nested_poll_fires_the_others_that_are_due(virtual_ctx: AioContext) -> None:
    order: list[str] = []

    def nested() -> None:
        order.append("first begins")
        timer(virtual_ctx, lambda: order.append("third")).mod(START_NS)
        assert virtual_ctx.poll(True)
        order.append("first ends")

    timer(virtual_ctx, nested).mod(START_NS)
    timer(virtual_ctx, lambda: order.append("second")).mod(START_NS)
    timer(virtual_ctx, lambda: order.append("much later")).mod(START_NS + MS)
    virtual_ctx.poll(True)
    assert order == ["first begins", "second", "third", "first ends"]


def test_an_exception_leaves_the_others_for_the_next_pass(virtual_ctx: AioContext) -> None:
    fired: list[int] = []
    timer(virtual_ctx, lambda: fired.append(1 // 0)).mod(START_NS)
    timer(virtual_ctx, lambda: fired.append(2)).mod(START_NS)
    with pytest.raises(ZeroDivisionError):
        virtual_ctx.poll(True)
    assert virtual_ctx.timeout_ns() == 0
    assert virtual_ctx.poll(True)
    assert fired == [2]


def test_what_a_nested_poll_left_when_it_failed_fires_in_the_next_pass(
    virtual_ctx: AioContext,
) -> None:
    fired: list[int] = []

    def nested() -> None:
        with pytest.raises(ZeroDivisionError):
            virtual_ctx.poll(True)

    timer(virtual_ctx, nested).mod(START_NS)
    timer(virtual_ctx, lambda: fired.append(1 // 0)).mod(START_NS)
    timer(virtual_ctx, lambda: fired.append(2)).mod(START_NS)
    assert virtual_ctx.poll(True)
    assert virtual_ctx.timeout_ns() == 0
    assert virtual_ctx.poll(True)
    assert fired == [2]
    assert virtual_ctx.timeout_ns() == -1


class CountingWorld(VirtualWorld):
    """Counts how often somebody reads a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: dict[ClockType, int] = dict.fromkeys(ClockType, 0)

    def clock_ns(self, clock: ClockType) -> int:
        self.looks[clock] += 1
        return super().clock_ns(clock)


@pytest.mark.parametrize("clock", list(ClockType))
def test_a_timer_that_is_far_away_costs_a_pass_one_look_at_its_clock(clock: ClockType) -> None:
    world = CountingWorld()
    ctx = AioContext("counted", world)
    far = ctx.timer_new(clock, lambda: pytest.fail("not yet"))
    for armed in (False, True):
        if armed:
            far.mod(START_NS + MS)
        for _ in range(7):
            assert not ctx.poll(False)
        assert world.looks == dict.fromkeys(ClockType, 0) | {clock: 7 * armed}
    ctx.close()


def test_a_timer_on_one_clock_may_arm_one_on_a_clock_that_was_served(
    virtual_ctx: AioContext,
) -> None:
    fired: list[int] = []
    early = virtual_ctx.timer_new(ClockType.REALTIME, lambda: fired.append(1))
    late = virtual_ctx.timer_new(ClockType.HOST, lambda: early.mod(START_NS))
    late.mod(START_NS)
    assert virtual_ctx.poll(True)
    assert virtual_ctx.poll(True)
    assert fired == [1]


def test_a_timer_that_is_moved_on_and_on_holds_no_memory(virtual_ctx: AioContext) -> None:
    one = timer(virtual_ctx, lambda: None)
    for ns in range(10_000):
        one.mod(START_NS + 1_000_000 + ns)
    assert len(one._list.heap) <= 2 * DEAD_ENTRIES_ALLOWED + 2


def test_a_deleted_timer_is_not_to_be_touched(virtual_ctx: AioContext) -> None:
    one = virtual_ctx.timer_new(ClockType.VIRTUAL, lambda: pytest.fail("deleted"), owner="disk0")
    one.mod(START_NS)
    one.delete()
    one.delete()
    assert not one.pending
    with pytest.raises(UsedAfterFree, match="disk0"):
        one.mod(START_NS)
    with pytest.raises(UsedAfterFree, match="disk0"):
        one.cancel()
    virtual_ctx.poll(False)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(-1, 50)), max_size=200))
def test_any_sequence_of_changes_fires_as_a_simple_table_says(
    changes: list[tuple[int, int]],
) -> None:
    """-1 cancels; other numbers are times. What is armed last counts."""
    world = VirtualWorld()
    ctx = AioContext("tested", world)
    fired: list[tuple[int, int]] = []
    timers = [
        timer(ctx, lambda n=n: fired.append((world.now[ClockType.VIRTUAL] - START_NS, n)))  # type: ignore[misc]  # a lambda's default
        for n in range(31)
    ]
    table: dict[int, tuple[int, int]] = {}
    for step, (n, ns) in enumerate(changes):
        table.pop(n, None)
        if ns < 0:
            timers[n].cancel()
        else:
            timers[n].mod(START_NS + ns)
            table[n] = (ns, step)
    while table and len(fired) < len(table):
        assert ctx.poll(True)
    expected = sorted((ns, step, n) for n, (ns, step) in table.items())
    assert fired == [(ns, n) for ns, _, n in expected]
    ctx.close()
