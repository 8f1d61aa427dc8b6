# SPDX-License-Identifier: GPL-2.0-only
"""null-co and null-aio: disks that forget."""

from __future__ import annotations

import json

import pytest

import block
from block.aio.context import AioContext
from block.core import flags as f
from block.core import reopen
from block.core.error import BlockError
from tests.support.drivers import Outcome
from tests.support.virtual_tree import elapsed, reads, wait_for
from tests.support.virtual_world import VirtualWorld

DRIVERS = ["null-co", "null-aio"]
MS = 1_000_000


@pytest.mark.parametrize("driver", DRIVERS)
def test_it_has_a_gibibyte_and_forgets_what_is_written(driver: str) -> None:
    with block.open(f"{driver}://", format="raw") as disk:
        assert disk.length == 1 << 30
        disk.pwrite(0, b"forget me")
        disk.flush()


@pytest.mark.parametrize("driver", DRIVERS)
def test_it_reads_as_zeroes_when_asked_to(driver: str) -> None:
    options = {"driver": driver, "size": 4096, "read-zeroes": True}
    with block.open(options=options) as disk:
        buffer = bytearray(b"x" * 512)
        disk.preadv_into(0, [memoryview(buffer)])
        assert buffer == bytes(512)
        ret, pnum, _, _ = disk.bs.block_status(0, 4096)  # type: ignore[union-attr]  # it is there
        assert (bool(ret & 2), pnum) == (True, 4096)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_latency_makes_requests_wait_side_by_side(driver: str, world: VirtualWorld) -> None:
    with block.open(options={"driver": driver, "latency-ns": 5 * MS}) as disk:
        wait_for(disk, reads(disk, 8))
        assert elapsed(world) == 5 * MS
        disk.pwrite(0, b"x")
        disk.flush()
        assert elapsed(world) == 15 * MS


def test_null_co_answers_at_once_and_null_aio_by_a_bottom_half(world: VirtualWorld) -> None:
    for driver, left in (("null-co", 0), ("null-aio", 1)):
        with block.open(options={"driver": driver}) as disk:
            buffer = memoryview(bytearray(512))
            assert disk.root is not None
            assert disk.root.try_preadv(0, 512, [buffer]) == (None if left else 0)
            outcomes = reads(disk, 1)
            mine = world.main_context.registrations(disk.bs)
            assert [r.kind for r in mine] == ["bh"] * left
            wait_for(disk, outcomes)


@pytest.mark.parametrize("driver", DRIVERS)
def test_requests_in_flight_end_before_a_move_and_leave_nothing_behind(
    driver: str, world: VirtualWorld, elsewhere: AioContext
) -> None:
    with block.open(options={"driver": driver, "latency-ns": MS}) as disk:
        bs = disk.bs
        outcomes = reads(disk, 4)
        assert [r.kind for r in world.main_context.registrations(bs)] == ["timer"] * 4
        disk.set_aio_context(elsewhere)
        assert [outcome.ret for outcome in outcomes] == [0] * 4
        assert world.main_context.registrations(bs) == []
        outcomes = reads(disk, 2)
        with elsewhere:
            assert [r.kind for r in elsewhere.registrations(bs)] == ["timer"] * 2
        disk.set_aio_context(world.main_context)
        assert [outcome.ret for outcome in outcomes] == [0] * 2
        with elsewhere:
            assert elsewhere.registrations(bs) == []


def test_a_drain_waits_for_the_bottom_halves_of_null_aio(world: VirtualWorld) -> None:
    with block.open("null-aio://", format="raw") as disk:
        outcome = Outcome()
        disk.aio_pwritev(0, [memoryview(b"x")], outcome)
        assert outcome.pending
        disk.drain()
        assert outcome.ret == 0


@pytest.mark.parametrize("driver", DRIVERS)
def test_its_name_says_all_that_a_reader_could_notice(driver: str) -> None:
    with block.open(options={"driver": driver, "latency-ns": 7}) as disk:
        assert disk.bs is not None
        assert disk.bs.filename == f"{driver}://"
    with block.open(options={"driver": driver, "size": 512}) as disk:
        assert disk.bs is not None
        prefix, options = disk.bs.filename.split(":", 1)
        assert (prefix, json.loads(options)) == ("json", {"driver": driver, "size": 512})


@pytest.mark.parametrize("driver", DRIVERS)
def test_it_can_become_read_only(driver: str) -> None:
    with block.open(f"{driver}://", format="raw") as disk:
        assert disk.bs is not None
        disk.set_perm(f.BLK_PERM_CONSISTENT_READ, f.BLK_PERM_ALL)
        reopen.set_read_only(disk.bs, True)
        with pytest.raises(BlockError, match="read-only"):
            disk.pwrite(0, b"x")


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_makes_no_sense_is_refused(driver: str) -> None:
    with pytest.raises(BlockError) as error:
        block.open(f"{driver}://x")
    assert str(error.value) == f"The only allowed filename for this driver is '{driver}://'"
    with pytest.raises(BlockError) as error:
        block.open(options={"driver": driver, "latency-ns": -1})
    assert str(error.value) == "latency-ns is invalid"
