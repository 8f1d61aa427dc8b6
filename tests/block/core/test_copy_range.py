# SPDX-License-Identifier: GPL-2.0-only
"""Copies that the kernel makes: they are complete, they meet the checks of reads and writes, and
where nobody can make them, the caller hears it and does it by itself."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import block
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.wait import run_sync
from block.ops.convert import WRITES_AT_ONCE, Convert
from block.protocols.file import syscalls
from tests.block.core.conftest import main, nothing_left_behind

__all__ = ["main", "nothing_left_behind"]

SIZE = 5 << 20  # more than convert reads at once
DATA = bytes(range(1, 256)) * (SIZE // 255) + bytes(SIZE % 255)

pytestmark = pytest.mark.skipif(
    not hasattr(os, "copy_file_range"), reason="needs copy_file_range: Linux 4.5"
)
Calls = list[tuple[int, int]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """(offset, bytes) of each call to the kernel."""
    seen: Calls = []
    real = os.copy_file_range

    def call(source: int, target: int, nbytes: int, offset: int, to: int) -> int:
        seen.append((offset, nbytes))
        return real(source, target, nbytes, offset, to)

    monkeypatch.setattr(os, "copy_file_range", call)
    return seen


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[..., BlockBackend]]:
    """Opens a file with DATA, or an image of another format, by name."""
    opened: list[BlockBackend] = []

    def open_it(name: str, fmt: str | None = "raw", **how: object) -> BlockBackend:
        path = tmp_path / name
        if not path.exists():
            if fmt in ("raw", None):
                path.write_bytes(DATA if name == "source" else bytes(SIZE))
            else:
                block.create(os.fspath(path), str(fmt), SIZE)
        made = block.open(os.fspath(path), format=fmt, cache="unsafe", **how)  # type: ignore[arg-type]  # as the test says
        opened.append(made)
        return made

    yield open_it
    for made in opened:
        made.close()


def copy(source: BlockBackend, offset: int, target: BlockBackend, to: int, nbytes: int) -> None:
    run_sync(target.aio_context, lambda: source.co_copy_range(offset, target, to, nbytes))


def test_the_bytes_are_there_and_nothing_was_read(
    disk: Callable[..., BlockBackend], calls: Calls
) -> None:
    source, target = disk("source", read_only=True), disk("target")
    copy(source, 4096, target, 65536, 8192)
    assert calls == [(4096, 8192)]
    assert target.pread(0, SIZE) == bytes(65536) + DATA[4096:12288] + bytes(SIZE - 65536 - 8192)


def test_raw_with_an_offset_copies_from_behind_it(
    disk: Callable[..., BlockBackend], tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(DATA)
    source = disk("source", read_only=True, options={"offset": 512})
    target = disk("target")
    copy(source, 0, target, 0, 4096)
    assert target.pread(0, 4096) == DATA[512:4608]


@pytest.mark.parametrize("who", ["source", "target"])
def test_a_format_that_cannot_says_so_before_anything_is_done(
    disk: Callable[..., BlockBackend], calls: Calls, who: str
) -> None:
    disks = {name: disk(name, "qcow2" if name == who else "raw") for name in ("source", "target")}
    with pytest.raises(BlockError) as caught:
        copy(disks["source"], 0, disks["target"], 0, 4096)
    assert caught.value.errno == errno.ENOTSUP
    assert calls == []


def test_a_target_that_is_read_only_is_not_written(
    disk: Callable[..., BlockBackend], calls: Calls
) -> None:
    source, target = disk("source", read_only=True), disk("target", read_only=True)
    with pytest.raises(BlockError, match="read-only"):
        copy(source, 0, target, 0, 4096)
    assert calls == []


def test_the_first_sector_of_a_guessed_raw_image_is_looked_at_and_so_not_copied(
    disk: Callable[..., BlockBackend], calls: Calls, tmp_path: Path
) -> None:
    source = disk("source", read_only=True)
    (tmp_path / "guessed").write_bytes(bytes(SIZE))
    target = disk("guessed", None)
    with pytest.raises(BlockError) as caught:
        copy(source, 0, target, 0, 4096)
    assert caught.value.errno == errno.ENOTSUP
    assert calls == []
    copy(source, 0, target, 4096, 4096)
    assert target.pread(4096, 4096) == DATA[:4096]


def test_what_lies_beyond_the_source_is_not_copied(
    disk: Callable[..., BlockBackend],
) -> None:
    source, target = disk("source", read_only=True), disk("target")
    for offset, nbytes in ((SIZE - 512, 1024), (-512, 512)):
        with pytest.raises(BlockError):
            copy(source, offset, target, 0, nbytes)
    assert target.pread(0, SIZE) == bytes(SIZE)


def converted(source: BlockBackend, target: BlockBackend, offload: bool = True) -> None:
    Convert([source], target, offload=offload).run()


def test_convert_lets_the_kernel_copy_if_it_is_told_to(
    disk: Callable[..., BlockBackend], calls: Calls
) -> None:
    source, target = disk("source", read_only=True), disk("target")
    converted(source, target, offload=False)
    assert calls == []
    converted(source, target)
    assert sum(nbytes for _, nbytes in calls) == SIZE
    assert target.pread(0, SIZE) == DATA


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EINVAL, errno.EIO])
def test_convert_reads_and_writes_where_the_kernel_cannot(
    disk: Callable[..., BlockBackend], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    tried: list[int] = []

    def refuse(*words: int) -> int:
        tried.append(number)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    source, target = disk("source", read_only=True), disk("target")
    converted(source, target)
    assert 1 <= len(tried) <= WRITES_AT_ONCE, "whoever comes later knows"
    assert target.pread(0, SIZE) == DATA


def test_a_copy_that_stops_in_the_middle_is_done_again_as_a_whole(
    disk: Callable[..., BlockBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.copy_file_range
    answers = iter((4096, 0))

    def call(source: int, target: int, nbytes: int, offset: int, to: int) -> int:
        size = next(answers, 0)
        return real(source, target, size, offset, to) if size else 0

    monkeypatch.setattr(os, "copy_file_range", call)
    source, target = disk("source", read_only=True), disk("target")
    converted(source, target)
    assert target.pread(0, SIZE) == DATA


def test_a_kernel_that_copies_little_at_a_time_is_asked_again(
    disk: Callable[..., BlockBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.copy_file_range

    def call(source: int, target: int, nbytes: int, offset: int, to: int) -> int:
        return real(source, target, min(nbytes, 5000), offset, to)

    monkeypatch.setattr(os, "copy_file_range", call)
    source, target = disk("source", read_only=True), disk("target")
    copy(source, 512, target, 1024, 16384)
    assert target.pread(0, 20000) == bytes(1024) + DATA[512:16896] + bytes(20000 - 17408)


def test_without_the_call_it_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "copy_file_range")
    with pytest.raises(OSError, match="not supported") as caught:
        syscalls.copy_range(0, 0, 0, 0, 512)
    assert caught.value.errno == errno.ENOTSUP
