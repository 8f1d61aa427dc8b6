# SPDX-License-Identifier: GPL-2.0-only
"""What is made for an image that cannot be finished is taken away again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import block
from block.core.backend import BlockBackend
from block.core.error import BlockError, failed
from block.core.new_files import NewFiles
from tests.support.drivers import Disk, backend_on, ram_node


def test_files_that_were_finished_stay(tmp_path: Path) -> None:
    names = [tmp_path / "a", tmp_path / "b"]
    with NewFiles() as files:
        for path in names:
            files.make(os.fspath(path), {"size": 512})
    assert [path.stat().st_size for path in names] == [512, 512]


def test_a_failure_takes_all_of_them_away(tmp_path: Path) -> None:
    names = [tmp_path / "a", tmp_path / "c:d", tmp_path / "b"]

    def fail() -> None:
        with NewFiles() as files:
            for path in names:
                files.make(f"file:{path}", {"size": 512})
            names[0].unlink()  # somebody was faster
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_what_could_not_be_made_is_not_taken_away(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(BlockError), NewFiles() as files:
        files.make(os.fspath(tmp_path / "folder"), {"size": 512})
    assert (tmp_path / "folder").is_dir()


@pytest.mark.parametrize("fmt", ["qcow2", "qed", "vmdk", "luks"])
def test_half_an_image_of_any_format_is_taken_away(
    tmp_path: Path, fmt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from block.objects import secret

    def full(*request: object) -> None:
        raise BlockError(28, "No space left on device")

    monkeypatch.setattr(BlockBackend, "pwrite", full)
    options: dict[str, object] = {}
    if fmt == "luks":
        monkeypatch.setattr(secret, "secrets", {})
        secret.secret_create("s", "x")
        options = {"key-secret": "s", "iter-time": 0}
    with pytest.raises(BlockError, match="No space left"):
        block.create(os.fspath(tmp_path / "image"), fmt, 1 << 20, **options)
    assert list(tmp_path.iterdir()) == []


def test_the_first_failure_is_the_one_that_is_told() -> None:
    disk = Disk(512)
    blk = backend_on(ram_node(disk))
    disk.errors["flush"] = OSError(5, "second")

    def fail() -> None:
        with blk:
            blk.pwrite(0, b"x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert disk.asked("flush")


def test_an_error_says_what_and_why() -> None:
    error = failed("Could not do it", OSError(28, "whatever it says"), "node0", "raw")
    assert str(error) == "Could not do it: No space left on device"
    assert (error.errno, error.node, error.driver) == (28, "node0", "raw")
    assert str(failed("Could not begin", error)) == f"Could not begin: {error}"
