# SPDX-License-Identifier: GPL-2.0-only
"""Discard, zero writes and block status (zero.py, status.py, syscalls.py)."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from block.core import flags as f
from block.core.error import BlockError
from block.protocols.file import status, syscalls, zero
from block.protocols.file.driver import status_at, whole_blocks
from block.protocols.file.state import FileState
from tests.block.protocols.file.conftest import SIZE, Opener

DATA, ZERO = f.BDRV_BLOCK_DATA, f.BDRV_BLOCK_ZERO


@pytest.fixture
def state() -> FileState:
    return FileState("x", use_lock=False)


def refusing(monkeypatch: pytest.MonkeyPatch, refused: dict[int, int]) -> list[int]:
    """Makes fallocate fail for some modes with an errno; returns the list of modes called."""
    modes: list[int] = []

    def call(fd: int, mode: int, offset: int, nbytes: int) -> int:
        modes.append(mode)
        return refused.get(mode, 0)

    monkeypatch.setattr(syscalls, "_fallocate", call)
    return modes


PUNCH = syscalls.FALLOC_FL_PUNCH_HOLE | syscalls.FALLOC_FL_KEEP_SIZE
RANGE = syscalls.FALLOC_FL_ZERO_RANGE
NO = errno.EOPNOTSUPP


@pytest.mark.parametrize(
    ("refused", "modes"),
    [
        ({}, [RANGE]),
        ({RANGE: NO}, [RANGE, PUNCH, 0]),
        ({RANGE: errno.ENOSYS}, [RANGE, PUNCH, 0]),
    ],
)
def test_zeroes_are_had_in_the_best_way_that_works(
    state: FileState, monkeypatch: pytest.MonkeyPatch, refused: dict[int, int], modes: list[int]
) -> None:
    called = refusing(monkeypatch, refused)
    assert zero.write_zeroes(state, -1, 0, 4096) == 0
    assert called == modes


def test_a_way_that_does_not_exist_is_tried_once(
    state: FileState, monkeypatch: pytest.MonkeyPatch, image: Path
) -> None:
    called = refusing(monkeypatch, {RANGE: NO, PUNCH: NO})
    with image.open("rb") as held:
        for _ in range(2):
            with pytest.raises(OSError, match="not supported"):
                zero.write_zeroes(state, held.fileno(), 0, 4096)
    assert called == [RANGE, PUNCH]


def test_behind_the_end_allocating_is_enough(
    state: FileState, monkeypatch: pytest.MonkeyPatch, image: Path
) -> None:
    called = refusing(monkeypatch, {RANGE: NO, PUNCH: NO})
    with image.open("rb") as held:
        assert zero.write_zeroes(state, held.fileno(), SIZE, 4096) == 0
    assert called == [RANGE, PUNCH, 0]


def test_a_range_that_the_file_system_dislikes_falls_back_but_is_not_remembered(
    state: FileState, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, {RANGE: errno.EINVAL})
    with pytest.raises(OSError, match="not supported") as caught:
        zero.write_zeroes(state, -1, 1, 1)
    assert caught.value.errno == errno.ENOTSUP
    assert state.has_write_zeroes


def test_a_real_error_is_an_error(state: FileState, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, {RANGE: errno.ENOSPC, PUNCH: errno.EIO})
    with pytest.raises(OSError, match="space"):
        zero.write_zeroes(state, -1, 0, 4096)
    with pytest.raises(OSError, match="put"):
        zero.discard(state, -1, 0, 4096)
    assert (state.has_write_zeroes, state.has_discard) == (True, True)


def test_zeroes_that_may_unmap_punch_first(
    state: FileState, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = refusing(monkeypatch, {})
    zero.write_zeroes_unmap(state, -1, 0, 4096)
    assert called == [PUNCH]
    called = refusing(monkeypatch, {PUNCH: NO})
    zero.write_zeroes_unmap(state, -1, 0, 4096)
    assert called == [PUNCH, RANGE]


def test_an_interrupted_call_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([errno.EINTR, errno.EINTR, 0])
    monkeypatch.setattr(syscalls, "_fallocate", lambda *_: next(answers))
    syscalls.fallocate(-1, 0, 0, 1)
    assert list(answers) == []


# -- through the tree


def test_discarded_blocks_go_back_to_the_file_system(opener: Opener, image: Path) -> None:
    blk = opener(discard="unmap")
    before = image.stat().st_blocks
    blk.pdiscard(0, SIZE // 2)
    blk.flush()
    assert image.stat().st_blocks < before
    assert blk.pread(0, 4096) == bytes(4096)
    assert blk.bs is not None
    assert blk.bs.opaque.discard_bytes_ok == SIZE // 2


def test_without_unmap_a_discard_does_nothing(opener: Opener) -> None:
    blk = opener()
    blk.pdiscard(4096, 4096)
    assert blk.pread(4096, 1) == b"\1"


def test_zeroes_are_written_without_and_with_unmapping(opener: Opener) -> None:
    blk = opener(discard="unmap")
    blk.pwrite_zeroes(4096, 4096)
    blk.pwrite_zeroes(8192, 4096, f.REQ_MAY_UNMAP)
    blk.pwrite_zeroes(12345, 10)
    assert blk.pread(4096, 8192) == bytes(8192)
    assert blk.pread(12340, 20) == b"\3" * 5 + bytes(10) + b"\3" * 5


def test_a_disk_that_cannot_zero_gets_zeroes_written(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, {RANGE: NO, PUNCH: NO, 0: NO})
    blk = opener()
    blk.pwrite_zeroes(4096, 4096)
    assert blk.pread(4096, 4096) == bytes(4096)
    with pytest.raises(BlockError) as caught:
        blk.pwrite_zeroes(8192, 4096, f.REQ_NO_FALLBACK)
    assert caught.value.errno == errno.ENOTSUP


# -- data and holes


@pytest.fixture
def sparse(tmp_path: Path) -> int:
    """64 KiB of data, a hole, data again at 1 MiB, a hole at the end."""
    path = tmp_path / "sparse"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"x" * 65536, 0)
    os.pwrite(fd, b"x" * 65536, 1 << 20)
    os.ftruncate(fd, 4 << 20)
    os.fsync(fd)
    return fd


def test_data_and_holes_alternate(sparse: int) -> None:
    assert status_at(sparse, 0, 1 << 30) == (DATA, 65536)
    assert status_at(sparse, 4096, 4096) == (DATA, 4096)
    assert status_at(sparse, 65536, 1 << 30) == (ZERO, (1 << 20) - 65536)
    assert status_at(sparse, 2 << 20, 1 << 20) == (ZERO, 1 << 20)
    assert status_at(sparse, 8 << 20, 4096) == (ZERO, 4096)
    os.close(sparse)


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ({os.SEEK_DATA: 100, os.SEEK_HOLE: 200}, (DATA, 100)),
        ({os.SEEK_DATA: 150}, (ZERO, 50)),
        ({os.SEEK_DATA: 50, os.SEEK_HOLE: 200}, (DATA, 1000)),
        ({os.SEEK_DATA: 100, os.SEEK_HOLE: 100}, (DATA, 1000)),
        ({os.SEEK_DATA: 100, os.SEEK_HOLE: 50}, (DATA, 1000)),
        ({os.SEEK_DATA: errno.ENXIO}, (ZERO, 1000)),
        ({os.SEEK_DATA: errno.EINVAL}, (DATA, 1000)),
        ({os.SEEK_DATA: 100, os.SEEK_HOLE: errno.ENXIO}, (DATA, 1000)),
    ],
)
def test_answers_that_do_not_fit_together_mean_data(
    monkeypatch: pytest.MonkeyPatch, answers: dict[int, int], outcome: tuple[int, int]
) -> None:
    def lseek(fd: int, offset: int, whence: int) -> int:
        answer = answers[whence]
        if answer in (errno.ENXIO, errno.EINVAL):
            raise OSError(answer, "no")
        return answer

    monkeypatch.setattr(status.os, "lseek", lseek)  # type: ignore[attr-defined]  # the module that it imports
    assert status_at(-1, 100, 1000) == outcome


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ((ZERO, 8192), (ZERO, 8192)),
        ((ZERO, 9216), (ZERO, 8192)),
        ((ZERO, 1024), (DATA, 4096)),
        ((DATA, 1024), (DATA, 4096)),
        ((DATA, 8192), (DATA, 8192)),
    ],
    ids=str,
)
def test_a_block_that_is_a_hole_in_part_holds_data(
    found: tuple[int, int], expected: tuple[int, int]
) -> None:
    """Where O_DIRECT wants larger blocks than the file system has."""
    assert whole_blocks(*found, 4096) == expected


def test_the_status_of_an_image_is_that_of_its_file(opener: Opener, image: Path) -> None:
    os.truncate(image, 0)
    os.truncate(image, SIZE)
    with image.open("r+b") as held:
        held.seek(SIZE // 2)
        held.write(b"x" * 4096)
        os.fsync(held)
    blk = opener()
    assert blk.bs is not None
    found: Any = blk.bs.block_status(0, SIZE)
    assert (found[0] & (DATA | ZERO), found[1]) == (ZERO, SIZE // 2)
    found = blk.bs.block_status(SIZE // 2, SIZE // 2)
    assert (found[0] & (DATA | ZERO), found[1]) == (DATA, 4096)
