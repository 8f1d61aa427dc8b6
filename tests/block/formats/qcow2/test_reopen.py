# SPDX-License-Identifier: GPL-2.0-only
"""Other options for an open image, and the timer that empties its caches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import block
from block.aio.context import AioContext
from block.aio.world import ClockType
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.reopen import reopen
from block.formats.qcow2 import corrupt
from block.formats.qcow2.dirty import is_dirty
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.support.qcow2_disk import Tape, open_on
from tests.support.qcow2_tables import first_l2
from tests.support.virtual_tree import elsewhere, world
from tests.support.virtual_world import VirtualWorld

__all__ = ["elsewhere", "world"]

SECOND = 1_000_000_000


def change(disk: BlockBackend, **options: object) -> None:
    assert disk.bs is not None
    reopen(disk.bs, {name.replace("_", "-"): value for name, value in options.items()})


# -- reopen


def test_the_caches_get_other_sizes_and_lose_nothing(opener: Opener) -> None:
    disk = opener()
    data = os.urandom(SIZE)
    disk.pwrite(0, data[: SIZE // 2])
    change(disk, l2_cache_entry_size=512, l2_cache_size=2048, refcount_cache_size="256k")
    s = state_of(disk)
    assert (s.l2_cache.table_size, s.l2_cache.capacity) == (512, 4)
    disk.pwrite(SIZE // 2, data[SIZE // 2 :])
    assert len(s.l2_cache.tables) <= 4
    assert disk.pread(0, SIZE) == data
    change(disk, l2_cache_entry_size="64k")
    assert disk.pread(0, SIZE) == data


def test_a_smaller_cache_lets_tables_go(opener: Opener) -> None:
    disk = opener(options={"l2-cache-entry-size": 512})
    for offset in range(0, SIZE, 64 * CLUSTER):
        disk.pwrite(offset, b"x")
    before = len(state_of(disk).l2_cache.tables)
    change(disk, l2_cache_size=512)
    assert len(state_of(disk).l2_cache.tables) == min(before, 2)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("l2-cache-entry-size", 1000),
        ("cache-clean-interval", 1 << 32),
        ("overlap-check", "some"),
        ("refcount-cache-size", 1 << 60),
        ("lazy-refcounts", "perhaps"),
    ],
)
def test_a_refused_option_changes_no_other(opener: Opener, option: str, value: object) -> None:
    disk = opener(options={"l2-cache-size": "64k"})
    with pytest.raises(BlockError):
        change(disk, **{"pass-discard-request": False, option: value})
    assert state_of(disk).pass_discard
    disk.pwrite(0, b"x")


def test_a_new_option_pushes_out_old_ones_that_it_stands_against(opener: Opener) -> None:
    disk = opener(options={"overlap-check": "none", "overlap-check.main-header": "on"})
    assert disk.bs is not None
    assert state_of(disk).overlap_checks == corrupt.OL_HEADER
    for options in ({"template": "constant"}, {"template": "none"}):
        reopen(disk.bs, {"overlap-check": options})
    assert state_of(disk).overlap_checks == 0
    for sizes in ({"l2_cache_size": 512}, {"cache_size": "1M"}, {"l2_cache_size": "64k"}):
        change(disk, **sizes)
    change(disk, refcount_cache_size="128k")
    kept = {name: value for name, value in disk.bs.options.items() if "cache-size" in name}
    assert kept == {"l2-cache-size": "64k", "refcount-cache-size": "128k"}


def test_lazy_refcounts_are_turned_on_and_off(opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, b"x")
    assert not is_dirty(state_of(disk))
    change(disk, lazy_refcounts=True)
    disk.pwrite(CLUSTER, b"x")
    assert is_dirty(state_of(disk))
    change(disk, overlap_check="none")
    assert is_dirty(state_of(disk)), "as it was: lazy"
    change(disk, lazy_refcounts=False)
    assert not is_dirty(state_of(disk))


def test_each_overlap_check_can_be_said(opener: Opener) -> None:
    disk = opener(options={"overlap-check": "none", "overlap-check.active-l2": "on"})
    assert state_of(disk).overlap_checks == corrupt.OL_ACTIVE_L2
    change(disk, **{"overlap-check": "constant", "overlap-check.main-header": False})
    wanted = corrupt.OL_CONSTANT & ~corrupt.OL_HEADER
    assert state_of(disk).overlap_checks == wanted


def test_a_check_that_is_off_lets_a_write_through(image: Path, opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, b"x" * CLUSTER)
    l2 = first_l2(disk)
    disk.close()
    data = bytearray(image.read_bytes())
    data[l2 : l2 + 8] = (CLUSTER | 1 << 63).to_bytes(8, "big")  # guest cluster 0 -> reftable
    image.write_bytes(data)
    disk = opener(options={"overlap-check.refcount-table": "off"}, cache="unsafe")
    disk.pwrite(CLUSTER - 512, b"y" * 512)
    assert disk.pread(CLUSTER - 512, 512) == b"y" * 512
    disk.close()
    with pytest.raises(BlockError, match=r"overlaps with refcount table"):
        opener().pwrite(CLUSTER - 512, b"z" * 512)


# -- tables that were in use, passed down


@pytest.mark.parametrize("wanted", [False, True])
def test_a_table_that_moved_is_discarded_in_the_file_if_wanted(
    image: Path, opener: Opener, wanted: bool
) -> None:
    disk = opener(options={"pass-discard-other": wanted})
    before = state_of(disk).l1_offset
    disk.truncate(16 << 30)
    assert state_of(disk).l1_offset != before
    disk.flush()
    with image.open("rb") as file:
        there = os.lseek(file.fileno(), before, os.SEEK_DATA)
    assert (there >= before + CLUSTER) == wanted


# -- the timer


def let_pass(disk: BlockBackend, seconds: int) -> None:
    """Lets time go by in the node's context."""
    with disk.aio_context as ctx:
        alarm = ctx.timer_new(ClockType.VIRTUAL, lambda: None)
        alarm.mod(ctx.clock_ns(ClockType.VIRTUAL) + seconds * SECOND)
        while alarm.pending:
            ctx.poll(True)
        alarm.delete()


@pytest.fixture
def disk(tmp_path: Path, world: VirtualWorld) -> Iterator[BlockBackend]:
    """In memory: whoever waits for a thread lets time go by."""
    path = tmp_path / "a.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE)
    options = {"l2-cache-entry-size": 512, "cache-clean-interval": 10}
    with open_on(Tape(path.read_bytes()), **options) as disk:
        yield disk


def test_tables_that_nobody_asks_for_go(disk: BlockBackend) -> None:
    with disk:
        disk.pwrite(0, b"x")
        disk.pwrite(64 * CLUSTER, b"y")
        s = state_of(disk)
        let_pass(disk, 30)
        assert len(s.l2_cache.tables) == 2, "they are dirty"
        disk.flush()
        assert disk.pread(0, 1) == b"x"
        let_pass(disk, 11)
        disk.pread(0, 1)
        let_pass(disk, 10)
        assert len(s.l2_cache.tables) == 1, "one was asked for"
        let_pass(disk, 20)
        assert not s.l2_cache.tables
        assert not s.refcount_cache.tables
        assert disk.pread(64 * CLUSTER, 1) == b"y"


def timers_of(ctx: AioContext, disk: BlockBackend) -> int:
    return sum(r.kind == "timer" for r in ctx.registrations(disk.bs))


def test_the_timer_moves_with_the_node(
    disk: BlockBackend, world: VirtualWorld, elsewhere: AioContext
) -> None:
    with disk:
        disk.pwrite(0, b"x")
        disk.flush()
        assert timers_of(world.main_context, disk) == 1
        disk.set_aio_context(elsewhere)
        assert timers_of(world.main_context, disk) == 0
        with elsewhere:
            assert timers_of(elsewhere, disk) == 1
        let_pass(disk, 25)
        assert not state_of(disk).l2_cache.tables
        disk.set_aio_context(world.main_context)


def test_an_interval_of_zero_is_no_timer(disk: BlockBackend, world: VirtualWorld) -> None:
    with disk:
        change(disk, cache_clean_interval=0)
        assert timers_of(world.main_context, disk) == 0
        change(disk, cache_clean_interval=600)
        assert timers_of(world.main_context, disk) == 1


def test_a_closed_image_leaves_no_timer(disk: BlockBackend, world: VirtualWorld) -> None:
    bs = disk.bs
    disk.close()
    assert not [r for r in world.main_context.registrations(bs) if r.kind == "timer"]
