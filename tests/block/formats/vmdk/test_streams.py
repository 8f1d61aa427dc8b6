# SPDX-License-Identifier: GPL-2.0-only
"""Compressed grains, many in one request: read together, packed and unpacked by workers."""

from __future__ import annotations

import errno
import itertools
import os
import random
import struct
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import block
from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.core import flags as f
from block.core import status
from block.core.backend import BlockBackend
from block.core.compress import Zlib
from block.core.error import BlockError
from block.core.wait import run_sync
from block.formats.vmdk.layout import GRAIN_MARKER
from tests.block.formats.vmdk.conftest import GRAIN, SIZE, state_of
from tests.support.drivers import Outcome
from tests.support.qcow2_disk import FLUSH, Tape, open_on
from tests.support.qcow2_packed import poke, text
from tests.support.vmdk_images import exported, peek
from tests.support.vmdk_images import poke as poke_header

COUNT = SIZE // GRAIN


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    """An empty streamOptimized image of 8 MiB."""
    path = tmp_path / "a.vmdk"
    block.create(os.fspath(path), "vmdk", SIZE, subformat="streamOptimized")
    return path


def opened(path: Path, **how: Any) -> BlockBackend:
    return block.open(os.fspath(path), format="vmdk", cache="unsafe", **how)


def grains(count: int) -> bytes:
    """Of different lengths when they are packed."""
    return b"".join(text(n, GRAIN, 2000 * (1 + n % 30)) for n in range(count))


def entries(path: Path, count: int) -> list[int]:
    """The sectors where the first grains begin."""
    data = path.read_bytes()
    table: int = struct.unpack_from("<I", data, peek(path, "gdOffset") * 512)[0]
    return list(struct.unpack_from(f"<{count}I", data, table * 512))


def test_one_read_of_anything_side_by_side_has_every_byte_in_its_place(stream: Path) -> None:
    """Runs of grains, and holes; some grains lie where those of another run would be."""
    source = random.Random(1)
    model = bytearray(SIZE)
    with opened(stream) as disk:
        runs = [(0, 20), (21, 30), (31, 32), (40, 41), (41, 60), (70, 120), (127, 128)]
        for first, end in source.sample(runs, len(runs)):
            data = b"".join(text(n, GRAIN, source.randrange(GRAIN)) for n in range(first, end))
            model[first * GRAIN : end * GRAIN] = data
            disk.pwrite(first * GRAIN, data)
    with opened(stream, read_only=True) as disk:
        assert disk.pread(0, SIZE) == model
        for _ in range(60):
            start = source.randrange(SIZE - 1)
            end = min(SIZE, start + source.randrange(1, 12 * GRAIN))
            room = memoryview(bytearray(end - start))
            cuts = sorted({0, end - start, *(source.randrange(end - start) for _ in range(3))})
            outcome = Outcome()
            disk.aio_preadv(start, [room[a:b] for a, b in itertools.pairwise(cuts)], outcome)
            disk.drain()
            assert outcome.ret == 0
            assert room == model[start:end], (start, end)


def test_a_long_read_asks_the_file_a_few_times_and_moves_only_when_it_is_done(
    stream: Path, iothread: IOThread
) -> None:
    with opened(stream) as disk:
        disk.pwrite(0, grains(64))
    tape = Tape(stream.read_bytes())
    with open_on(tape, driver="vmdk") as disk:
        disk.pread(SIZE - 1, 1)
        tape.log.clear()
        room, outcome = memoryview(bytearray(64 * GRAIN)), Outcome()
        disk.aio_preadv(0, [room], outcome)
        disk.set_aio_context(iothread.ctx)
        assert outcome.ret == 0, "a move begins with a drain"
        assert room == grains(64)
        asked = tape.asked("preadv")
        assert 1 <= len(asked) <= 3
        assert max(offset + nbytes for _, offset, nbytes in asked) == len(tape.data)
        with iothread.ctx:
            assert disk.pread(63 * GRAIN, GRAIN) == text(63, GRAIN, 8000)


def test_grains_that_follow_one_another_are_one_extent(stream: Path) -> None:
    with opened(stream) as disk:
        bs = disk.bs
        assert bs is not None
        for first, count in ((0, 9), (10, 2), (12, 1)):
            disk.pwrite(first * GRAIN, grains(count))
        found: list[tuple[int, int]] = []

        async def ask() -> None:
            at = 1024
            while at < SIZE:
                answer = await status.co_block_status(bs, True, at, SIZE - at)
                found.append((answer[0] & (f.BDRV_BLOCK_DATA | f.BDRV_BLOCK_ZERO), answer[1]))
                at += answer[1]

        run_sync(disk.aio_context, ask)
    data, zero = f.BDRV_BLOCK_DATA, f.BDRV_BLOCK_ZERO
    lengths = [(data, 9), (zero, 1), (data, 3), (zero, COUNT - 13)]
    expected = [(kind, count * GRAIN) for kind, count in lengths]
    expected[0] = (data, 9 * GRAIN - 1024)
    assert found == expected


def test_workers_pack_and_unpack_and_the_loop_does_not(
    stream: Path, main: AioContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[int]] = {"pack": set(), "unpack": set()}

    def noting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            threads[name].add(threading.get_ident())
            return real(*arguments)

        return call

    for name in threads:
        monkeypatch.setattr(Zlib, name, noting(name, getattr(Zlib, name)))
    with opened(stream) as disk:
        disk.pwrite(0, grains(40))
        assert disk.pread(0, 40 * GRAIN) == grains(40)
    assert all(threads.values())
    assert threading.get_ident() not in threads["pack"] | threads["unpack"]


# -- writes


def test_grains_of_a_write_go_one_behind_the_other_and_then_their_entries(stream: Path) -> None:
    tape = Tape(stream.read_bytes())
    with open_on(tape, driver="vmdk") as disk:
        disk.pwrite(GRAIN, grains(20), f.REQ_WRITE_COMPRESSED)
        data, flush, link, redundant, *cid = tape.writes
        assert (flush, redundant[1], cid[1:]) == (FLUSH, link[1], [FLUSH])
        assert data[0] == GRAIN, "where the first one of a new image goes"
        sectors = struct.unpack("<20I", link[1])
        for number, sector in enumerate(sectors):
            at = sector * 512 - GRAIN
            guest, length = GRAIN_MARKER.unpack_from(data[1], at)
            assert guest == (number + 1) * GRAIN // 512
            end = (sectors[number + 1] * 512 - GRAIN) if number < 19 else len(data[1])
            assert end == at + -(-(GRAIN_MARKER.size + length) // 512) * 512
        assert disk.pread(GRAIN, 20 * GRAIN) == grains(20)


def test_a_long_write_is_packed_part_by_part(stream: Path) -> None:
    tape = Tape(stream.read_bytes())
    with open_on(tape, driver="vmdk") as disk:
        disk.pwrite(0, grains(COUNT), f.REQ_WRITE_COMPRESSED)
        assert tape.writes.count(FLUSH) == SIZE // (2 << 20) + 1
        assert disk.pread(0, SIZE) == grains(COUNT)


def test_of_a_write_to_a_grain_in_use_nothing_is_written(stream: Path) -> None:
    with opened(stream) as disk:
        disk.pwrite(3 * GRAIN, grains(1))
        before = stream.read_bytes()
        with pytest.raises(BlockError, match="Could not write to allocated cluster") as caught:
            disk.pwrite(0, grains(6))
        assert caught.value.errno == errno.EIO
        assert stream.read_bytes() == before
        assert disk.pread(0, 4 * GRAIN) == bytes(3 * GRAIN) + grains(1)


def test_a_write_whose_data_fail_names_no_grain(stream: Path) -> None:
    tape = Tape(stream.read_bytes())
    with open_on(tape, driver="vmdk") as disk:
        tape.errors["pwritev"] = OSError(errno.ENOSPC, "full")
        with pytest.raises(OSError, match="full"):
            disk.pwrite(0, grains(6), f.REQ_WRITE_COMPRESSED)
        tape.errors.clear()
        assert tape.writes == []
        assert disk.pread(0, 6 * GRAIN) == bytes(6 * GRAIN)
        disk.pwrite(0, grains(6), f.REQ_WRITE_COMPRESSED)
        assert disk.pread(0, 6 * GRAIN) == grains(6)


def test_a_stream_does_not_become_longer_than_its_entries_can_say(stream: Path) -> None:
    with opened(stream) as disk:
        state_of(disk).extents[0].next_sector = (1 << 32) - 1
        with pytest.raises(BlockError, match="cannot become larger than 2 TiB") as caught:
            disk.pwrite(0, grains(2))
        assert caught.value.errno == errno.ENOSPC


# -- streams that lie


def test_lies_in_the_middle_of_a_run_spoil_themselves_alone(stream: Path) -> None:
    count = 24
    with opened(stream) as disk:
        disk.pwrite(0, grains(count))
    places = [sector * 512 for sector in entries(stream, count)]
    poke(stream, places[3] + GRAIN_MARKER.size, b"\xff" * 500)
    poke(stream, places[7], GRAIN_MARKER.pack(0, 0))
    poke(stream, places[12], GRAIN_MARKER.pack(0, 1 << 31))
    lies = {3: "cannot be unpacked", 7: "is 0 bytes long", 12: "is 2147483648 bytes long"}
    with opened(stream, read_only=True) as disk:
        with pytest.raises(BlockError) as caught:
            disk.pread(0, count * GRAIN)
        assert caught.value.errno == errno.EINVAL, "as in QEMU"
        for number in range(count):
            if number in lies:
                words = f"compressed grain at sector {places[number] // 512} {lies[number]}"
                with pytest.raises(BlockError, match=words):
                    disk.pread(number * GRAIN, GRAIN)
            else:
                data = grains(count)[number * GRAIN :][:GRAIN]
                assert disk.pread(number * GRAIN, GRAIN) == data
        assert disk.pread(13 * GRAIN, 11 * GRAIN) == grains(count)[13 * GRAIN :]


def test_many_bombs_side_by_side_do_not_go_off(tmp_path: Path) -> None:
    path = tmp_path / "a.vmdk"
    path.write_bytes(exported(dict.fromkeys(range(8), bytes(8 << 20)), SIZE))
    with opened(path, read_only=True) as disk:
        tracemalloc.start()
        try:
            with pytest.raises(BlockError, match="cannot be unpacked"):
                disk.pread(0, 8 * GRAIN)
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()


def test_a_grain_that_says_it_is_huge_costs_what_is_there(stream: Path) -> None:
    """A header may name grains of 1 GiB."""
    with opened(stream) as disk:
        disk.pwrite(0, grains(1))
    poke_header(stream, "grainSize", 0x200000)
    with opened(stream, read_only=True) as disk:
        tracemalloc.start()
        try:
            assert disk.pread(512, 1024) == grains(1)[512:1536]
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()
