# SPDX-License-Identifier: GPL-2.0-only
"""The driver `throttle`: rates over minutes of virtual time, bursts, who waits, drains."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from block.aio.context import AioContext
from block.aio.coroutine import Coroutine
from block.core.backend import BlockBackend
from block.core.drain import drain_all_begin, drain_all_end
from block.objects import throttle_group
from block.objects.throttle_bucket import READ, WRITE
from tests.support.drivers import Outcome
from tests.support.throttled import (
    SECOND_NS,
    Load,
    group,
    main,
    member_of,
    now_ns,
    rets,
    run,
    submit_both,
    throttled,
    world,
)
from tests.support.virtual_world import START_NS, VirtualWorld

__all__ = ["main", "world"]


def rate(direction: int, nbytes: int = 4096, minutes: int = 2, **limits: int) -> float:
    """How many requests a second one user got through in some minutes."""
    with group(**limits), throttled() as disk:
        load = Load(disk, minutes * 60, direction, nbytes)
        run(disk.aio_context, load)
        return load.done / (minutes * 60)


# -- rates


@pytest.mark.parametrize(
    ("limit", "limited"),
    [
        ("iops_total", (READ, WRITE)),
        ("iops_read", (READ,)),
        ("iops_write", (WRITE,)),
    ],
)
@pytest.mark.parametrize("direction", [READ, WRITE])
def test_operations_keep_to_their_rate(
    limit: str, limited: tuple[int, ...], direction: int
) -> None:
    if direction not in limited:
        other = {"iops_read": "iops_write", "iops_write": "iops_read"}[limit]
        got = rate(direction, **{limit: 1, other: 20})
    else:
        got = rate(direction, **{limit: 20})
    # A tenth of a second of the rate comes at once, and one more: a request may overfill.
    assert 20 <= got <= 20 + 3 / 120


@pytest.mark.parametrize("nbytes", [512, 4096, 65536])
@pytest.mark.parametrize(
    ("limit", "direction"),
    [("bps_total", READ), ("bps_total", WRITE), ("bps_read", READ), ("bps_write", WRITE)],
)
def test_bytes_keep_to_their_rate(limit: str, direction: int, nbytes: int) -> None:
    bps = 64 << 10
    got = rate(direction, nbytes, **{limit: bps}) * nbytes
    assert bps <= got <= bps + (bps / 10 + 2 * nbytes) / 120


def test_reads_and_writes_share_a_total() -> None:
    with group(iops_total=30), throttled() as disk:
        reads = Load(disk, 60, READ)
        writes = Load(disk, 60, WRITE)
        run(disk.aio_context, reads, writes)
    assert 1800 <= reads.done + writes.done <= 1800 + 6
    assert abs(reads.done - writes.done) <= 10


def test_the_tighter_of_two_limits_holds() -> None:
    assert 10 <= rate(READ, 4096, iops_total=1000, bps_total=40960) <= 10.1
    assert 10 <= rate(READ, 4096, iops_total=10, bps_total=1 << 30) <= 10.1


def test_a_large_request_counts_as_several() -> None:
    assert 5 <= rate(READ, 8192, iops_total=10, iops_size=4096) <= 5.1
    assert 10 / 1.5 <= rate(READ, 6144, iops_total=10, iops_size=4096) <= 6.8
    assert 10 <= rate(READ, 512, iops_total=10, iops_size=4096) <= 10.1


def test_zeroes_and_discards_wait_as_writes_and_a_flush_does_not() -> None:
    with group(iops_write=1), throttled() as disk:
        disk.pwrite(0, b"full")
        assert now_ns(disk) == START_NS
        disk.pwrite_zeroes(0, 4096)
        assert now_ns(disk) == pytest.approx(START_NS + 0.9 * SECOND_NS, abs=2)
        disk.pdiscard(0, 4096)
        assert now_ns(disk) == pytest.approx(START_NS + 1.9 * SECOND_NS, abs=2)
        disk.pread(0, 512)
        disk.flush()
        assert now_ns(disk) == pytest.approx(START_NS + 1.9 * SECOND_NS, abs=2)


# -- bursts


def test_a_burst_lasts_until_the_bucket_is_full() -> None:
    limits = {"iops_total": 10, "iops_total_max": 100, "iops_total_max_length": 5}
    with group(**limits), throttled() as disk:
        load = Load(disk, 30)
        run(disk.aio_context, load)
    # 100 a second fill the bucket of 500, which leaks 10 a second, in 5.56 s; then it is 10.
    assert 500 <= load.done_by(5) <= 512
    assert 545 <= load.done_by(5.5) <= 562
    assert 555 + 24 * 10 <= load.done <= 560 + 25 * 10


def test_a_short_burst_comes_at_once_and_again_after_a_rest(world: VirtualWorld) -> None:
    with group(iops_total=10, iops_total_max=50), throttled() as disk:
        load = Load(disk, 1)
        run(disk.aio_context, load)
        assert load.done_by(0.01) == 51
        assert load.done <= 51 + 10
        world.advance(6 * SECOND_NS)
        again = Load(disk, 1)
        run(disk.aio_context, again)
        assert 51 <= again.done <= 61


# -- who waits, and in which order


def test_requests_run_in_the_order_in_which_they_came(main: AioContext) -> None:
    order: list[int] = []
    with group(iops_total=10), throttled() as disk:
        for number in range(30):
            disk.aio_preadv(
                0,
                [memoryview(bytearray(512))],
                lambda ret, number=number: order.append(number),  # type: ignore[misc]  # a lambda's default
            )
        while len(order) < 30:
            main.poll(True)
    assert order == list(range(30))


def test_nobody_overtakes_who_waits_when_there_is_room_again(world: VirtualWorld) -> None:
    order: list[str] = []

    def note(name: str) -> Callable[[int], None]:
        return lambda ret: order.append(name)

    with group(iops_total=10), throttled() as disk:
        for name in "abc":
            disk.aio_preadv(0, [memoryview(bytearray(512))], note(name))
        world.advance(SECOND_NS)
        disk.aio_preadv(0, [memoryview(bytearray(512))], note("d"))
        while len(order) < 4:
            disk.aio_context.poll(True)
    assert order == list("abcd")


def test_who_has_run_stands_at_the_end_of_the_line_again(world: VirtualWorld) -> None:
    order: list[str] = []

    async def reads(disk: BlockBackend, name: str, count: int) -> None:
        for number in range(count):
            await disk.co_preadv(0, 512, [memoryview(bytearray(512))])
            order.append(f"{name}{number}")

    with group(iops_total=10), throttled() as disk:
        for name, count in (("a", 4), ("b", 1)):
            disk.aio_context.co_enter(Coroutine(reads(disk, name, count)))
        assert order == ["a0", "a1"]
        world.advance(SECOND_NS)
        while len(order) < 5:
            disk.aio_context.poll(True)
    assert order == ["a0", "a1", "a2", "b0", "a3"]


def test_the_members_of_a_group_get_equal_shares(main: AioContext) -> None:
    with group(iops_total=30), throttled() as one, throttled() as two, throttled() as three:
        loads = [Load(blk, 60) for blk in (one, two, three, three, three)]
        run(main, *loads)
        shares = [loads[0].done, loads[1].done, sum(load.done for load in loads[2:])]
    assert 1800 <= sum(shares) <= 1805
    assert max(shares) - min(shares) <= 6


def test_two_groups_know_nothing_of_each_other(main: AioContext) -> None:
    with (
        group("a", iops_total=10),
        group("b", iops_total=100),
        throttled("a") as slow,
        throttled("b") as fast,
    ):
        loads = [Load(blk, 60) for blk in (slow, fast)]
        run(main, *loads)
    assert 600 <= loads[0].done <= 603
    assert 6000 <= loads[1].done <= 6015


def test_new_limits_hold_at_once_for_those_who_wait(main: AioContext) -> None:
    with group(iops_total=1) as slow, throttled() as disk:
        outcomes = submit_both(disk, 40)
        slow.configure(throttle_group.ThrottleConfig())
        while None in rets(outcomes):
            main.poll(True)
        assert now_ns(disk) == START_NS


# -- drained sections and the end


def test_a_drain_lets_all_go_that_waits_without_a_moments_delay(world: VirtualWorld) -> None:
    with group(iops_total=1), throttled() as disk:
        outcomes = submit_both(disk, 40)
        assert None in rets(outcomes)
        disk.drain()
        assert rets(outcomes) == {0}
        assert now_ns(disk) == START_NS
        assert member_of(disk).pending == [0, 0]


def test_after_a_drain_the_limits_hold_again_and_remember(main: AioContext) -> None:
    with group(iops_total=10), throttled() as disk:
        submit_both(disk, 41)
        disk.drain()
        late = Outcome()
        disk.aio_preadv(0, [memoryview(bytearray(512))], late)
        while late.pending:
            main.poll(True)
        # 41 were let through, one tenth of a second is free: four seconds to pay back.
        waited = now_ns(disk) - START_NS
        assert waited == pytest.approx(4 * SECOND_NS, abs=2)


def test_drain_all_and_nested_drains_let_go_too(world: VirtualWorld) -> None:
    with group(iops_total=1), throttled() as disk:
        assert disk.bs is not None
        outcomes = submit_both(disk, 10)
        disk.bs.drained_begin()
        drain_all_begin()
        assert rets(outcomes) == {0}
        assert member_of(disk).io_limits_disabled == 2
        drain_all_end()
        disk.bs.drained_end()
        assert member_of(disk).io_limits_disabled == 0
        assert now_ns(disk) == START_NS


def test_one_member_is_drained_and_the_others_go_on_waiting(main: AioContext) -> None:
    with group(iops_total=1), throttled() as one, throttled() as two:
        waiting = submit_both(two, 4)
        drained = submit_both(one, 4)
        one.drain()
        assert rets(drained) == {0}
        assert None in rets(waiting)
        while None in rets(waiting):
            main.poll(True)
        assert rets(waiting) == {0}


def test_a_request_from_above_does_not_wait_for_a_neighbour_in_a_drained_section() -> None:
    """A format that is drained still needs tables for what it has in flight."""
    done: list[bool] = []

    async def read(disk: BlockBackend) -> None:
        assert disk.root is not None
        await disk.root.co_preadv(0, 512, [memoryview(bytearray(512))])
        done.append(True)

    with group(iops_total=1), throttled() as one, throttled() as two:
        submit_both(two, 4)
        assert one.bs is not None
        one.bs.drained_begin()
        one.aio_context.co_enter(Coroutine(read(one)))
        assert done == [True]
        one.bs.drained_end()
        two.drain()


def test_a_turn_that_nobody_needs_any_more_goes_on(main: AioContext) -> None:
    with group(iops_total=10) as slow, throttled() as one, throttled() as two:
        waiting = submit_both(two, 8)
        member_of(two).timers[READ].cancel()
        with slow.lock:
            slow.arm(member_of(one), READ, slow.now())
        main.poll(True)
        assert slow.armed[READ] is member_of(two)
        while None in rets(waiting):
            main.poll(True)


def test_a_disk_is_closed_with_requests_waiting(world: VirtualWorld) -> None:
    with group(iops_total=1) as slow:
        disk = throttled()
        outcomes = submit_both(disk, 10)
        disk.close()
        assert rets(outcomes) == {0}
        assert (slow.members, slow.armed, slow.refcnt) == ([], [None, None], 1)
        assert slow.tokens == [None, None]
        assert slow.now() == START_NS


def test_the_turn_of_a_disk_that_is_closed_goes_to_the_next(main: AioContext) -> None:
    with group(iops_total=1) as slow, throttled() as other:
        disk = throttled()
        first = submit_both(disk, 4)
        assert slow.armed[READ] is member_of(disk)
        then = submit_both(other, 2)
        disk.close()
        assert rets(first) == {0}
        while None in rets(then):
            main.poll(True)
