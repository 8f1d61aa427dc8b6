# SPDX-License-Identifier: GPL-2.0-only
"""The file driver through the whole tree: reads, writes, flushes, sizes, moves."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.io import try_preadv
from block.core.open import bdrv_open, open_backend
from block.core.wait import poll_while
from block.protocols.file import driver, locks, syscalls, threads
from block.protocols.file.state import FileState
from tests.block.protocols.file.conftest import SIZE, Opener
from tests.support import needs


def state_of(blk: BlockBackend) -> FileState:
    assert blk.bs is not None
    state: FileState = blk.bs.opaque
    return state


def refusal(path: Path | str, **options: Any) -> str:
    with pytest.raises(BlockError) as caught:
        bdrv_open(os.fspath(path), options={"driver": "file", **options})
    return str(caught.value)


# -- opening


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nosuch"
    assert refusal(path) == f"Could not open '{path}': No such file or directory"


def test_a_directory_is_no_image(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"Could not open '{tmp_path}': Is a directory"
    read_only = {"read-only": True}
    assert (
        refusal(tmp_path, **read_only)
        == f"'file' driver requires '{tmp_path}' to be a regular file"
    )


def test_a_fifo_is_refused_without_waiting_for_its_other_end(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    read_only = {"read-only": True}
    assert refusal(path, **read_only) == f"'file' driver requires '{path}' to be a regular file"


def test_a_device_is_no_regular_file() -> None:
    assert refusal("/dev/null") == "'file' driver requires '/dev/null' to be a regular file"


def test_a_descriptor_of_this_process_can_be_opened_by_name(image: Path) -> None:
    with image.open("rb") as held:
        blk = open_backend(f"/dev/fd/{held.fileno()}", options={"driver": "file"}, flags=0)
        assert blk.pread(0, 1) == b"\0"
        blk.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aio": "x"}, "Parameter 'aio' does not accept value 'x'"),
        ({"locking": "x"}, "Parameter 'locking' does not accept value 'x'"),
        (
            {"aio": "native"},
            "aio=native was specified, but it requires cache.direct=on, which was not specified.",
        ),
        (
            {"x-check-cache-dropped": "on"},
            "Block protocol 'file' doesn't support the option 'x-check-cache-dropped'",
        ),
        (
            {"pr-manager": "x"},
            "Block protocol 'file' doesn't support the option 'pr-manager'",
        ),
    ],
)
def test_what_the_driver_cannot_do_is_refused_by_name(
    image: Path, options: dict[str, str], message: str
) -> None:
    assert refusal(image, **options) == message


# -- reading and writing


def test_what_is_written_is_read_back(opener: Opener, image: Path) -> None:
    blk = opener()
    for offset, data in [(0, b"a" * 4096), (5, b"xyz"), (4095, b"12"), (SIZE - 1, b"z")]:
        blk.pwrite(offset, data)
        assert blk.pread(offset, len(data)) == data
    blk.flush()
    assert image.read_bytes()[4093:4098] == b"aa12\x01"


@needs.linux("RWF_NOWAIT")
def test_a_cached_read_is_answered_at_once(opener: Opener) -> None:
    blk = opener()
    buffer = bytearray(4096)
    assert blk.root is not None
    assert blk.root.bs.drv is not None
    drv = blk.root.bs.drv
    assert drv.try_preadv(blk.root.bs, 8192, 4096, [memoryview(buffer)]) == 0
    assert buffer == b"\2" * 4096


@needs.linux("RWF_NOWAIT")
@pytest.mark.parametrize(("aio", "longest"), [("threads", 1 << 20), ("io_uring", 1 << 20)])
def test_a_long_read_is_left_to_the_engine(
    opener: Opener, image: Path, aio: str, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs.engine(aio)
    with image.open("r+b") as file:
        file.truncate(longest + 4096)
    blk = opener(aio=aio)
    real, at_once = os.preadv, []

    def preadv(fd: int, qiov: Any, offset: int, flags: int = 0) -> int:
        if flags:
            at_once.append(sum(map(len, qiov)))
        return real(fd, qiov, offset, flags)

    monkeypatch.setattr(os, "preadv", preadv)
    assert blk.root is not None
    for nbytes, answer in [(longest, 0), (longest + 4096, None)]:
        qiov = [memoryview(bytearray(nbytes))]
        assert try_preadv(blk.root, 0, nbytes, qiov) == answer
        assert blk.pread(0, nbytes)[4096:8192] == b"\1" * 4096
    assert at_once == [longest, longest]


@needs.linux("RWF_NOWAIT")
def test_of_a_read_that_is_cached_in_part_the_engine_does_the_rest(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    blk = opener()
    real = os.preadv
    asked = []

    def preadv(fd: int, qiov: Any, offset: int, flags: int = 0) -> int:
        asked.append((offset, sum(map(len, qiov)), flags))
        if flags:
            qiov = [qiov[0][:4096]]
        return real(fd, qiov, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    assert blk.pread(4096, 12288) == b"\1" * 4096 + b"\2" * 4096 + b"\3" * 4096
    assert asked == [(4096, 12288, driver.RWF_NOWAIT), (8192, 8192, 0)]


@needs.linux("RWF_NOWAIT")
def test_a_file_system_that_refuses_nowait_is_asked_once(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    blk = opener()
    real = os.preadv
    flags_seen = []

    def preadv(fd: int, qiov: Any, offset: int, flags: int = 0) -> int:
        flags_seen.append(flags)
        if flags:
            raise OSError(errno.EOPNOTSUPP, "no")
        return real(fd, qiov, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    assert blk.pread(0, 512) == bytes(512)
    assert blk.pread(4096, 512) == b"\1" * 512
    assert flags_seen == [driver.RWF_NOWAIT, 0, 0]
    assert not state_of(blk).nowait


@needs.linux("RWF_NOWAIT")
def test_a_page_that_is_not_cached_does_not_turn_nowait_off(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    blk = opener()
    real = os.preadv

    def preadv(fd: int, qiov: Any, offset: int, flags: int = 0) -> int:
        if flags:
            raise OSError(errno.EAGAIN, "not cached")
        return real(fd, qiov, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    assert blk.pread(4096, 512) == b"\1" * 512
    assert state_of(blk).nowait


def test_a_file_that_was_cut_behind_our_back_reads_as_zeroes(opener: Opener, image: Path) -> None:
    blk = opener()
    os.truncate(image, 5000)
    assert blk.pread(4096, 8192) == b"\1" * 904 + bytes(8192 - 904)
    dirty = memoryview(bytearray(b"x" * (1 << 17)))
    blk.preadv_into(8192, [dirty[:5], dirty[5:]])
    assert dirty == bytes(1 << 17)


def test_a_file_that_grew_behind_our_back_is_not_read_beyond_its_old_end(
    opener: Opener, image: Path
) -> None:
    blk = opener()
    os.truncate(image, 2 * SIZE)
    with pytest.raises(BlockError):
        blk.pread(SIZE, 512)


def test_a_vector_is_filled_view_by_view(opener: Opener) -> None:
    blk = opener()
    views = [memoryview(bytearray(n)) for n in (1, 4095, 4096, 100)]
    blk.preadv_into(0, views)
    assert [bytes(v[:2]) for v in views] == [b"\0", b"\0\0", b"\1\1", b"\2\2"]


def test_a_read_goes_straight_into_the_callers_memory(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    blk = opener()
    view = memoryview(bytearray(4096))
    seen: list[Any] = []
    real = os.preadv

    def preadv(fd: int, qiov: Any, *rest: int) -> int:
        seen.extend(v.obj for v in qiov)
        return real(fd, qiov, *rest)

    monkeypatch.setattr(os, "preadv", preadv)
    blk.preadv_into(0, [view])
    assert seen
    assert all(memory is view.obj for memory in seen)


def test_a_full_disk_fails_the_write_that_met_it(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    blk = opener()

    def pwritev(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "pwritev", pwritev)
    for offset, length in [(0, 4096), (1, 5), (0, 1 << 17)]:
        with pytest.raises(BlockError) as caught:
            blk.pwrite(offset, bytes(length))
        assert caught.value.errno == errno.ENOSPC


def test_after_a_failed_flush_all_flushes_fail(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    blk = opener()

    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "broken")

    blk.pwrite(0, b"x")
    with monkeypatch.context() as patch:
        patch.setattr(threads, "sync_data", broken)
        with pytest.raises(BlockError) as caught:
            blk.flush()
        assert caught.value.errno == errno.EIO
    blk.pwrite(0, b"x")
    with pytest.raises(BlockError):
        blk.flush()


# -- sizes and options


def test_the_length_is_the_files(opener: Opener, image: Path) -> None:
    assert opener().length == SIZE
    os.truncate(image, 1000)
    assert opener().length == 1024


def test_the_image_can_be_resized(opener: Opener, image: Path) -> None:
    blk = opener()
    blk.truncate(2 * SIZE)
    assert (blk.length, image.stat().st_size) == (2 * SIZE, 2 * SIZE)
    assert blk.pread(2 * SIZE - 512, 512) == bytes(512)
    blk.truncate(512)
    assert image.stat().st_size == 512


def test_a_resize_that_fails_says_why(opener: Opener) -> None:
    blk = opener()
    with pytest.raises(BlockError, match=r"^Cannot use preallocation for shrinking files$"):
        blk.truncate(512, prealloc="full")


def test_options_of_creation_are_checked(tmp_path: Path) -> None:
    made = driver.FileDriver()
    path = os.fspath(tmp_path / "new")
    made.create(f"file:{path}", {"size": "1000"})
    assert os.stat(path).st_size == 1024
    with pytest.raises(BlockError, match=r"^Unsupported preallocation mode: metadata$"):
        made.create(path, {"size": 512, "preallocation": "metadata"})
    with pytest.raises(BlockError, match=r"^Parameter 'preallocation' does not accept value 'x'$"):
        made.create(path, {"size": 512, "preallocation": "x"})


# -- the event loop


def test_an_image_moves_with_its_tree(
    opener: Opener, main: AioContext, iothread: IOThread, second_iothread: IOThread
) -> None:
    blk = opener()
    for ctx in (iothread.ctx, second_iothread.ctx, main, iothread.ctx, main):
        blk.set_aio_context(ctx)
        blk.pwrite(0, bytes([7]) * 4096)
        assert blk.pread(0, 4096) == bytes([7]) * 4096
        blk.flush()


def test_after_a_move_nothing_of_the_node_is_left_behind(
    opener: Opener, main: AioContext, iothread: IOThread
) -> None:
    blk = opener()
    blk.pwrite(0, bytes(4096))
    assert [r.kind for r in main.registrations(blk.bs)] == ["bh"]
    blk.set_aio_context(iothread.ctx)
    assert main.registrations(blk.bs) == []
    blk.pwrite(0, bytes(4096))
    blk.set_aio_context(main)
    with iothread.ctx:
        assert iothread.ctx.registrations(blk.bs) == []


def test_many_writes_at_once_all_arrive(opener: Opener, image: Path, main: AioContext) -> None:
    blk = opener()
    left = []
    for n in range(200):
        at = (n * 37 % 200) * 4096
        left.append(at)
        blk.aio_pwritev(
            at, [memoryview(bytes([n]) * 4096)], lambda ret, at=at: left.remove(at) or ret
        )  # type: ignore[misc]  # a lambda's default
    poll_while(main, lambda: bool(left))
    data = image.read_bytes()
    assert all(data[n * 37 % 200 * 4096] == n for n in range(200))


# -- machines that lack something


def test_the_driver_works_without_anything_that_only_linux_has(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_fallocate() -> Any:
        raise OSError(errno.ENOTSUP, "no fallocate")

    monkeypatch.setattr(locks, "_ofd_works", False)
    monkeypatch.setattr(syscalls, "_fallocate", None)
    monkeypatch.setattr(syscalls, "_load_fallocate", no_fallocate)
    monkeypatch.delattr(os, "RWF_NOWAIT", raising=False)
    monkeypatch.delattr(os, "SEEK_DATA", raising=False)
    options = {"driver": "file", "discard": "unmap"}
    blk = open_backend(os.fspath(image), options=options, flags=f.BDRV_O_RDWR | f.BDRV_O_RESIZE)
    assert not state_of(blk).use_lock
    assert not state_of(blk).nowait
    blk.pwrite(0, b"x" * 8192)
    blk.pwrite_zeroes(0, 4096)
    blk.pdiscard(4096, 4096)
    assert blk.pread(0, 8192) == bytes(4096) + b"x" * 4096
    assert blk.bs is not None
    assert blk.bs.block_status(0, SIZE)[0] & f.BDRV_BLOCK_DATA
    blk.flush()
    blk.close()
