# SPDX-License-Identifier: GPL-2.0-only
"""Throttled disks in several event loops: shared groups, moves with a queue, loops that sleep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.aio.world import the_world
from block.core.backend import BlockBackend
from block.objects import throttle_group
from block.objects.throttle_bucket import READ, WRITE
from tests.support.drivers import Outcome
from tests.support.throttled import (
    SECOND_NS,
    Load,
    group,
    member_of,
    now_ns,
    rets,
    run,
    submit,
    throttled,
    virtual_world,
)
from tests.support.virtual_world import START_NS, VirtualWorld


@pytest.fixture
def world() -> Iterator[VirtualWorld]:
    with virtual_world() as virtual:
        virtual.audit = True
        yield virtual


def kinds(ctx: AioContext, disk: BlockBackend) -> list[str]:
    """What a context holds for the throttle node of a disk."""
    with ctx:
        return sorted(each.kind for each in ctx.registrations(disk.bs))


# -- moves; two loops in one thread, so that time is virtual


def test_a_move_takes_timers_along_and_leaves_nothing_behind(world: VirtualWorld) -> None:
    main, other = world.main_context, AioContext("other", world)
    with group(iops_total=10), throttled() as disk:
        for here, there in [(main, other), (other, main)]:
            outcomes = submit(disk, 25)
            assert kinds(here, disk) == ["bh", "timer", "timer"]
            disk.set_aio_context(there)
            assert rets(outcomes) == {0}
            assert kinds(here, disk) == []
            assert kinds(there, disk) == ["bh", "timer", "timer"]
            assert member_of(disk).ctx is there
    other.close()


def test_the_limits_hold_in_the_new_loop_and_time_is_not_given_away(world: VirtualWorld) -> None:
    other = AioContext("other", world)
    with group(iops_total=10), throttled() as disk:
        submit(disk, 21)
        disk.set_aio_context(other)
        assert now_ns(disk) == START_NS
        late = submit(disk, 1)
        while None in rets(late):
            other.poll(True)
        assert now_ns(disk) - START_NS == pytest.approx(2 * SECOND_NS, abs=2)
        load = Load(disk, 30)
        run(other, load)
        assert 299 <= load.done <= 301
        disk.set_aio_context(world.main_context)
    other.close()


def test_requests_that_come_during_a_move_wait_in_the_new_loop(world: VirtualWorld) -> None:
    main, other = world.main_context, AioContext("other", world)
    with group(iops_total=1), throttled() as disk:
        assert disk.bs is not None
        before = submit(disk, 3)
        disk.bs.drained_begin()
        parked = submit(disk, 3)
        disk.set_aio_context(other)
        assert (rets(before), rets(parked)) == ({0}, {None})
        with other:
            disk.bs.drained_end()
        while None in rets(parked):
            other.poll(True)
        assert now_ns(disk) > START_NS + 4 * SECOND_NS
        disk.set_aio_context(main)
    other.close()


def test_the_turn_of_a_disk_that_moves_away_goes_to_the_next(world: VirtualWorld) -> None:
    main, other = world.main_context, AioContext("other", world)
    with group(iops_total=1) as slow, throttled() as one, throttled() as two:
        going = submit(one, 3)
        assert slow.armed[READ] is member_of(one)
        staying = submit(two, 3)
        one.set_aio_context(other)
        assert (rets(going), rets(staying)) == ({0}, {None})
        assert slow.armed[READ] is member_of(two)
        while None in rets(staying):
            main.poll(True)
        one.set_aio_context(main)
    other.close()


def test_a_turn_that_comes_during_the_drain_is_not_lost_with_the_move(world: VirtualWorld) -> None:
    """A neighbour's thread gives the turn to a disk whose last request has just gone."""
    main, other = world.main_context, AioContext("other", world)
    with group(iops_total=1) as slow, throttled() as here, throttled() as there:
        there.set_aio_context(other)
        submit(there, 3)
        assert there.bs is not None
        there.bs.drained_begin()
        waiting = submit(here, 2)
        with slow.lock:
            slow.arm(member_of(there), READ, slow.now())
        there.set_aio_context(main)
        assert slow.armed[READ] is member_of(here)
        while None in rets(waiting):
            main.poll(True)
        there.bs.drained_end()
    other.close()


def test_a_detach_with_a_request_waiting_is_refused(world: VirtualWorld) -> None:
    """As in dc868fb03b (2017): the timers went away, and the request waited for ever."""
    with group(iops_total=1), throttled() as disk:
        submit(disk, 3)
        with pytest.raises(AssertionError, match="R4: requests wait here"):
            member_of(disk).detach()
        disk.drain()


# -- a loop that stands still


def test_nobody_waits_for_ever_for_a_loop_that_sleeps(world: VirtualWorld) -> None:
    """The main thread waits for one disk and polls its loop only, the other has the turn."""
    main, other = world.main_context, AioContext("other", world)
    with group(iops_total=10) as slow, throttled() as here, throttled() as there:
        there.set_aio_context(other)
        mine = submit(here, 30)
        assert slow.armed[READ] is member_of(here)
        theirs = submit(there, 8)
        while None in rets(theirs):
            other.poll(True)
        waited = now_ns(there) - START_NS
        assert SECOND_NS // 2 < waited <= 8 * (throttle_group.NEIGHBOUR_LATE_NS + SECOND_NS // 10)
        assert None in rets(mine)
        while None in rets(mine):
            main.poll(True)
        there.set_aio_context(main)
    other.close()


def test_a_turn_from_another_thread_comes_at_its_time(world: VirtualWorld) -> None:
    """Nobody is at home in the other loop while this one runs, as if its thread were another."""
    main, other = world.main_context, AioContext("other", world)
    other.disown()
    with group(iops_total=4) as slow, throttled() as here, throttled() as there:
        there.set_aio_context(other)
        mine = submit(here, 2)
        with other:
            theirs = submit(there, 1)
        while None in rets(mine):
            main.poll(True)
        assert slow.armed[READ] is member_of(there)
        with other:
            while None in rets(theirs):
                other.poll(True)
        assert now_ns(there) - START_NS == pytest.approx(0.4 * SECOND_NS, abs=2)
        there.set_aio_context(main)
    with other:
        other.close()


def test_who_is_not_late_keeps_the_turn(world: VirtualWorld) -> None:
    other = AioContext("other", world)
    with group(iops_total=10) as slow, throttled() as here, throttled() as there:
        there.set_aio_context(other)
        submit(here, 3)
        theirs = submit(there, 1)
        due = slow.due_ns[READ]
        world.advance(due - now_ns(here) + throttle_group.NEIGHBOUR_LATE_NS - 1)
        other.poll(False)
        assert slow.armed[READ] is member_of(here)
        assert rets(theirs) == {None}
        here.drain()
        while None in rets(theirs):
            other.poll(True)
        there.set_aio_context(world.main_context)
    other.close()


def test_who_is_a_little_late_keeps_the_turn(world: VirtualWorld) -> None:
    main, other = world.main_context, AioContext("other", world)
    with group(iops_total=33) as slow, ExitStack() as disks:
        here = [disks.enter_context(throttled()) for _ in range(7)]
        there = disks.enter_context(throttled())
        there.set_aio_context(other)
        for disk in here:
            submit(disk, 4)
        theirs = submit(there, 1)
        first = slow.due_ns[READ]
        while slow.due_ns[READ] < first + throttle_group.NEIGHBOUR_LATE_NS:
            main.poll(True)
        turn = slow.armed[READ]
        assert turn is not member_of(there)
        world.advance(slow.due_ns[READ] - now_ns(there) + 1)
        other.poll(False)
        assert slow.armed[READ] is turn
        while None in rets(theirs):
            main.poll(True)
            other.poll(False)
        there.set_aio_context(main)
    other.close()


def test_who_takes_an_overdue_turn_keeps_to_the_limits(world: VirtualWorld) -> None:
    main, other = world.main_context, AioContext("other", world)
    with group(iops_total=10), throttled() as here, throttled() as there, throttled() as third:
        there.set_aio_context(other)
        submit(here, 3)
        theirs = submit(there, 1)
        submit(third, 100)
        third.drain()
        while None in rets(theirs):
            other.poll(True)
        assert now_ns(there) - START_NS > 9 * SECOND_NS
        there.set_aio_context(main)
    other.close()


def test_an_old_timer_that_fires_before_the_turn_begins_nothing(world: VirtualWorld) -> None:
    """Another thread gives a turn while this one is about to fire its timers."""
    main, other = world.main_context, AioContext("other", world)
    with group(iops_total=1) as slow, throttled() as here, throttled() as there:
        there.set_aio_context(other)
        submit(here, 2)
        theirs = submit(there, 1)
        while slow.armed[READ] is not member_of(there):
            main.poll(True)
        member_of(there).timers[READ].callback()
        assert rets(theirs) == {None}
        assert slow.armed[READ] is member_of(there)
        while None in rets(theirs):
            other.poll(True)
        there.set_aio_context(main)
    other.close()


def test_both_loops_get_their_share_when_both_run(world: VirtualWorld) -> None:
    other = AioContext("other", world)
    with group(iops_total=20), throttled() as here, throttled() as there:
        there.set_aio_context(other)
        loads = [Load(blk, 60, direction) for blk in (here, there) for direction in (READ, WRITE)]
        while not all(load.over for load in loads):
            # Two sleepers in one thread: the one with the nearer timer sleeps.
            for ctx in (world.main_context, other):
                while ctx.poll(False):
                    pass
            waits = [ctx.timeout_ns() for ctx in (world.main_context, other)]
            world.advance(min((wait for wait in waits if wait >= 0), default=0))
        done = [load.done for load in loads]
        assert 1200 <= sum(done) <= 1206
        assert abs(done[0] + done[1] - done[2] - done[3]) <= 8
        there.set_aio_context(world.main_context)
    other.close()


# -- real threads and real time: no promise about the clock, only that nothing is lost


def keep_busy(disk: BlockBackend, count: int) -> list[Outcome]:
    """Submits reads in the thread where the disk lives when it comes to that."""
    outcomes: list[Outcome] = []

    def from_bh() -> None:
        if disk.aio_context.is_home():
            outcomes.extend(submit(disk, count))
        else:  # it has moved on since
            disk.aio_context.bh_schedule_oneshot(from_bh)

    disk.aio_context.bh_schedule_oneshot(from_bh)
    return outcomes


def wait_for(outcomes: list[list[Outcome]], count: int) -> None:
    main = the_world().main_context
    while any(len(part) < count or None in rets(part) for part in outcomes):
        timer = main.timer_new(throttle_group.ClockType.REALTIME, lambda: None)
        timer.mod(main.clock_ns(throttle_group.ClockType.REALTIME) + 1_000_000)
        main.poll(True)
        timer.delete()


def test_two_iothreads_share_a_group_and_lose_nothing() -> None:
    with (
        IOThread("one") as one,
        IOThread("two") as two,
        group(iops_total=2000) as slow,
        throttled() as first,
        throttled() as second,
        throttled() as third,
    ):
        began = slow.now()
        first.set_aio_context(one.ctx)
        second.set_aio_context(two.ctx)
        disks = (first, second, third)
        wait_for([keep_busy(disk, 300) for disk in disks], 300)
        # 900 requests at 2,000 a second, 200 of them free: no sooner than that.
        assert slow.now() - began >= (900 - 200 - 2) * SECOND_NS // 2000
        assert slow.waiting == [0, 0]
        for disk in (first, second):
            disk.set_aio_context(the_world().main_context)


def test_a_tree_moves_among_threads_while_its_queue_is_full() -> None:
    with (
        IOThread("one") as one,
        IOThread("two") as two,
        group(iops_total=3000) as slow,
        throttled() as disk,
        throttled() as neighbour,
    ):
        main = the_world().main_context
        neighbour.set_aio_context(two.ctx)
        outcomes = [keep_busy(neighbour, 200)]
        for ctx in (one.ctx, two.ctx, main, one.ctx, main, two.ctx) * 4:
            outcomes.append(keep_busy(disk, 20))
            main.poll(False)
            disk.set_aio_context(ctx)
        wait_for(outcomes[:1], 200)
        wait_for(outcomes[1:], 20)
        assert {outcome.ret for part in outcomes for outcome in part} == {0}
        assert slow.waiting == [0, 0]
        for each in (disk, neighbour):
            each.set_aio_context(main)


def test_throttled_requests_complete_in_the_thread_of_their_loop() -> None:
    with IOThread("one") as one, group(iops_total=500), throttled() as disk:
        disk.set_aio_context(one.ctx)
        outcomes = keep_busy(disk, 100)
        wait_for([outcomes], 100)
        assert len({outcome.thread for outcome in outcomes}) == 1
        assert outcomes[0].thread != the_world().current()
        disk.set_aio_context(the_world().main_context)
