# SPDX-License-Identifier: GPL-2.0-only
"""Allocating writes (REQ_ALLOCATING): room first, and in one piece."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from block.aio.co_parallel import co_parallel
from block.aio.iothread import IOThread
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.open import open_backend
from block.core.registry import find_format
from block.core.wait import poll_while, run_sync
from block.protocols.file import syscalls, threads
from block.protocols.file.threads import ALLOCATED_FIRST, SMALL_WRITE
from tests.block.protocols.file.conftest import SIZE, Opener

MIB = 1 << 20


class Rooms:
    """The ranges that fallocate was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: int = 0) -> None:
        self.asked: list[tuple[int, int]] = []
        self.error = error
        self.real = syscalls.fallocate
        monkeypatch.setattr("block.protocols.file.zero.fallocate", self.fallocate)

    def fallocate(self, fd: int, mode: int, offset: int, nbytes: int) -> None:
        assert mode == 0
        self.asked.append((offset, nbytes))
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        self.real(fd, mode, offset, nbytes)


def allocating(blk: BlockBackend, offset: int, nbytes: int) -> list[int]:
    rets: list[int] = []
    data = [memoryview(bytearray(b"x" * nbytes))]
    blk.aio_pwritev(offset, data, rets.append, f.REQ_ALLOCATING)
    poll_while(blk.aio_context, lambda: not rets)
    return rets


def test_a_long_allocating_write_gets_its_room_in_one_piece(
    opener: Opener, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = Rooms(monkeypatch)
    blk = opener()
    assert allocating(blk, 4096, ALLOCATED_FIRST) == [0]
    assert rooms.asked == [(4096, ALLOCATED_FIRST)]
    assert image.read_bytes()[4096:].startswith(b"x" * ALLOCATED_FIRST)


def test_short_and_direct_and_other_writes_do_not(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = Rooms(monkeypatch)
    blk = opener()
    assert allocating(blk, 0, ALLOCATED_FIRST - 4096) == [0]
    rets: list[int] = []
    blk.aio_pwritev(0, [memoryview(bytes(ALLOCATED_FIRST))], rets.append)
    poll_while(blk.aio_context, lambda: not rets)
    assert blk.bs is not None
    blk.bs.opaque.direct = True
    assert allocating(blk, 0, ALLOCATED_FIRST) == [0]
    blk.bs.opaque.direct = False
    assert rooms.asked == []


class Workers:
    """Which threads did the calls of a function of threads.py."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.seen: list[int] = []
        self.real = getattr(threads, name)
        monkeypatch.setattr(threads, name, self.call)

    def call(self, *args: Any) -> int:
        self.seen.append(threading.get_ident())
        ret: int = self.real(*args)
        return ret


@pytest.mark.parametrize(
    ("name", "nbytes", "count", "calls"),
    [("write_new", ALLOCATED_FIRST, 4, 4), ("write_batch", SMALL_WRITE, 48, 3)],
)
def test_cached_writes_of_a_node_are_one_workers_also_after_a_move(
    opener: Opener,
    iothread: IOThread,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    nbytes: int,
    count: int,
    calls: int,
) -> None:
    workers = Workers(monkeypatch, name)
    blk = opener()

    async def write_all() -> None:
        data = [memoryview(bytearray(nbytes))]
        places = [number * nbytes % SIZE for number in range(count)]
        writes = [blk.co_pwritev(at, nbytes, data, f.REQ_ALLOCATING) for at in places]
        assert not any(await co_parallel(*writes))

    run_sync(blk.aio_context, write_all)
    blk.set_aio_context(iothread.ctx)
    run_sync(blk.aio_context, write_all)
    assert len(workers.seen) == 2 * calls
    assert len(set(workers.seen[:calls])) == len(set(workers.seen[calls:])) == 1


def test_those_of_a_device_are_the_contexts_workers(opener: Opener) -> None:
    bs = opener().bs
    assert bs is not None
    bs.opaque.is_device = True
    assert bs.opaque.engine.writers() is bs.aio_context.thread_pool


def test_a_file_system_that_cannot_is_asked_once_and_written_to(
    opener: Opener, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = Rooms(monkeypatch, errno.ENOTSUP)
    blk = opener()
    for offset in (0, ALLOCATED_FIRST):
        assert allocating(blk, offset, ALLOCATED_FIRST) == [0]
    assert rooms.asked == [(0, ALLOCATED_FIRST)]
    assert image.read_bytes().startswith(b"x" * 2 * ALLOCATED_FIRST)


def test_a_full_disk_says_so_before_anything_is_written(
    opener: Opener, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = image.read_bytes()
    Rooms(monkeypatch, errno.ENOSPC)
    assert allocating(opener(), 0, ALLOCATED_FIRST) == [-errno.ENOSPC]
    assert image.read_bytes() == before


@pytest.mark.parametrize("driver", ["raw", "blkdebug", "preallocate", "copy-on-read"])
def test_who_hands_requests_on_hands_it_on_too(
    image: Path, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = Rooms(monkeypatch)
    below = {"blkdebug": "image"}.get(driver, "file")
    options = {"driver": driver, f"{below}.driver": "file", f"{below}.filename": str(image)}
    with open_backend(None, options=options, flags=f.BDRV_O_RDWR) as blk:
        assert allocating(blk, 0, ALLOCATED_FIRST) == [0]
    assert rooms.asked == [(0, ALLOCATED_FIRST)]


def write(blk: BlockBackend, zeroes: bool = False) -> None:
    """Writes the first MiB of a disk, as guests do."""
    rets: list[int] = []
    if zeroes:
        blk.aio_pwrite_zeroes(0, MIB, rets.append)
    else:
        blk.aio_pwritev(0, [memoryview(bytearray(b"q" * MIB))], rets.append)
    poll_while(blk.aio_context, lambda: not rets)
    assert rets == [0]


@pytest.mark.parametrize("name", ["qcow2", "qed", "vmdk"])
def test_a_format_says_it_of_new_clusters_only(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = Rooms(monkeypatch)
    path = str(tmp_path / name)
    find_format(name).create(path, {"size": 8 * MIB})
    with open_backend(path, options={"driver": name}, flags=f.BDRV_O_RDWR) as blk:
        write(blk)
        assert [nbytes for _, nbytes in rooms.asked] == [MIB]
        write(blk)
    assert len(rooms.asked) == 1


def test_clusters_that_count_as_zero_have_their_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "qcow2")
    find_format("qcow2").create(path, {"size": 8 * MIB})
    with open_backend(path, options={"driver": "qcow2"}, flags=f.BDRV_O_RDWR) as blk:
        write(blk)
        write(blk, zeroes=True)
        rooms = Rooms(monkeypatch)
        write(blk)
    assert rooms.asked == []
