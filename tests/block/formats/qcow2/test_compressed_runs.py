# SPDX-License-Identifier: GPL-2.0-only
"""Many compressed clusters in one request: read together, unpacked side by side."""

from __future__ import annotations

import errno
import itertools
import os
import random
import struct
from pathlib import Path

import pytest

import block
from block.aio.iothread import IOThread
from block.core import flags as f
from block.core import status
from block.core.error import BlockError
from block.core.wait import run_sync
from block.formats.qcow2.layout import OFLAG_COMPRESSED
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener
from tests.support.drivers import Outcome
from tests.support.qcow2_disk import Tape, open_on
from tests.support.qcow2_packed import COMPRESSED, entries, places, poke, text
from tests.support.qcow2_tables import first_l2

WHAT = ("packed", "plain", "zero", "hole", "noise")


def mixed_image(
    folder: Path, kinds: list[str], options: dict[str, object], cluster: int
) -> tuple[Path, bytes]:
    """An image over a backing file, of which each cluster is something else; what it reads as."""
    path, below = folder / "mixed.qcow2", folder / "below.raw"
    below.write_bytes(bytes([200]) * (len(kinds) * cluster))
    made = {
        "cluster_size": cluster,
        "backing_file": os.fspath(below),
        "backing_fmt": "raw",
        **options,
    }
    block.create(os.fspath(path), "qcow2", len(kinds) * cluster, **made)
    model = bytearray()
    with block.open(os.fspath(path), format="qcow2", cache="unsafe") as disk:
        for number, kind in enumerate(kinds):
            data = bytes([200]) * cluster
            if kind == "zero":
                data = bytes(cluster)
                disk.pwrite_zeroes(number * cluster, cluster)
            elif kind != "hole":
                room = cluster if kind == "noise" else cluster // 4
                data = text(number, cluster, room)
                flags = 0 if kind == "plain" else COMPRESSED
                disk.pwrite(number * cluster, data, flags)
            model += data
    return path, bytes(model)


@pytest.mark.parametrize("method", ["zlib", "zstd"])
@pytest.mark.parametrize("extended", ["off", "on"])
@pytest.mark.parametrize("cluster", [16384, 131072])
def test_one_read_of_anything_side_by_side_has_every_byte_in_its_place(
    tmp_path: Path, opener: Opener, method: str, extended: str, cluster: int
) -> None:
    source = random.Random(cluster)
    kinds = ["packed"] * 9 + source.choices(WHAT, [6, 1, 1, 1, 1], k=31)
    options: dict[str, object] = {"compression_type": method, "extended_l2": extended}
    path, model = mixed_image(tmp_path, kinds, options, cluster)
    disk = opener(path)
    assert disk.pread(0, len(model)) == model
    for _ in range(30):
        start = source.randrange(len(model) - 1)
        end = source.randrange(start + 1, min(len(model), start + 12 * cluster) + 1)
        room = memoryview(bytearray(end - start))
        cuts = sorted({0, end - start, *(source.randrange(end - start) for _ in range(3))})
        vector = [room[a:b] for a, b in itertools.pairwise(cuts)]  # edges within clusters
        outcome = Outcome()
        disk.aio_preadv(start, vector, outcome)
        disk.drain()
        assert outcome.ret == 0
        assert room == model[start:end], (start, end)


@pytest.mark.parametrize("extended", ["off", "on"])
def test_compressed_clusters_that_follow_one_another_are_one_extent(
    tmp_path: Path, opener: Opener, extended: str
) -> None:
    kinds = ["packed"] * 10
    kinds[3], kinds[5], kinds[8] = "zero", "hole", "plain"
    cluster = 16384
    path, _ = mixed_image(tmp_path, kinds, {"extended_l2": extended}, cluster)
    disk = opener(path)
    bs = disk.bs
    assert bs is not None
    found: list[tuple[int, bool]] = []

    async def ask(at: int) -> None:
        while at < len(kinds) * cluster:
            answer = await status.co_block_status(bs, True, at, len(kinds) * cluster - at)
            found.append((answer[1], bool(answer[0] & f.BDRV_BLOCK_OFFSET_VALID)))
            at += answer[1]

    run_sync(disk.aio_context, lambda: ask(1024))
    lengths = [3 * cluster - 1024, *(n * cluster for n in (1, 1, 1, 2, 1, 1))]
    assert found == [(length, n == 5) for n, length in enumerate(lengths)]


@pytest.mark.parametrize("method", ["zlib", "zstd"])
def test_lies_in_the_middle_of_a_run_spoil_themselves_alone(
    tmp_path: Path, opener: Opener, method: str
) -> None:
    path = tmp_path / "lies.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, compression_type=method)
    count = 24
    with opener(path) as disk:
        disk.pwrite(0, b"".join(text(n) for n in range(count)), COMPRESSED)
        found = places(disk, count)
        l2 = first_l2(disk)
        old = entries(disk, count)
    lies = {  # None: the data lie, else the entry does
        3: None,
        4: None,
        7: OFLAG_COMPRESSED | 1 << 45,
        12: old[12] + 7,
        17: old[17] & ~(255 << 54),
    }
    for number, lie in lies.items():
        if lie is None:
            poke(path, found[number][0], b"\xff" * 500)
        else:
            poke(path, l2 + 8 * number, struct.pack(">Q", lie))
    disk = opener(path)
    with pytest.raises(BlockError) as caught:
        disk.pread(0, count * CLUSTER)
    assert caught.value.errno == errno.EIO
    for number in range(count):
        if number in lies:
            with pytest.raises(BlockError):
                disk.pread(number * CLUSTER, CLUSTER)
        else:
            assert disk.pread(number * CLUSTER, CLUSTER) == text(number)
    assert disk.pread(18 * CLUSTER, 6 * CLUSTER) == b"".join(text(n) for n in range(18, 24))


def test_a_long_read_asks_the_file_a_few_times_and_moves_only_when_it_is_done(
    image: Path, opener: Opener, iothread: IOThread
) -> None:
    with opener() as disk:
        disk.pwrite(0, b"".join(text(n) for n in range(64)), COMPRESSED)
    tape = Tape(image.read_bytes())
    with open_on(tape) as disk:
        disk.pread(0, 1)
        tape.log.clear()
        room, outcome = memoryview(bytearray(64 * CLUSTER)), Outcome()
        disk.aio_preadv(0, [room], outcome)
        disk.set_aio_context(iothread.ctx)
        assert outcome.ret == 0, "a move begins with a drain"
        assert room == b"".join(text(n) for n in range(64))
        assert 1 <= len(tape.asked("preadv")) <= 3
        with iothread.ctx:
            assert disk.pread(63 * CLUSTER, CLUSTER) == text(63)
