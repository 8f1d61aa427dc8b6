# SPDX-License-Identifier: GPL-2.0-only
"""Resizing, preallocation and creation of files (truncate.py)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from block.core.error import BlockError
from block.protocols.file import locks, truncate
from tests.block.protocols.file.conftest import SIZE
from tests.support import needs


@pytest.fixture
def fd(image: Path) -> Iterator[int]:
    held = os.open(image, os.O_RDWR)
    yield held
    os.close(held)


def test_growing_keeps_the_data_and_adds_zeroes(fd: int) -> None:
    for mode in ("off", "falloc", "full"):
        length = os.fstat(fd).st_size
        truncate.truncate(fd, length + 8192, mode)
        assert os.fstat(fd).st_size == length + 8192
        assert os.pread(fd, 8192, length) == bytes(8192)
    assert os.pread(fd, 1, 4096) == b"\1"


@pytest.mark.parametrize(("mode", "allocated"), [("off", False), ("falloc", True), ("full", True)])
def test_preallocation_means_blocks(tmp_path: Path, mode: str, allocated: bool) -> None:
    path = tmp_path / "new"
    truncate.create(os.fspath(path), SIZE, mode)
    stat = path.stat()
    assert stat.st_size == SIZE
    assert (stat.st_blocks * 512 >= SIZE) is allocated


def test_a_new_image_has_its_first_block(tmp_path: Path) -> None:
    path = tmp_path / "new"
    truncate.create(os.fspath(path), SIZE)
    assert path.stat().st_blocks > 0
    truncate.create(os.fspath(path), 0)
    assert path.stat().st_size == 0


def test_shrinking_takes_no_preallocation(fd: int) -> None:
    with pytest.raises(BlockError, match=r"^Cannot use preallocation for shrinking files$"):
        truncate.truncate(fd, 512, "falloc")
    truncate.truncate(fd, 512)
    assert os.fstat(fd).st_size == 512


@pytest.mark.parametrize(
    ("call", "mode", "message"),
    [
        ("posix_fallocate", "falloc", "Could not preallocate new data: No space left on device"),
        ("pwrite", "full", "Could not write zeros for preallocation: No space left on device"),
        ("fsync", "full", "Could not flush file to disk: No space left on device"),
        ("ftruncate", "off", "Could not resize file: No space left on device"),
    ],
)
def test_a_failure_gives_the_old_length_back(
    fd: int, monkeypatch: pytest.MonkeyPatch, call: str, mode: str, message: str
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(BlockError) as caught:
        truncate.truncate(fd, 2 * SIZE, mode)
    assert str(caught.value) == message
    assert os.fstat(fd).st_size == SIZE


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    path = tmp_path / "no" / "such"
    with pytest.raises(BlockError) as caught:
        truncate.create(os.fspath(path), 512)
    assert str(caught.value) == f"Could not create '{path}': No such file or directory"


@needs.linux("OFD locks")
def test_an_image_in_use_is_not_emptied(image: Path, fd: int) -> None:
    locks.lock_byte(fd, 201)
    with pytest.raises(BlockError, match=r'^Failed to get "write" lock$'):
        truncate.create(os.fspath(image), 512)
    assert image.stat().st_size == SIZE


def test_hints_for_the_file_system_never_fail_the_creation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = os.fspath(tmp_path / "new")
    truncate.create(path, 512, nocow=True)
    assert capsys.readouterr().err == ""
    truncate.create(path, 512, extent_size_hint=1 << 20)
    said = capsys.readouterr().err
    assert said == "" or said.startswith("warning: Failed to set extent size hint: ")
