# SPDX-License-Identifier: GPL-2.0-only
"""Dirty bitmaps of a node: what they note, who may use them, and what a job does with one."""

from __future__ import annotations

import errno

import pytest

from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.core import dirty_bitmap
from block.core import flags as f
from block.core.dirty_bitmap import BdrvDirtyBitmap
from block.core.error import BlockError
from block.ops import bitmap as ops
from tests.support.drivers import Disk, Ram, ZeroRam, backend_on, pass_node, ram_node

K = 1024
Areas = list[tuple[int, int]]


def areas(bitmap: BdrvDirtyBitmap) -> Areas:
    return list(bitmap.areas())


# -- what is noted


def test_a_write_marks_the_pieces_that_it_touches() -> None:
    bs = ram_node(Disk())
    with backend_on(bs) as blk:
        bitmap = ops.add(bs, "b", 4 * K)
        blk.pwrite(5000, b"x" * 4000)
        assert areas(bitmap) == [(4 * K, 8 * K)]
        assert bitmap.count == 8 * K
        assert blk.pread(5000, 4000) == b"x" * 4000


def test_a_write_of_nothing_and_a_read_mark_nothing() -> None:
    bs = ram_node(Disk())
    with backend_on(bs) as blk:
        bitmap = ops.add(bs, "b", 4 * K)
        blk.pwrite(5000, b"")
        blk.pread(0, 64 * K)
        assert bitmap.count == 0


def test_an_unaligned_write_marks_the_blocks_that_were_written() -> None:
    bs = ram_node(Disk(request_alignment=4096))
    with backend_on(bs) as blk:
        bitmap = ops.add(bs, "b", 512)
        blk.pwrite(4096 + 100, b"x")
        assert areas(bitmap) == [(4096, 4096)]


def test_zeroes_and_discards_are_noted() -> None:
    bs = ram_node(Disk(), driver=ZeroRam)
    with backend_on(bs) as blk:
        bitmap = ops.add(bs, "b", 512)
        blk.pwrite_zeroes(1024, 512)
        blk.pdiscard(4096, 1024)
        assert areas(bitmap) == [(1024, 512), (4096, 1024)]


def test_a_discard_that_nobody_hears_is_not_noted() -> None:
    bs = ram_node(Disk(), driver=Ram)
    with backend_on(bs) as blk:
        bitmap = ops.add(bs, "b", 512)
        blk.pdiscard(4096, 1024)
        assert bitmap.count == 0


def test_a_write_that_failed_is_noted_since_part_of_it_may_be_there() -> None:
    disk = Disk()
    bs = ram_node(disk)
    with backend_on(bs) as blk:
        bitmap = ops.add(bs, "b", 512)
        disk.errors["pwritev"] = OSError(errno.ENOSPC, "full")
        with pytest.raises(OSError, match="full"):
            blk.pwrite(0, b"x" * 512)
        assert areas(bitmap) == [(0, 512)]


def test_a_node_that_grows_has_longer_bitmaps() -> None:
    bs = ram_node(Disk(64 * K))
    with backend_on(bs) as blk:
        bitmap = ops.add(bs, "b", 4 * K)
        blk.allow_write_beyond_eof = True
        blk.pwrite(64 * K, b"x" * 512)
        assert (bitmap.size, areas(bitmap)) == (64 * K + 512, [(64 * K, 512)])
        blk.truncate(128 * K)
        assert (bitmap.size, areas(bitmap)) == (128 * K, [(64 * K, 4 * K)])
        blk.truncate(32 * K)
        assert (bitmap.size, bitmap.count) == (32 * K, 0)


def test_each_enabled_bitmap_notes_a_write_and_a_disabled_one_does_not() -> None:
    bs = ram_node(Disk())
    with backend_on(bs) as blk:
        fine, coarse = ops.add(bs, "fine", 512), ops.add(bs, "coarse", 64 * K)
        off = ops.add(bs, "off", 512, disabled=True)
        blk.pwrite(1024, b"x")
        assert areas(fine) == [(1024, 512)]
        assert areas(coarse) == [(0, 64 * K)]
        assert off.count == 0
        ops.enable(bs, "off")
        ops.enable(bs, "fine", on=False)
        blk.pwrite(2048, b"x")
        assert areas(off) == [(2048, 512)]
        assert areas(fine) == [(1024, 512)]


def test_each_node_of_a_tree_has_its_own() -> None:
    below = ram_node(Disk())
    top = pass_node(below)
    with backend_on(top) as blk:
        upper, lower = ops.add(top, "b", 512), ops.add(below, "b", 512)
        blk.pwrite(512, b"x" * 512)
        assert areas(upper) == areas(lower) == [(512, 512)]


def test_a_read_only_bitmap_keeps_everybody_from_writing() -> None:
    disk = Disk()
    bs = ram_node(disk, driver=ZeroRam)
    with backend_on(bs) as blk:
        ops.add(bs, "b", 512).readonly = True
        for change in (
            lambda: blk.pwrite(0, b"x"),
            lambda: blk.pwrite_zeroes(0, 512),
            lambda: blk.pdiscard(0, 512),
        ):
            with pytest.raises(BlockError) as error:
                change()
            assert error.value.errno == errno.EPERM
        assert disk.asked("pwritev", "pwrite_zeroes", "pdiscard") == []
        ops_refuses(bs, "remove", "Bitmap 'b' is readonly and cannot be modified")


def test_a_bitmap_goes_with_the_tree_to_another_loop() -> None:
    bs = ram_node(Disk())
    with backend_on(bs) as blk, IOThread("io0") as thread:
        bitmap = ops.add(bs, "b", 512)
        home = blk.aio_context
        before = registrations(home)
        blk.set_aio_context(thread.ctx)
        blk.pwrite(0, b"x")
        ops.add(bs, "c", 512)
        with pytest.raises(AssertionError, match="R2"):
            dirty_bitmap.create(bs, 512)
        with blk.aio_context:
            assert areas(bitmap) == [(0, 512)]
            bitmap.reset(0, 512)
        blk.set_aio_context(home)
        assert registrations(home) == before
        assert bitmap.count == 0


def registrations(ctx: AioContext) -> int:
    return len(list(ctx.registrations()))


# -- names and states


def ops_refuses(bs: object, what: str, message: str, *rest: object) -> None:
    with pytest.raises(BlockError) as error:
        getattr(ops, what)(bs, "b", *rest)
    assert str(error.value) == message


def test_a_name_is_there_once_and_has_a_length() -> None:
    bs = ram_node(Disk())
    with backend_on(bs):
        ops.add(bs, "b")
        ops_refuses(bs, "add", "Bitmap already exists: b")
        long = "ü" * 512
        with pytest.raises(BlockError, match="Bitmap name too long: ü"):
            ops.add(bs, long)
        with pytest.raises(BlockError, match="Bitmap name cannot be empty"):
            ops.add(bs, "")
        ops.remove(bs, "b")
        ops_refuses(bs, "remove", "Dirty bitmap 'b' not found")
        for wrong in (0, 256, 1000):
            message = "Granularity must be power of 2 and at least 512"
            ops_refuses(bs, "add", message, wrong)


def test_what_keeps_no_bitmaps_says_so() -> None:
    bs = ram_node(Disk(), "disk")
    with backend_on(bs), pytest.raises(BlockError) as error:
        ops.add(bs, "b", persistent=True)
    assert str(error.value) == "Can't store persistent bitmaps to disk: Operation not supported"
    assert error.value.errno == errno.ENOTSUP


def test_by_default_a_piece_is_64_kib() -> None:
    bs = ram_node(Disk())
    with backend_on(bs):
        assert ops.add(bs, "b").granularity == 64 * K


def test_a_person_may_begin_anew() -> None:
    bs = ram_node(Disk())
    with backend_on(bs) as blk:
        bitmap = ops.add(bs, "b", 512)
        blk.pwrite(0, b"x")
        ops.clear(bs, "b")
        assert bitmap.count == 0
        blk.pwrite(1024, b"x")
        assert areas(bitmap) == [(1024, 512)]


def test_clear_and_merge_can_be_taken_back() -> None:
    bs = ram_node(Disk())
    with backend_on(bs):
        bitmap, other = ops.add(bs, "b", 512), ops.add(bs, "other", 512)
        bitmap.set(0, 512)
        other.set(4096, 512)
        bitmap.restore(bitmap.clear())
        assert areas(bitmap) == [(0, 512)]
        before = bitmap.merge(other)
        assert areas(bitmap) == [(0, 512), (4096, 512)]
        bitmap.restore(before)
        assert areas(bitmap) == [(0, 512)]


def test_bitmaps_of_two_nodes_merge_if_the_disks_are_as_long() -> None:
    one, other, short = ram_node(Disk()), ram_node(Disk()), ram_node(Disk(512 * K))
    with backend_on(one), backend_on(other), backend_on(short):
        for bs in (one, other, short):
            ops.add(bs, "b", 512).set(K, K)
        ops.add(one, "c", 64 * K)
        ops.merge(one, "c", other, "b")
        assert areas(ops.lookup(one, "c")) == [(0, 64 * K)]
        ops_refuses(
            one,
            "merge",
            "Bitmaps are of different sizes (destination size is 1048576, source size is 524288) "
            "and can't be merged",
            short,
            "b",
        )
        ops_refuses(one, "merge", "Dirty bitmap 'd' not found", other, "d")


@pytest.mark.parametrize("what", ["remove", "clear", "enable", "merge"])
def test_what_is_busy_is_left_alone(what: str) -> None:
    bs = ram_node(Disk())
    with backend_on(bs):
        bitmap = ops.add(bs, "b")
        bitmap.busy = True
        message = "Bitmap 'b' is currently in use by another operation and cannot be used"
        ops_refuses(bs, what, message, *((bs, "b") if what == "merge" else ()))
        bitmap.busy = False


def test_what_was_not_saved_can_only_be_removed() -> None:
    bs = ram_node(Disk())
    with backend_on(bs) as blk:
        bitmap = ops.add(bs, "b")
        bitmap.persistent = True
        bitmap.set_inconsistent()
        blk.pwrite(0, b"x")
        assert bitmap.count == 0
        for what, rest in (("clear", ()), ("enable", ()), ("merge", (bs, "b"))):
            ops_refuses(bs, what, "Bitmap 'b' is inconsistent and cannot be used", *rest)
        with pytest.raises(BlockError) as error:
            bitmap.check()
        assert "block-dirty-bitmap-remove" in error.value.hint
        ops.remove(bs, "b")
        assert bs.dirty_bitmaps == []


STATES = {
    "active": {},
    "disabled": {"disabled": True},
    "locked": {"busy": True},
    "inconsistent": {"inconsistent": True, "disabled": True},
}


@pytest.mark.parametrize("status", STATES)
def test_a_person_is_told_the_state(status: str) -> None:
    bs = ram_node(Disk())
    with backend_on(bs):
        bitmap = ops.add(bs, "b", 512)
        bitmap.persistent = True
        for name, value in STATES[status].items():
            setattr(bitmap, name, value)
        assert bitmap.status == status
        expected = {"name": "b", "count": 0, "granularity": 512, "persistent": True}
        expected |= {"recording": not bitmap.disabled, "busy": status == "locked"}
        if status == "inconsistent":
            expected["inconsistent"] = True
        assert dirty_bitmap.query(bs) == [expected]
        bitmap.busy = False


# -- a job


def test_a_frozen_bitmap_stays_and_its_successor_notes() -> None:
    bs = ram_node(Disk())
    with backend_on(bs) as blk:
        bitmap = ops.add(bs, "b", 512)
        bitmap.persistent = True
        blk.pwrite(0, b"x")
        bitmap.create_successor()
        blk.pwrite(1024, b"x")
        assert (bitmap.status, bitmap.recording, areas(bitmap)) == ("frozen", True, [(0, 512)])
        ops_refuses(
            bs, "clear", "Bitmap 'b' is currently in use by another operation and cannot be used"
        )
        with pytest.raises(BlockError, match="in use by another operation"):
            bitmap.create_successor()
        successor = bitmap.abdicate()
        assert dirty_bitmap.find(bs, "b") is successor
        assert (successor.persistent, successor.status) == (True, "active")
        assert areas(successor) == [(1024, 512)]
        assert bs.dirty_bitmaps == [successor]


def test_what_failed_is_taken_back_with_what_was_noted_meanwhile() -> None:
    bs = ram_node(Disk())
    with backend_on(bs) as blk:
        bitmap = ops.add(bs, "b", 512)
        blk.pwrite(0, b"x")
        bitmap.create_successor()
        blk.pwrite(1024, b"x")
        bitmap.reclaim()
        assert (bitmap.status, areas(bitmap)) == ("active", [(0, 512), (1024, 512)])
        assert bs.dirty_bitmaps == [bitmap]
        blk.pwrite(2048, b"x")
        assert bitmap.count == 3 * 512


def test_a_disabled_bitmap_has_a_disabled_successor() -> None:
    bs = ram_node(Disk())
    with backend_on(bs) as blk:
        bitmap = ops.add(bs, "b", 512, disabled=True)
        bitmap.create_successor()
        blk.pwrite(0, b"x")
        bitmap.reclaim()
        assert (bitmap.status, bitmap.count) == ("disabled", 0)


def test_without_a_successor_there_is_nothing_to_take_back() -> None:
    bs = ram_node(Disk())
    with backend_on(bs):
        bitmap = ops.add(bs, "b")
        with pytest.raises(BlockError, match="Cannot reclaim a successor when none is present"):
            bitmap.reclaim()
        with pytest.raises(BlockError, match="Cannot relinquish control if there's no successor"):
            bitmap.abdicate()


def test_a_job_copies_what_is_dirty_and_resets_it() -> None:
    bs = ram_node(Disk())
    with backend_on(bs) as blk:
        bitmap = dirty_bitmap.create(bs, 4 * K)
        blk.pwrite(10 * K, b"x" * (20 * K))
        copied: Areas = []
        while (area := bitmap.next_dirty_area(0, None, 16 * K)) is not None:
            bitmap.reset(*area)
            copied.append(area)
        assert copied == [(8 * K, 16 * K), (24 * K, 8 * K)]
        assert (bitmap.next_dirty(), bitmap.next_zero(0, f.MAX_LENGTH)) == (None, 0)
        assert not bitmap.get(8 * K)
        assert dirty_bitmap.query(bs)[0].get("name") is None
        bitmap.release()


def test_who_leaves_an_anonymous_bitmap_behind_is_found_out() -> None:
    bs = ram_node(Disk())
    dirty_bitmap.create(bs, 512)
    with pytest.raises(AssertionError, match="whoever made an anonymous bitmap releases it"):
        bs.unref()


def test_what_is_in_use_cannot_be_released() -> None:
    bs = ram_node(Disk())
    with backend_on(bs):
        bitmap = ops.add(bs, "b")
        bitmap.create_successor()
        with pytest.raises(AssertionError, match="is in use"):
            bitmap.release()
        bitmap.reclaim()
