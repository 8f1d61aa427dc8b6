# SPDX-License-Identifier: GPL-2.0-only
"""Looking for a while before sleeping: the rules of polling.py, in a time that each look moves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from block.aio.context import AioContext
from block.aio.embed import EmbeddedContext
from block.aio.notifier import EventNotifier
from block.aio.poll_window import IDLE_NS
from block.aio.polling import IDLE_HANDLER_NS
from block.aio.world import ClockType
from tests.support.looking import LOOK_NS, MAX_NS, LookingWorld, Mailbox, Yes


@pytest.fixture
def world() -> LookingWorld:
    return LookingWorld()


@pytest.fixture
def ctx(world: LookingWorld) -> Iterator[AioContext]:
    """A context that looks up to 100 us, and has found that it pays."""
    context = AioContext("looking", world)
    context.set_poll_params(MAX_NS, shrink=1)
    context.polling.window.ns = MAX_NS
    context.polling.trial = Yes()
    yield context
    context.close()


@pytest.fixture
def box(ctx: AioContext) -> Iterator[Mailbox]:
    """A mailbox whose notifier was set once: the context looks at it from now on."""
    mailbox = Mailbox(ctx)
    mailbox.ring()
    assert ctx.poll(True)
    assert mailbox.log == ["rung"]
    mailbox.log.clear()
    yield mailbox
    mailbox.close()


def sleep_at_most(ctx: AioContext, ns: int) -> None:
    """Polls once, with a timer that ends it; only a loop that sleeps is not ended by it early."""
    timer = ctx.timer_new(ClockType.VIRTUAL, lambda: None)
    timer.mod(ctx.clock_ns(ClockType.VIRTUAL) + ns)
    ctx.poll(True)
    timer.delete()


def test_what_is_seen_while_looking_is_done_without_a_ring(
    ctx: AioContext, world: LookingWorld, box: Mailbox
) -> None:
    world.at_look = [lambda: None, lambda: None, box.put]
    assert ctx.poll(True)
    assert box.log == ["begin", "seen"]


def test_who_brings_work_is_told_to_ring_before_the_loop_sleeps(
    ctx: AioContext, box: Mailbox
) -> None:
    sleep_at_most(ctx, 10 * MAX_NS)
    assert box.log == ["begin", "end"]
    box.ring()
    assert ctx.poll(True)
    assert box.log == ["begin", "end", "rung"]


def test_a_look_lasts_as_long_as_the_window(
    ctx: AioContext, world: LookingWorld, box: Mailbox
) -> None:
    before = box.n_polls
    sleep_at_most(ctx, 10 * MAX_NS)
    assert MAX_NS // LOOK_NS - 2 <= box.n_polls - before <= MAX_NS // LOOK_NS + 2


def test_and_no_longer_than_until_the_first_timer(
    ctx: AioContext, world: LookingWorld, box: Mailbox
) -> None:
    before = box.n_polls
    fired: list[int] = []
    timer = ctx.timer_new(ClockType.VIRTUAL, lambda: fired.append(1))
    timer.mod(ctx.clock_ns(ClockType.VIRTUAL) + 10 * LOOK_NS)
    while not fired:
        ctx.poll(True)
    timer.delete()
    assert box.n_polls - before <= 12


def test_a_handler_is_not_looked_at_before_its_descriptor_was_ready_once(ctx: AioContext) -> None:
    mailbox = Mailbox(ctx)
    mailbox.put()
    sleep_at_most(ctx, 10 * MAX_NS)
    assert mailbox.log == []
    assert mailbox.n_polls == 0
    mailbox.close()


def test_and_no_more_when_nothing_came_for_seven_seconds(
    ctx: AioContext, world: LookingWorld, box: Mailbox
) -> None:
    sleep_at_most(ctx, 10 * MAX_NS)
    world.advance(IDLE_HANDLER_NS)
    sleep_at_most(ctx, 10 * MAX_NS)
    assert box.log == ["begin", "end"] * 2
    before = box.n_polls
    sleep_at_most(ctx, 10 * MAX_NS)
    assert box.n_polls == before
    box.ring()
    assert ctx.poll(True)
    assert box.log[-1] == "rung"


def test_what_comes_while_rings_are_asked_for_again_is_not_lost(
    ctx: AioContext, box: Mailbox
) -> None:
    box.before_end = box.put
    ctx.poll(True)  # would sleep for ever
    assert box.log == ["begin", "end", "rung"]


def test_between_two_looks_every_pass_looks_since_nobody_rings(
    ctx: AioContext, world: LookingWorld, box: Mailbox
) -> None:
    world.at_look = [lambda: None, box.put]
    assert ctx.poll(True)
    box.put()
    assert ctx.poll(False)
    assert box.log == ["begin", "seen", "seen"]


def test_also_one_that_another_thread_has_notified(
    ctx: AioContext, world: LookingWorld, box: Mailbox
) -> None:
    world.at_look = [lambda: None, box.put]
    assert ctx.poll(True)
    box.put()
    ctx.notify()
    assert ctx.poll(True)
    assert box.log == ["begin", "seen", "seen"]


def test_a_nested_poll_sees_it_too_and_the_outer_one_does_not_do_it_again(
    ctx: AioContext, world: LookingWorld, box: Mailbox
) -> None:
    world.at_look = [lambda: None, box.put]
    assert ctx.poll(True)
    other = ctx.world.new_notifier()
    box.log.clear()

    def nested(notifier: EventNotifier) -> None:
        notifier.test_and_clear()
        assert ctx.poll(False)
        assert box.log == ["seen"]

    ctx.set_event_notifier(other, nested)
    other.set()
    box.put()
    assert ctx.poll(False)
    assert box.log == ["seen"]
    ctx.set_event_notifier(other, None)
    other.close()


def test_a_bottom_half_from_another_thread_ends_the_look(
    ctx: AioContext, world: LookingWorld, box: Mailbox
) -> None:
    ran: list[int] = []

    def schedule() -> None:
        thread = threading.Thread(target=lambda: ctx.bh_schedule_oneshot(lambda: ran.append(1)))
        thread.start()
        thread.join()

    world.at_look = [lambda: None, schedule]
    start = world.now[ClockType.REALTIME]
    assert ctx.poll(True)
    assert ran == [1]
    assert world.now[ClockType.REALTIME] - start < MAX_NS // 2
    assert not ctx._notifier.test_and_clear()  # nobody slept, so nobody had to be woken


def test_another_descriptor_ends_it_at_once(
    ctx: AioContext, world: LookingWorld, box: Mailbox
) -> None:
    rung: list[EventNotifier] = []
    other = ctx.world.new_notifier()
    ctx.set_event_notifier(other, rung.append)
    world.at_look = [lambda: None, other.set]
    start = world.now[ClockType.REALTIME]
    assert ctx.poll(True)
    assert rung == [other]
    assert world.now[ClockType.REALTIME] - start < MAX_NS // 2
    ctx.set_event_notifier(other, None)
    other.close()


def look_once(ctx: AioContext, world: LookingWorld, box: Mailbox) -> None:
    """Leaves the context between two looks."""
    world.at_look = [lambda: None, box.put]
    assert ctx.poll(True)
    assert box.log == ["begin", "seen"]
    box.log.clear()


def test_a_handler_that_is_removed_is_told_to_be_rung_again(
    ctx: AioContext, world: LookingWorld, box: Mailbox
) -> None:
    look_once(ctx, world, box)
    box.detach()
    assert box.log == ["end"]
    box.put()
    ctx.poll(False)
    assert box.log == ["end"]


def test_and_goes_on_in_another_context_with_what_came_meanwhile(
    ctx: AioContext, world: LookingWorld, box: Mailbox
) -> None:
    look_once(ctx, world, box)
    there = AioContext("there", world)
    box.put()
    box.detach()
    box.attach(there)
    assert there.poll(True)
    assert box.log == ["end", "rung"]
    assert not ctx.registrations(box)
    assert [entry.what for entry in there.registrations(box)] == [
        f"fd {box.notifier.fileno()}, looked at"
    ]
    box.detach()
    there.close()
    box.attach(ctx)


def test_a_handler_that_is_replaced_is_looked_at_no_more(
    ctx: AioContext, world: LookingWorld, box: Mailbox
) -> None:
    look_once(ctx, world, box)
    ctx.set_event_notifier(box.notifier, box.rung)
    assert box.log == ["end"]
    box.put()
    ctx.poll(False)
    assert box.log == ["end"]


def test_in_a_drained_section_nobody_looks(ctx: AioContext, world: LookingWorld) -> None:
    box = Mailbox(ctx, is_external=True)
    box.ring()
    assert ctx.poll(True)
    box.log.clear()
    look_once(ctx, world, box)
    ctx.disable_external()
    assert box.log == ["end"]
    box.put()
    before = box.n_polls
    sleep_at_most(ctx, 10 * MAX_NS)
    assert box.n_polls == before
    assert box.log == ["end"]
    ctx.enable_external()
    box.ring()
    assert ctx.poll(True)
    assert box.log == ["end", "begin", "rung"]
    box.close()


def test_what_came_before_the_drained_section_rings_after_it(
    ctx: AioContext, world: LookingWorld
) -> None:
    box = Mailbox(ctx, is_external=True)
    box.ring()
    assert ctx.poll(True)
    box.log.clear()
    look_once(ctx, world, box)
    box.put()
    ctx.disable_external()
    assert not ctx.poll(False)
    ctx.enable_external()
    assert ctx.poll(False)
    assert box.log == ["end", "begin", "rung"]
    box.close()


def test_a_loop_inside_asyncio_sleeps_there_and_never_looks(
    ctx: AioContext, world: LookingWorld, box: Mailbox
) -> None:
    look_once(ctx, world, box)

    async def main() -> None:
        done = asyncio.Event()
        with EmbeddedContext(ctx):
            assert box.log == ["end"]
            before = box.n_polls
            box.ring()
            ctx.timer_new(ClockType.VIRTUAL, done.set).mod(0)
            await done.wait()
            assert box.n_polls == before

    asyncio.run(main())
    assert box.log == ["end", "rung"]


def test_with_a_maximum_of_0_a_context_never_looks(ctx: AioContext, box: Mailbox) -> None:
    ctx.set_poll_params(0)
    before = box.n_polls
    sleep_at_most(ctx, 10 * MAX_NS)
    assert box.n_polls == before
    assert box.log == []


def test_while_the_trial_says_no_a_context_does_not_look(ctx: AioContext, box: Mailbox) -> None:
    ctx.polling.trial.looking = False
    before = box.n_polls
    sleep_at_most(ctx, 10 * MAX_NS)
    assert box.n_polls == before


def test_window_and_trial_learn_from_looking_and_sleeping_together(
    ctx: AioContext, world: LookingWorld, box: Mailbox
) -> None:
    window = ctx.polling.window
    window.ns = 50_000
    sleep_at_most(ctx, 80_000)
    assert isinstance(ctx.polling.trial, Yes)
    assert 75_000 <= ctx.polling.trial.seen[-1][0] <= 90_000
    assert window.ns == MAX_NS  # it was too short, and there is room to grow


def test_the_trial_hears_how_much_was_taken_between_the_ends_of_two_waits(
    ctx: AioContext, world: LookingWorld, box: Mailbox
) -> None:
    trial = ctx.polling.trial
    assert isinstance(trial, Yes)
    sleep_at_most(ctx, 80_000)
    box.put()
    assert ctx.poll(True)
    world.advance(500_000)  # what the work takes is part of the bargain
    sleep_at_most(ctx, 80_000)
    ns, work = trial.seen[-1]
    assert work == 1
    assert 575_000 <= ns <= 590_000


def test_a_wait_for_the_next_day_is_not_told_to_the_trial(ctx: AioContext, box: Mailbox) -> None:
    trial = ctx.polling.trial
    assert isinstance(trial, Yes)
    trial.seen.clear()
    sleep_at_most(ctx, IDLE_NS + 100_000)
    assert trial.seen == []
    sleep_at_most(ctx, 80_000)
    assert 75_000 <= trial.seen[-1][0] <= 90_000, "nor is it part of the next cycle"
