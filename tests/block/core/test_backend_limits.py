# SPDX-License-Identifier: GPL-2.0-only
"""Limits of a BlockBackend's own: what -drive throttling.* makes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from block.aio.context import AioContext
from block.core import backend_io
from block.core.backend import BlockBackend
from block.core.backend_limits import io_limits_disable, io_limits_enable, set_io_limits
from block.core.io import try_preadv
from block.core.open import bdrv_open
from block.core.replace import replace_node
from block.objects import throttle_group
from block.objects.throttle_bucket import READ, WRITE
from block.objects.throttle_group import groups
from block.objects.throttle_options import config_of
from tests.support.drivers import Disk, FastRam, Outcome, backend_on, ram_node
from tests.support.throttled import PERM, SECOND_NS, Load, now_ns, rets, run, submit, virtual_world
from tests.support.virtual_world import START_NS, VirtualWorld


@pytest.fixture(autouse=True)
def world() -> Iterator[VirtualWorld]:
    with virtual_world() as virtual:
        yield virtual
        assert groups == {}, "a group is left behind"


def limited(group: str = "g", **limits: int) -> BlockBackend:
    blk = backend_on(bdrv_open(options={"driver": "null-co", "discard": "unmap"}), PERM)
    io_limits_enable(blk, group)
    set_io_limits(blk, config_of({key.replace("_", "-"): n for key, n in limits.items()}))
    return blk


@pytest.mark.parametrize("direction", [READ, WRITE])
def test_a_device_keeps_to_its_rate(direction: int) -> None:
    with limited(iops_total=25) as disk:
        load = Load(disk, 60, direction)
        run(disk.aio_context, load)
    assert 1500 <= load.done <= 1504


def test_requests_with_a_callback_wait_too_and_the_quick_ones_are_counted() -> None:
    with limited(iops_read=10) as disk:
        outcomes = submit(disk, 22)
        while None in rets(outcomes):
            disk.aio_context.poll(True)
        # The first two come at once.
        assert now_ns(disk) - START_NS == pytest.approx(2 * SECOND_NS, abs=30)


def test_zeroes_count_as_writes_and_flushes_and_discards_do_not() -> None:
    with limited(iops_total=1) as disk:
        disk.pread(0, 512)
        disk.pdiscard(0, 4096)
        disk.flush()
        assert now_ns(disk) == START_NS
        disk.pwrite_zeroes(0, 4096)
        assert now_ns(disk) > START_NS + SECOND_NS // 2


def test_what_is_refused_does_not_count() -> None:
    with limited(iops_total=1) as disk:
        outcomes = [Outcome() for _ in range(5)]
        for outcome in outcomes:
            disk.aio_preadv(1 << 40, [memoryview(bytearray(512))], outcome)
        while None in rets(outcomes):
            disk.aio_context.poll(True)
        assert rets(outcomes) == {-5}
        disk.pread(0, 512)
        assert now_ns(disk) == START_NS


def test_two_devices_share_a_group_whose_last_limits_hold(world: VirtualWorld) -> None:
    with limited(iops_total=1000) as one, limited(iops_total=10) as two:
        loads = [Load(blk, 60) for blk in (one, two)]
        run(world.main_context, *loads)
        assert groups["g"].refcnt == 2
    assert 600 <= loads[0].done + loads[1].done <= 603
    assert abs(loads[0].done - loads[1].done) <= 4


@pytest.mark.parametrize("how", ["drain", "close", "disable", "remove"])
def test_what_waits_goes_at_once_where_the_device_must_stand_still(how: str) -> None:
    disk = limited(iops_total=1)
    outcomes = submit(disk, 10)
    assert None in rets(outcomes)
    if how == "drain":
        disk.drain()
    elif how == "disable":
        io_limits_disable(disk)
        assert (disk.limits, disk.try_read) == (None, try_preadv)
    elif how == "remove":
        disk.remove_bs()
    else:
        disk.unref()
    assert rets(outcomes) == {0}
    assert disk._world.clock_ns(throttle_group.ClockType.REALTIME) == START_NS
    if how != "close":
        disk.unref()


def test_limits_hold_for_the_next_medium_too() -> None:
    disk = limited(iops_total=10)
    bs = disk.bs
    assert bs is not None
    bs.ref()
    disk.remove_bs()
    assert disk.aio_context.registrations(disk) == []
    disk.insert_bs(bs)
    bs.unref()
    load = Load(disk, 10)
    run(disk.aio_context, load)
    assert 100 <= load.done <= 103
    disk.close()


def test_limits_may_come_before_the_medium() -> None:
    disk = BlockBackend(PERM)
    io_limits_enable(disk, "g")
    set_io_limits(disk, config_of({"iops-total": 10}))
    assert disk.aio_context.registrations(disk) == []
    bs = bdrv_open(options={"driver": "null-co"})
    bs.drained_begin()
    disk.insert_bs(bs)
    outcomes = submit(disk, 3)
    bs.drained_end()
    bs.unref()
    while None in rets(outcomes):
        disk.aio_context.poll(True)
    assert now_ns(disk) > START_NS
    disk.close()


def test_a_move_takes_timers_along(world: VirtualWorld) -> None:
    other = AioContext("other", world)
    with limited(iops_total=10) as disk:
        outcomes = submit(disk, 20)
        disk.set_aio_context(other)
        assert rets(outcomes) == {0}
        assert world.main_context.registrations(disk) == []
        assert {each.kind for each in other.registrations(disk)} == {"timer", "bh"}
        load = Load(disk, 30)
        run(other, load)
        assert 280 <= load.done <= 283  # two seconds were taken in advance
        disk.set_aio_context(world.main_context)
        assert other.registrations(disk) == []
    other.close()


def test_limits_follow_the_root_to_another_node(world: VirtualWorld) -> None:
    other = AioContext("other", world)
    with limited(iops_total=10) as disk:
        old, new = disk.bs, bdrv_open(options={"driver": "null-co"})
        assert old is not None
        submit(disk, 5)
        replace_node(old, new)
        assert disk.bs is new
        new.unref()
        disk.set_aio_context(other)
        assert {each.kind for each in other.registrations(disk)} == {"timer", "bh"}
        disk.set_aio_context(world.main_context)
    other.close()


def test_a_device_changes_its_group() -> None:
    with limited("a", iops_total=1) as disk:
        outcomes = submit(disk, 5)
        io_limits_enable(disk, "b")
        assert rets(outcomes) == {0}
        assert list(groups) == ["b"]
        io_limits_enable(disk, "b")
        set_io_limits(disk, config_of({"iops-total": 50}))
        load = Load(disk, 10)
        run(disk.aio_context, load)
        assert 500 <= load.done <= 506


def test_limits_that_begin_in_a_drained_section_begin_after_it() -> None:
    with limited(iops_total=10) as disk:
        io_limits_disable(disk)
        assert disk.bs is not None
        disk.bs.drained_begin()
        io_limits_enable(disk, "g")
        assert disk.limits is not None
        assert disk.limits.member.io_limits_disabled == 1
        disk.bs.drained_end()
        assert disk.limits.member.io_limits_disabled == 0


def test_a_read_that_can_be_answered_at_once_still_is() -> None:
    state = Disk()
    disk = backend_on(ram_node(state, driver=FastRam))
    io_limits_enable(disk, "g")
    set_io_limits(disk, config_of({"iops-total": 20}))
    outcomes = submit(disk, 4)
    assert state.asked("try_preadv") == [("try_preadv", 0, 512)] * 3
    while None in rets(outcomes):
        disk.aio_context.poll(True)
    assert len(state.asked("preadv")) == 1
    disk.close()


def test_without_limits_the_fast_path_is_the_trees_own() -> None:
    disk = backend_on(bdrv_open(options={"driver": "null-co"}), PERM)
    assert disk.try_read is backend_io.try_preadv
    assert disk.limits is None
    disk.close()
