# SPDX-License-Identifier: GPL-2.0-only
"""Dirty bitmaps in an image: what a failed write leaves, and what a power cut."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import NoReturn

import pytest

import block
from block.core.error import BlockError
from block.formats.qcow2 import bitmap_store
from block.ops import bitmap as ops
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.block.formats.qcow2.test_bitmaps import M, add, is_clean
from tests.support.qcow2_bitmaps import AUTO, IN_USE, place_of, stored
from tests.support.qcow2_damage import counts, run_check
from tests.support.qcow2_disk import FLUSH, Tape, open_on


def tape_with_bitmap(folder: Path) -> Tape:
    """An image with the saved bitmap b0, in which the first cluster is dirty."""
    path = folder / "start.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE)
    with block.open(os.fspath(path), format="qcow2") as disk:
        add(disk, "b0")
        disk.pwrite(0, b"x")
    return Tape(path.read_bytes())


def test_a_full_disk_is_said_and_leaves_the_old_bits_marked(tmp_path: Path) -> None:
    tape = tape_with_bitmap(tmp_path)
    with open_on(tape) as disk:
        disk.pwrite(M, b"x")
        disk.flush()
        tape.errors["pwritev"] = OSError(errno.ENOSPC, "No space left on device")
        with pytest.raises(BlockError, match="Failed to write bitmap 'b0' to file: No space"):
            disk.close()
    path = tmp_path / "full.qcow2"
    path.write_bytes(tape.data)
    assert stored(path)["b0"].flags == AUTO | IN_USE
    result, _ = run_check(path)
    assert result.corruptions == 0


def fails(*args: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_where_the_directory_cannot_be_written_nothing_leaks(
    image: Path, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opener() as disk:
        add(disk, "b0")
    disk = opener()
    add(disk, "b1")
    disk.pwrite(0, b"x")
    with monkeypatch.context() as patch:
        patch.setattr(bitmap_store, "_write_directory", fails)
        with pytest.raises(OSError, match="No space left"):
            disk.close()
    assert stored(image)["b0"].flags == AUTO | IN_USE
    is_clean(image)


def test_where_the_header_cannot_be_written_the_old_directory_stays(
    image: Path, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what the header says then: both directories stay in use."""
    with opener() as disk:
        add(disk, "b0")
        add(disk, "b1")
    with opener() as disk:
        with monkeypatch.context() as patch:
            patch.setattr(bitmap_store, "co_update_header", fails)
            with pytest.raises(BlockError, match="Failed to update bitmap extension: No space"):
                ops.remove(disk.bs, "b0")
        assert set(stored(image)) == {"b0", "b1"}
        s = state_of(disk)
        known = s.nb_bitmaps, s.bitmap_directory_size, s.bitmap_directory_offset
        assert known == place_of(image.read_bytes()), "for whoever writes the header next"
        disk.pwrite(0, b"x")
        ops.remove(disk.bs, "b1")
    assert stored(image)["b0"][:3] == (AUTO, CLUSTER, [(0, CLUSTER)])
    assert counts(run_check(image)[0]) == (0, 1, 0), "the directory that came to nothing"


def test_a_directory_is_changed_in_place_while_nobody_believes_it(tmp_path: Path) -> None:
    tape = tape_with_bitmap(tmp_path)
    path = tmp_path / "start.qcow2"
    entry = stored(path)["b0"].at
    with open_on(tape):
        seen = [
            "flush" if write == FLUSH else f"bit {write[1][7] & 1}" if write[0] == 88 else "dir"
            for write in tape.writes
            if write == FLUSH or write[0] in (88, entry)
        ]
    assert seen == ["bit 0", "flush", "dir", "flush", "bit 1", "flush"]


def test_who_just_lets_go_is_told_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tape = tape_with_bitmap(tmp_path)
    with open_on(tape) as disk:
        disk.pwrite(M, b"x")
        disk.flush()
        tape.errors["pwritev"] = OSError(errno.EIO, "Input/output error")
        disk.unref()
    said = capsys.readouterr().err
    assert "Lost persistent bitmaps during inactivation of node '" in said
    assert "Failed to write bitmap 'b0' to file: Input/output error" in said


def test_a_power_cut_leaves_bits_that_are_right_or_marked(tmp_path: Path) -> None:
    """At whatever write, in whatever order since the last flush."""
    tape = tape_with_bitmap(tmp_path)
    with open_on(tape) as disk:
        disk.pwrite(M, b"x")
        disk.pwrite(2 * M, b"x")
        disk.flush()
        after_write = len(tape.writes)
        add(disk, "b1")
    source = random.Random(7)
    path = tmp_path / "cut.qcow2"
    seen = set()
    for at in range(len(tape.writes) + 1):
        for shuffle in (False, True):
            path.write_bytes(tape.cut(at, source, shuffle))
            seen.add(state_after_cut(path, at >= after_write))
    assert seen >= {"old", "marked", "new"}


def state_after_cut(path: Path, written: bool) -> str:
    """What the file says of b0, which must not be less than what was written."""
    result, lines = run_check(path)
    assert result.corruptions == result.check_errors == 0, lines
    if path.read_bytes()[95] & 1 == 0:
        return "dropped"
    b0 = stored(path)["b0"]
    with block.open(os.fspath(path), format="qcow2", read_only=True) as disk:
        assert len(disk.bs.dirty_bitmaps) in (1, 2)
    if b0.flags & IN_USE:
        return "marked"
    dirty = [offset for offset, _ in b0.areas]
    assert dirty == ([0, M, 2 * M] if "b1" in stored(path) else [0])
    assert "b1" in stored(path) or not written
    return "new" if "b1" in stored(path) else "old"
