# SPDX-License-Identifier: GPL-2.0-only
"""An image below an overlay that nobody sees again: it is read, and never written."""

from __future__ import annotations

from pathlib import Path

import pytest

from block.core import flags as f
from block.core import graph
from block.core.error import BlockError
from block.ops.snapshot_overlay import open_with_overlay

SIZE = 1 << 20


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "overlays").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "overlays"))
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"1" * SIZE)
    return disk


def test_writes_are_read_back_and_thrown_away(disk: Path) -> None:
    flags = f.BDRV_O_RDWR | f.BDRV_O_SNAPSHOT
    with open_with_overlay(str(disk), {"driver": "raw"}, flags) as blk:
        assert blk.length == SIZE
        blk.pwrite(1000, b"2" * 100_000)
        assert blk.pread(999, 3) == b"122"
        assert blk.pread(SIZE - 1, 1) == b"1"
        assert blk.bs is not None
        assert blk.bs.backing is not None
        assert blk.bs.backing.bs.read_only
        assert list((disk.parent / "overlays").iterdir()) == []  # it has lost its name already
    assert disk.read_bytes() == b"1" * SIZE


def test_an_image_that_is_not_there_leaves_nothing_behind(disk: Path) -> None:
    with pytest.raises(BlockError, match="No such file"):
        open_with_overlay("/nowhere/disk.img", {}, f.BDRV_O_SNAPSHOT)
    assert list((disk.parent / "overlays").iterdir()) == []


def test_an_overlay_that_cannot_be_made_closes_the_image(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere")
    with pytest.raises(BlockError, match=r"^Could not open temporary file '/nowhere/vl"):
        open_with_overlay(str(disk), {"driver": "raw"}, f.BDRV_O_SNAPSHOT)
    assert not graph.all_states


def test_a_reader_s_overlay_takes_no_writes_either(disk: Path) -> None:
    with open_with_overlay(str(disk), {"driver": "raw"}, f.BDRV_O_SNAPSHOT) as blk:
        assert blk.read_only
        assert blk.pread(0, 1) == b"1"
    options = {"driver": "raw", "read-only": "on"}
    with pytest.raises(BlockError, match="Block node is read-only"):
        open_with_overlay(str(disk), options, f.BDRV_O_SNAPSHOT | f.BDRV_O_RDWR)


def test_an_image_that_may_not_be_written_needs_no_permission(disk: Path) -> None:
    """The options of a -drive say that it may be; the file is opened for reading all the same."""
    disk.chmod(0o444)
    options = {"driver": "raw", "read-only": False, "node-name": "image", "discard": "unmap"}
    with open_with_overlay(str(disk), options, f.BDRV_O_SNAPSHOT, name="d") as blk:
        assert blk.name == "d"
        assert blk.bs is not None
        assert blk.bs.backing is not None
        image = blk.bs.backing.bs
        assert image.node_name == "image"
        assert image.read_only
        assert image.file is not None
        assert image.file.bs.read_only
        blk.set_perm(f.BLK_PERM_CONSISTENT_READ | f.BLK_PERM_WRITE, f.BLK_PERM_ALL)
        blk.pwrite(0, b"2" * 65536)
        blk.pdiscard(0, 65536)
        assert blk.pread(0, 1) == b"\0", "the overlay discards, too"
