# SPDX-License-Identifier: GPL-2.0-only
"""Dirty bitmaps that stay with the image: saved, loaded, marked, lost, removed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import block
from block.core import dirty_bitmap, reopen, snapshot
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.ops import bitmap as ops
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.support.drivers import Outcome
from tests.support.qcow2_bitmaps import AUTO, IN_USE, Areas, stored
from tests.support.qcow2_damage import counts, run_check
from tests.support.qcow2_disk import Tape, open_on

K, M = 1024, 1 << 20
WRITER = f.BLK_PERM_CONSISTENT_READ | f.BLK_PERM_WRITE


def areas(disk: BlockBackend, name: str) -> Areas:
    assert disk.bs is not None
    return list(ops.lookup(disk.bs, name).areas())


def add(disk: BlockBackend, name: str, granularity: int = CLUSTER, **how: bool) -> None:
    ops.add(disk.bs, name, granularity, persistent=True, **how)


def is_clean(path: Path) -> None:
    result, lines = run_check(path)
    assert (counts(result), lines) == ((0, 0, 0), [])


# -- from one opening to the next


def test_what_was_noted_is_there_at_the_next_opening(image: Path, opener: Opener) -> None:
    with opener() as disk:
        add(disk, "b0")
        add(disk, "fine", 512)
        disk.pwrite(M, b"x" * 1000)
        disk.pwrite_zeroes(3 * M, 512)
        disk.pdiscard(5 * M, CLUSTER)
    expected = [(M, CLUSTER), (3 * M, CLUSTER), (5 * M, CLUSTER)]
    assert stored(image)["b0"][:3] == (AUTO, CLUSTER, expected)
    assert stored(image)["fine"].areas == [(M, K), (3 * M, 512), (5 * M, CLUSTER)]
    is_clean(image)
    with opener() as disk:
        assert areas(disk, "b0") == expected
        disk.pwrite(0, b"y")
    assert stored(image)["b0"].areas == [(0, CLUSTER), *expected]
    assert list(stored(image)) == ["fine", "b0"], "the newest first, as QEMU saves them"
    is_clean(image)


def test_a_write_that_is_on_its_way_is_noted_before_all_is_saved(image: Path) -> None:
    tape, outcome = Tape(image.read_bytes()), Outcome()
    with open_on(tape) as disk:
        assert disk.bs is not None
        add(disk, "b0")
        tape.parked = True
        disk.aio_pwritev(M, [memoryview(b"x")], outcome)
        tape.parked = False  # whatever comes later passes by
        disk.aio_context.bh_schedule_oneshot(tape.release)
        dirty_bitmap.store(disk.bs)
        assert outcome.ret == 0
    image.write_bytes(tape.data)
    assert stored(image)["b0"].areas == [(M, CLUSTER)]


def test_a_disabled_one_stays_disabled_and_an_enabled_one_notes(
    image: Path, opener: Opener
) -> None:
    with opener() as disk:
        add(disk, "on")
        add(disk, "off", disabled=True)
        disk.pwrite(0, b"x")
    assert {name: it.flags for name, it in stored(image).items()} == {"on": AUTO, "off": 0}
    with opener() as disk:
        disk.pwrite(M, b"x")
        assert areas(disk, "on") == [(0, CLUSTER), (M, CLUSTER)]
        assert areas(disk, "off") == []


def test_what_is_not_persistent_is_gone(image: Path, opener: Opener) -> None:
    with opener() as disk:
        ops.add(disk.bs, "b0")
    with opener() as disk:
        assert disk.bs is not None
        assert disk.bs.dirty_bitmaps == []


def test_who_only_reads_changes_nothing(image: Path, opener: Opener) -> None:
    with opener() as disk:
        add(disk, "b0")
        disk.pwrite(0, b"x")
    before = image.read_bytes()
    with opener(read_only=True) as disk:
        assert areas(disk, "b0") == [(0, CLUSTER)]
        assert ops.lookup(disk.bs, "b0").readonly
        assert stored(image)["b0"].flags == AUTO
        with pytest.raises(BlockError, match="Bitmap 'b0' is readonly and cannot be modified"):
            ops.remove(disk.bs, "b0")
    assert image.read_bytes() == before


def test_while_it_is_written_the_file_says_that_its_bits_are_old(
    image: Path, opener: Opener, tmp_path: Path
) -> None:
    with opener() as disk:
        add(disk, "b0")
    with opener() as disk:
        assert stored(image)["b0"].flags == AUTO | IN_USE
        disk.pwrite(0, b"x")
        disk.flush()
        crashed = tmp_path / "crashed.qcow2"
        crashed.write_bytes(image.read_bytes())
    with opener(crashed) as disk:
        bitmap = ops.lookup(disk.bs, "b0")
        assert bitmap.status == "inconsistent"
        with pytest.raises(BlockError, match="Bitmap 'b0' is inconsistent and cannot be used"):
            ops.clear(disk.bs, "b0")
        disk.pwrite(0, b"y")
    assert stored(crashed)["b0"].flags == AUTO | IN_USE, "kept, and shown"
    with opener(crashed) as disk:
        ops.remove(disk.bs, "b0")
    assert stored(crashed) == {}
    is_clean(crashed)


def test_full_and_empty_parts_take_no_room(tmp_path: Path, opener: Opener) -> None:
    path, part = tmp_path / "a.qcow2", 8 * CLUSTER * 512  # what a cluster of bits stands for
    block.create(os.fspath(path), "qcow2", 2 * part + 512)
    with opener(path) as disk:
        add(disk, "all", 512)
        add(disk, "none", 512)
        disk.flush()
        ops.lookup(disk.bs, "all").set(0, disk.length)
        before = clusters(path)
    assert clusters(path) - before == 4, "two tables, a directory, and what the disk ends in"
    assert stored(path)["all"].areas == [(0, 2 * part + 512)]
    is_clean(path)


def clusters(path: Path) -> int:
    return -(-path.stat().st_size // CLUSTER)


def test_a_bitmap_has_as_many_clusters_as_it_needs(tmp_path: Path, opener: Opener) -> None:
    path = tmp_path / "small.qcow2"
    block.create(os.fspath(path), "qcow2", 16 * M + 512, cluster_size=512)
    with opener(path) as disk:
        add(disk, "b0", 512)
        disk.pwrite(512, b"x" * 512)
        disk.pwrite(7 * M + 512, b"x" * 1024)
        disk.pwrite(16 * M, b"x" * 512)
        ops.lookup(disk.bs, "b0").set(2 * M, 4 * M)
    expected = [(512, 512), (2 * M, 4 * M), (7 * M + 512, K), (16 * M, 512)]
    assert stored(path)["b0"].areas == expected
    is_clean(path)
    with opener(path) as disk:
        assert areas(disk, "b0") == expected


# -- reopening


def test_reopened_read_only_it_is_saved_and_reopened_it_notes_again(
    image: Path, opener: Opener
) -> None:
    with opener() as disk:
        assert disk.bs is not None
        add(disk, "b0")
        disk.pwrite(0, b"x")
        disk.set_perm(f.BLK_PERM_CONSISTENT_READ, disk.shared_perm)
        reopen.set_read_only(disk.bs, True)
        assert stored(image)["b0"][:3] == (AUTO, CLUSTER, [(0, CLUSTER)])
        assert ops.lookup(disk.bs, "b0").readonly
        reopen.set_read_only(disk.bs, False)
        assert stored(image)["b0"].flags == AUTO | IN_USE
        disk.set_perm(WRITER, disk.shared_perm)
        disk.pwrite(M, b"x")
    assert stored(image)["b0"].areas == [(0, CLUSTER), (M, CLUSTER)]
    is_clean(image)


def test_opened_read_only_and_reopened_it_notes(image: Path, opener: Opener) -> None:
    with opener() as disk:
        add(disk, "b0")
    with opener(read_only=True) as disk:
        assert disk.bs is not None
        reopen.set_read_only(disk.bs, False)
        assert stored(image)["b0"].flags == AUTO | IN_USE
        disk.set_perm(WRITER, disk.shared_perm)
        disk.pwrite(M, b"x")
    assert stored(image)["b0"][:3] == (AUTO, CLUSTER, [(M, CLUSTER)])


def test_what_changed_behind_our_back_stays_read_only(
    image: Path, opener: Opener, capsys: pytest.CaptureFixture[str]
) -> None:
    with opener() as disk:
        add(disk, "b0")
    with opener(read_only=True) as disk:
        assert disk.bs is not None
        with image.open("r+b") as file:
            file.seek(stored(image)["b0"].at + 15)
            file.write(bytes([AUTO | IN_USE]))
        reopen.set_read_only(disk.bs, False)
        said = capsys.readouterr().err
        assert "Failed to make dirty bitmaps writable: Corruption: bitmap 'b0' is marked" in said
        disk.set_perm(WRITER, disk.shared_perm)
        with pytest.raises(BlockError) as error:
            disk.pwrite(0, b"x")
        assert error.value.errno == errno.EPERM


def test_a_reopening_that_fails_lets_it_note_again(image: Path, opener: Opener) -> None:
    with opener() as disk:
        assert disk.bs is not None
        add(disk, "b0")
        with pytest.raises(BlockError, match="cannot support read-write users"):
            reopen.set_read_only(disk.bs, True)
        disk.pwrite(M, b"x")
    assert stored(image)["b0"][:3] == (AUTO, CLUSTER, [(M, CLUSTER)])
    is_clean(image)


# -- removing


def test_the_last_one_takes_the_extension_with_it(image: Path, opener: Opener) -> None:
    empty = image.read_bytes()
    with opener() as disk:
        add(disk, "b0")
        add(disk, "b1")
        disk.pwrite(0, b"x")
    with opener() as disk:
        ops.remove(disk.bs, "b0")
        assert list(stored(image)) == ["b1"]
        ops.remove(disk.bs, "b1")
        assert stored(image) == {}
    assert image.read_bytes()[:CLUSTER] == empty[:CLUSTER]
    is_clean(image)


def test_where_the_directory_goes_no_data_may_follow(image: Path, opener: Opener) -> None:
    with opener() as disk:
        add(disk, "b0")
        add(disk, "b1")
    with opener() as disk:
        disk.pwrite(0, b"x")
        s = state_of(disk)
        before = s.bitmap_directory_offset
        assert before in s.suspect_clusters()
        ops.remove(disk.bs, "b0")
        assert s.bitmap_directory_offset != before
        assert s.bitmap_directory_offset in s.suspect_clusters()


def test_what_was_never_saved_can_be_removed(image: Path, opener: Opener) -> None:
    with opener() as disk:
        add(disk, "b0")
        ops.remove(disk.bs, "b0")
    assert stored(image) == {}


# -- another length


def test_a_longer_disk_has_longer_bitmaps(image: Path, opener: Opener) -> None:
    with opener() as disk:
        add(disk, "b0")
        disk.pwrite(SIZE - 1, b"x")
    with opener() as disk:
        disk.truncate(3 * SIZE)
        disk.pwrite(2 * SIZE, b"x")
    assert stored(image)["b0"].areas == [(SIZE - CLUSTER, CLUSTER), (2 * SIZE, CLUSTER)]
    is_clean(image)


def test_one_that_was_not_saved_keeps_the_disk_as_long_as_it_is(
    image: Path, opener: Opener
) -> None:
    make_inconsistent(image, opener)
    with opener() as disk, pytest.raises(BlockError, match="Bitmap 'b0' is inconsistent"):
        disk.truncate(2 * SIZE)


def make_inconsistent(image: Path, opener: Opener) -> None:
    """A bitmap b0 of which the file says that it was not saved."""
    with opener() as disk:
        add(disk, "b0")
    with opener():
        crashed = image.read_bytes()
    image.write_bytes(crashed)


# -- snapshots


def test_bitmaps_and_snapshots_live_side_by_side(image: Path, opener: Opener) -> None:
    with opener() as disk:
        assert disk.bs is not None
        add(disk, "b0")
        disk.pwrite(0, b"x" * CLUSTER)
        snapshot.create(disk.bs, snapshot.SnapshotInfo(name="before"))
        disk.pwrite(M, b"y" * CLUSTER)
        with pytest.raises(BlockError, match="Device has active dirty bitmaps") as error:
            snapshot.goto(disk.bs, "before")
        assert error.value.errno == errno.EBUSY
        assert disk.pread(M, 1) == b"y"
    assert stored(image)["b0"].areas == [(0, CLUSTER), (M, CLUSTER)]
    is_clean(image)


# -- what cannot be


def test_version_2_keeps_no_bitmaps(tmp_path: Path, opener: Opener) -> None:
    path = tmp_path / "old.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, compat="0.10")
    with opener(path) as disk:
        assert disk.bs is not None
        assert not dirty_bitmap.supports_persistent(disk.bs)
        with pytest.raises(BlockError) as error:
            add(disk, "b0")
        who = disk.bs.node_name
    assert str(error.value) == (
        f"Can't make bitmap 'b0' persistent in '{who}': "
        "Cannot store dirty bitmaps in qcow2 v2 files"
    )


@pytest.mark.parametrize(
    ("name", "granularity", "why"),
    [
        ("b0", 1 << 32, r"Granularity exceeds maximum \(2147483648 bytes\)"),
        ("b0", 512, "Too much space will be occupied by the bitmap. Use larger granularity"),
        ("b" * 1024, 1 << 20, r"Name length exceeds maximum \(1023 characters\)"),
    ],
)
def test_what_an_image_cannot_keep_is_refused(
    tmp_path: Path, opener: Opener, name: str, granularity: int, why: str
) -> None:
    path = tmp_path / "large.qcow2"
    block.create(os.fspath(path), "qcow2", 1 << 42)
    with opener(path) as disk, pytest.raises(BlockError, match=why):
        add(disk, name, granularity)


def test_a_name_is_there_once(image: Path, opener: Opener) -> None:
    with opener() as disk:
        add(disk, "b0")
        with pytest.raises(BlockError, match="Bitmap already exists: b0"):
            add(disk, "b0")


# -- what others did


def test_a_program_that_knows_no_bitmaps_makes_all_of_them_worthless(
    image: Path, opener: Opener, capsys: pytest.CaptureFixture[str]
) -> None:
    with opener() as disk:
        add(disk, "b0")
    data = bytearray(image.read_bytes())
    data[95] &= ~1
    image.write_bytes(data)
    with opener(read_only=True) as disk:
        assert disk.bs is not None
        assert disk.bs.dirty_bitmaps == []
    assert image.read_bytes() == data
    with opener() as disk:
        assert disk.bs is not None
        assert disk.bs.dirty_bitmaps == []
        add(disk, "b0")
    assert capsys.readouterr().err.count("a program lacking bitmap support modified this file") == 2
    assert counts(run_check(image)[0]) == (0, 2, 0), "an old directory and an old table"
    assert stored(image)["b0"].flags == AUTO
