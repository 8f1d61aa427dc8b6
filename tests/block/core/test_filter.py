# SPDX-License-Identifier: GPL-2.0-only
"""The base of plain filters: what it does not write itself, the child does."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

import pytest

import block
from block.aio.context import AioContext
from block.core import flags as f
from block.core import reopen
from block.core.backend import BlockBackend, BlockDevOps
from block.core.error import BlockError
from block.core.filter import FilterDriver, pass_try_preadv
from block.core.node import BlockDriverState
from tests.support.drivers import (
    Disk,
    FastRam,
    Outcome,
    ZeroRam,
    backend_on,
    filter_node,
    ram_node,
)
from tests.support.images import registered_driver


class Plain(FilterDriver):
    """A filter that has nothing of its own."""

    format_name = "plain"


class FastPlain(Plain):
    """One that leaves reads alone, and says so."""

    try_preadv = pass_try_preadv


class OwnFlush(Plain):
    """One that flushes in its own way: not at all."""

    calls = 0

    async def co_flush(self, bs: BlockDriverState) -> None:
        OwnFlush.calls += 1


class Ears(BlockDevOps):
    """A device that hears of a new length."""

    def __init__(self, heard: Callable[[], None]) -> None:
        self.heard = heard

    def resize(self) -> None:
        self.heard()


def filter_on(driver: type[Plain], below: BlockDriverState) -> BlockDriverState:
    with registered_driver(driver):
        return filter_node(below, driver.format_name, discard="unmap")


@pytest.fixture
def disk() -> Disk:
    return Disk(1 << 16)


@pytest.fixture
def blk(disk: Disk) -> Iterator[BlockBackend]:
    """A backend over a plain filter over a disk in memory that writes down what it is asked."""
    backend = backend_on(filter_on(Plain, ram_node(disk, driver=ZeroRam)))
    yield backend
    backend.unref()


def test_requests_go_to_the_child_as_they_are(disk: Disk, blk: BlockBackend) -> None:
    blk.pwrite(512, b"a" * 100)
    assert blk.pread(512, 3) == b"aaa"
    blk.pwrite_zeroes(512, 50)
    blk.pdiscard(4096, 512)
    asked = disk.asked("preadv", "pwritev", "pwrite_zeroes", "pdiscard")
    assert [entry[:3] for entry in asked] == [
        ("pwritev", 512, 100),
        ("preadv", 512, 3),
        ("pwrite_zeroes", 512, 50),
        ("pdiscard", 4096, 512),
    ]


def test_what_the_core_knows_goes_to_the_child_too(disk: Disk, blk: BlockBackend) -> None:
    blk.pwrite(0, b"x")
    blk.flush()
    blk.truncate(1 << 17)
    assert (disk.flushes, len(disk.data), blk.length) == (1, 1 << 17, 1 << 17)
    assert blk.bs is not None
    ret, pnum, where, file = blk.bs.block_status(1024, 512)
    assert (pnum, where, file) == (512, 1024, blk.bs.children[0].bs)
    assert ret & f.BDRV_BLOCK_OFFSET_VALID


def test_a_filter_is_as_long_as_its_child_and_its_parents_hear_of_it(disk: Disk) -> None:
    below = ram_node(disk)
    blk, other = backend_on(filter_on(Plain, below.ref())), backend_on(below)
    heard: list[int] = []
    blk.set_dev_ops(Ears(lambda: heard.append(blk.length)))
    other.truncate(1 << 17)
    assert (blk.length, heard) == (1 << 17, [1 << 17])
    blk.unref()
    other.unref()


def test_an_error_comes_up_unchanged(disk: Disk, blk: BlockBackend) -> None:
    disk.errors["preadv"] = BlockError(errno.ENOSPC, "out of reads")
    with pytest.raises(BlockError, match="out of reads"):
        blk.pread(0, 512)


@pytest.mark.parametrize(("driver", "coroutines"), [(Plain, 1), (FastPlain, 0)])
def test_only_a_filter_that_leaves_reads_alone_lets_them_pass_by(
    driver: type[Plain], coroutines: int, disk: Disk, main: AioContext
) -> None:
    blk = backend_on(filter_on(driver, ram_node(disk, driver=FastRam)))
    outcome = Outcome()
    blk.aio_preadv(0, [memoryview(bytearray(512))], outcome)
    while outcome.pending:
        main.poll(True)
    assert (outcome.ret, len(disk.asked("preadv"))) == (0, coroutines)
    blk.unref()


def test_a_driver_may_flush_in_its_own_way(disk: Disk) -> None:
    blk = backend_on(filter_on(OwnFlush, ram_node(disk)))
    OwnFlush.calls = 0
    blk.pwrite(0, b"x")
    blk.flush()
    assert (OwnFlush.calls, disk.flushes) == (1, 0)
    blk.unref()


def test_it_opens_reopens_and_supports_what_its_child_supports() -> None:
    with (
        registered_driver(Plain),
        block.open(
            options={"driver": "plain", "file": {"driver": "null-co", "size": "1M"}}
        ) as disk,
    ):
        bs = disk.bs
        assert bs is not None
        assert disk.length == 1 << 20
        assert bs.supported_write_flags == f.REQ_WRITE_UNCHANGED | f.REQ_FUA
        disk.set_perm(f.BLK_PERM_CONSISTENT_READ, f.BLK_PERM_ALL)
        reopen.set_read_only(bs, True)
        assert bs.children[0].bs.read_only
        assert bs.children[0].perm == f.BLK_PERM_CONSISTENT_READ


def test_a_filter_without_a_child_is_refused() -> None:
    with registered_driver(Plain), pytest.raises(BlockError) as error:
        block.open(options={"driver": "plain"})
    assert str(error.value) == 'A block device must be specified for "file"'
