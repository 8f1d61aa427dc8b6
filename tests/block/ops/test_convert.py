# SPDX-License-Identifier: GPL-2.0-only
"""Convert: how its workers share the work. What it copies is compared with qemu-img's elsewhere."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable
from pathlib import Path

import pytest

from block.aio.co_lock import CoQueue
from block.aio.co_sleep import co_sleep_ns
from block.aio.world import ClockType
from block.core import flags as f
from block.core.align import blockalign
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.open import open_backend
from block.core.registry import find_format
from block.core.status import Status
from block.ops.convert import BUFFER_SIZE, WRITES_AT_ONCE, Convert
from block.ops.map import MapEntry, walk_map
from block.ops.sources import ConvertFailed, Sources
from block.protocols.file.threads import ThreadsEngine
from tests.support import needs

MIB = 1 << 20
PIECES = 12


class Writes:
    """What the target's file was asked to write: when each piece began, and how many at once.

    The first ones wait for each other until `expected` are under way, however quick the disk is.
    """

    def __init__(self, fails_at: int = -1) -> None:
        self.fails_at = fails_at
        self.expected = 1
        self.begun: list[int] = []
        self.under_way = self.most = 0
        self.queue = CoQueue()

    async def watch(self, number: int, write: Awaitable[None]) -> None:
        self.begun.append(number)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        while self.most < self.expected:
            await self.queue.wait()
        self.queue.restart_all()
        await write
        self.under_way -= 1

    async def fail(self, number: int) -> None:
        self.begun.append(number)
        raise BlockError(errno.EIO)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Writes:
    found = Writes()
    real = ThreadsEngine.co_pwritev_new

    def co_pwritev_new(
        engine: ThreadsEngine, offset: int, nbytes: int, qiov: list[memoryview]
    ) -> Awaitable[None]:
        number = offset // BUFFER_SIZE
        if number == found.fails_at:
            return found.fail(number)
        return found.watch(number, real(engine, offset, nbytes, qiov))

    monkeypatch.setattr(ThreadsEngine, "co_pwritev_new", co_pwritev_new)
    return found


def content() -> bytes:
    return b"".join(bytes([number + 1]) * BUFFER_SIZE for number in range(PIECES))


def convert(folder: Path, *, workers: int = 8, in_order: bool = True) -> bytes:
    """Copies a raw disk of some pieces; what the target holds then."""
    (folder / "source").write_bytes(content())
    (folder / "target").touch()
    with (folder / "target").open("r+b") as file:
        file.truncate(PIECES * BUFFER_SIZE)
    options: list[tuple[str, int]] = [("source", 0), ("target", f.BDRV_O_RDWR)]
    disks: list[BlockBackend] = [
        open_backend(str(folder / name), options={"driver": "raw"}, flags=flags)
        for name, flags in options
    ]
    try:
        Convert(disks[:1], disks[1], workers=workers, in_order=in_order).run()
    finally:
        for disk in disks:
            disk.unref()
    return (folder / "target").read_bytes()


def test_writes_begin_in_the_order_of_the_disk_and_few_are_under_way(
    tmp_path: Path, writes: Writes
) -> None:
    writes.expected = WRITES_AT_ONCE
    assert convert(tmp_path) == content()
    assert writes.begun == list(range(PIECES))
    assert writes.most == WRITES_AT_ONCE


@pytest.mark.parametrize("cluster_size", [512, 4096, 65536])
def test_clusters_come_in_the_order_of_the_disk_wherever_data_begin(
    tmp_path: Path, cluster_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data of many lengths that begin and end within clusters, with holes and zeroes between.

    Reads so short are done by the loop: so the next data are there before any write is through.
    """
    monkeypatch.setattr("block.ops.convert.BUFFER_SIZE", 1 << 18)
    with (tmp_path / "source").open("wb") as file:
        for number in range(20):
            file.seek(20480, os.SEEK_CUR)
            file.write(bytes([number + 1]) * (8192 * number + (5 << 20 if number % 8 == 0 else 0)))
            file.write(bytes(12288) + b"end of this".ljust(4096, b"."))
        file.truncate(25 << 20)
    path = str(tmp_path / "target")
    options = {"size": 25 << 20, "cluster_size": cluster_size}
    find_format("qcow2").create(path, options)
    source = open_backend(str(tmp_path / "source"), options={"driver": "raw"})
    target = open_backend(path, options={"driver": "qcow2"}, flags=f.BDRV_O_RDWR)
    with source, target:
        Convert([source], target).run()
        found: list[MapEntry] = []
        assert target.bs is not None
        walk_map(target.bs, 0, target.length, lambda entry, _: found.append(entry))
    placed = [entry for entry in found if entry.offset is not None]
    assert sum(entry.length for entry in placed) > 15 << 20
    assert placed == sorted(placed, key=lambda entry: entry.offset or 0)


@pytest.mark.parametrize("fmt", ["raw", "qcow2", "qed", "vmdk"])
def test_a_copy_of_nothing_adds_nothing_to_a_new_image(tmp_path: Path, fmt: str) -> None:
    size = (1 << 40) + 512
    with (tmp_path / "source").open("wb") as file:
        file.truncate(size)
    path = tmp_path / "target"
    find_format(fmt).create(str(path), {"size": size})
    before = path.stat().st_size, path.stat().st_blocks
    source = open_backend(str(tmp_path / "source"), options={"driver": "raw"})
    target = open_backend(str(path), options={"driver": fmt}, flags=f.BDRV_O_RDWR)
    with source, target:
        Convert([source], target, target_is_new=True).run()
    assert (path.stat().st_size, path.stat().st_blocks) == before


class Buffers:
    """How many buffers were full, whenever one had been filled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = 0
        self.most = 0
        real_read, real_write = Sources.co_read, ThreadsEngine.co_pwritev_new

        async def read(work: Sources, offset: int, view: memoryview, packed: bool) -> None:
            await real_read(work, offset, view, packed)
            self.full += 1
            self.most = max(self.most, self.full)

        async def write(
            engine: ThreadsEngine, offset: int, nbytes: int, qiov: list[memoryview]
        ) -> None:
            await real_write(engine, offset, nbytes, qiov)
            self.full -= 1

        monkeypatch.setattr(Sources, "co_read", read)
        monkeypatch.setattr(ThreadsEngine, "co_pwritev_new", write)


@needs.linux("RWF_NOWAIT")
def test_what_is_in_memory_is_read_no_further_ahead_than_one_buffer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffers = Buffers(monkeypatch)
    assert convert(tmp_path) == content()
    assert buffers.most <= WRITES_AT_ONCE + 1


def test_a_source_that_must_wait_for_its_data_is_read_by_all_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while full buffers wait for room. The first write ends when all buffers are full, and
    the next two when they are full again."""
    monkeypatch.setattr("block.ops.sources.read_at_once", lambda bs: 0)  # so the pool reads
    workers = 4
    buffers = Buffers(monkeypatch)
    at_once = ThreadsEngine.co_pwritev_new
    ended: list[int] = []
    fullest: dict[int, int] = {}

    async def slow(engine: ThreadsEngine, offset: int, nbytes: int, qiov: list[memoryview]) -> None:
        number = offset // BUFFER_SIZE
        for _ in range(1000 if number <= 2 else 0):
            if buffers.full == workers and (number == 0 or ended):
                break
            await co_sleep_ns(ClockType.REALTIME, 1_000_000)
        fullest[number] = buffers.full
        await at_once(engine, offset, nbytes, qiov)
        ended.append(number)

    monkeypatch.setattr(ThreadsEngine, "co_pwritev_new", slow)
    assert convert(tmp_path, workers=workers) == content()
    assert fullest[0] == fullest[1] == workers


@needs.linux("RWF_NOWAIT")
def test_a_buffer_that_is_free_is_used_before_a_new_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    real = blockalign
    monkeypatch.setattr(
        "block.ops.convert.blockalign", lambda size: made.append(size) or real(size)
    )
    assert convert(tmp_path) == content()
    assert made == [BUFFER_SIZE] * (WRITES_AT_ONCE + 1)


def test_without_an_order_all_workers_write_at_once(tmp_path: Path, writes: Writes) -> None:
    writes.expected = 5
    assert convert(tmp_path, workers=5, in_order=False) == content()
    assert writes.most == 5


def test_one_worker_writes_one_piece_after_the_other(tmp_path: Path, writes: Writes) -> None:
    assert convert(tmp_path, workers=1) == content()
    assert writes.most == 1


def test_the_first_failure_ends_all_and_names_its_place(tmp_path: Path, writes: Writes) -> None:
    writes.fails_at = 3
    with pytest.raises(ConvertFailed, match="Input/output error") as caught:
        convert(tmp_path)
    assert (caught.value.what, caught.value.offset) == ("writing at byte", 3 * BUFFER_SIZE)
    assert max(writes.begun) <= 3 + WRITES_AT_ONCE
    assert (tmp_path / "source").read_bytes() == content()


@pytest.mark.parametrize(("kept", "times"), [(10_000, 1), (0, 2), (3, 2)])
def test_what_was_found_when_all_was_counted_is_not_asked_for_again(
    tmp_path: Path, kept: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for an image of very many extents: then only some of them are kept."""
    with (tmp_path / "source").open("wb") as file:
        for number in range(8):
            file.seek(MIB, os.SEEK_CUR)
            file.write(bytes([number + 1]) * MIB)
    asked: list[int] = []
    real = Sources.co_status

    async def co_status(work: Sources, offset: int, nbytes: int, above: bool) -> Status:
        asked.append(offset)
        return await real(work, offset, nbytes, above)

    monkeypatch.setattr(Sources, "co_status", co_status)
    monkeypatch.setattr("block.ops.convert.MOST_ANSWERS", kept)
    source = open_backend(str(tmp_path / "source"), options={"driver": "raw"})
    (tmp_path / "target").write_bytes(bytes(16 * MIB))
    target = open_backend(
        str(tmp_path / "target"), options={"driver": "raw"}, flags=f.BDRV_O_RDWR
    )
    with source, target:
        Convert([source], target).run()
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()
    assert {offset: asked.count(offset) for offset in asked[:3]} == dict.fromkeys(
        (0, MIB, 2 * MIB), 2 if kept == 0 else 1
    )
    assert asked.count(15 * MIB) == times
