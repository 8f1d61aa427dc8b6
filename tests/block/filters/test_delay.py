# SPDX-License-Identifier: GPL-2.0-only
"""delay: requests take as long as the options say, and a drain waits for them."""

from __future__ import annotations

import errno

import pytest

import block
from block.aio.context import AioContext
from block.core.backend import BlockBackend
from block.core.error import BlockError
from tests.support.drivers import Disk, Outcome, ZeroRam, backend_on, filter_node, ram_node
from tests.support.virtual_tree import elapsed, reads, wait_for
from tests.support.virtual_world import VirtualWorld

MS = 1_000_000


def slow(disk: Disk, **options: object) -> BlockBackend:
    """A backend over delay over a disk in memory."""
    node = filter_node(ram_node(disk, driver=ZeroRam), "delay", discard="unmap", **options)
    return backend_on(node)


REQUESTS = {
    "read": lambda blk: blk.pread(0, 512),
    "write": lambda blk: blk.pwrite(0, b"x"),
    "zero": lambda blk: blk.pwrite_zeroes(0, 512),
    "discard": lambda blk: blk.pdiscard(0, 512),
    "flush": lambda blk: blk.flush(),
    "truncate": lambda blk: blk.truncate(1 << 21),
}


@pytest.mark.parametrize(
    ("options", "waits"),
    [
        ({"latency_ns": 3 * MS}, {"read": 3, "write": 3, "zero": 3, "discard": 3, "flush": 3}),
        ({"read_latency_ns": 2 * MS}, {"read": 2}),
        ({"write_latency_ns": 2 * MS}, {"write": 2, "zero": 2, "discard": 2}),
        ({"write_latency_ns": 2 * MS, "zero_latency_ns": 0}, {"write": 2, "discard": 2}),
        ({"discard_latency_ns": MS, "flush_latency_ns": 4 * MS}, {"discard": 1, "flush": 4}),
        ({"latency_ns": MS, "write_latency_ns": 0}, {"read": 1, "flush": 1}),
        ({}, {}),
    ],
)  # fmt: skip
def test_each_kind_of_request_waits_as_long_as_the_options_say(
    world: VirtualWorld, options: dict[str, int], waits: dict[str, int]
) -> None:
    blk = slow(Disk(), **options)
    for kind, request in REQUESTS.items():
        before = elapsed(world)
        request(blk)
        assert (kind, elapsed(world) - before) == (kind, waits.get(kind, 0) * MS)
    blk.unref()


def test_requests_wait_side_by_side_and_reach_the_disk_only_then(world: VirtualWorld) -> None:
    disk = Disk()
    blk = slow(disk, latency_ns=MS)
    outcomes = reads(blk, 10)
    assert disk.asked("preadv") == []
    wait_for(blk, outcomes)
    assert (len(disk.asked("preadv")), elapsed(world)) == (10, MS)
    blk.unref()


def test_an_error_comes_after_the_latency(world: VirtualWorld) -> None:
    disk = Disk()
    disk.errors["preadv"] = BlockError(errno.ENOSPC, "no more")
    blk = slow(disk, read_latency_ns=MS)
    with pytest.raises(BlockError, match="no more"):
        blk.pread(0, 1)
    assert elapsed(world) == MS
    blk.unref()


def test_without_a_latency_reads_take_the_fast_path(world: VirtualWorld) -> None:
    for latency, answer in ((0, 0), (1, None)):
        options = {"driver": "delay", "read-latency-ns": latency, "file.driver": "null-co"}
        with block.open(options=options) as blk:
            assert blk.root is not None
            assert blk.root.try_preadv(0, 512, [memoryview(bytearray(512))]) == answer


def test_what_waits_ends_before_a_move_and_leaves_nothing_behind(
    world: VirtualWorld, elsewhere: AioContext
) -> None:
    blk = slow(Disk(), latency_ns=MS)
    bs = blk.bs
    main = world.main_context
    write = Outcome()
    blk.aio_pwritev(0, [memoryview(b"moved")], write)
    outcomes = [write, *reads(blk, 3)]
    assert [r.kind for r in main.registrations(bs)] == ["timer"] * 4
    for there, here in ((elsewhere, main), (main, elsewhere)):
        blk.set_aio_context(there)
        assert [outcome.ret for outcome in outcomes] == [0] * len(outcomes)
        with here:
            assert here.registrations(bs) == []
        outcomes = reads(blk, 3)
        with there:
            assert [r.kind for r in there.registrations(bs)] == ["timer"] * 3
    wait_for(blk, outcomes)
    assert blk.pread(0, 5) == b"moved"
    blk.unref()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"read-latency-ns": -1}, "read-latency-ns is invalid"),
        ({"flush-latency-ns": "soon"}, "Parameter 'flush-latency-ns' expects a number"),
        ({"speed": 1}, "Block format 'delay' does not support the option 'speed'"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(BlockError) as error:
        block.open(options={"driver": "delay", "file.driver": "null-co", **options})
    assert str(error.value) == message
