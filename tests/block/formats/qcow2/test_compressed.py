# SPDX-License-Identifier: GPL-2.0-only
"""Compressed clusters: where they go, who counts them, and what becomes of lies about them."""

from __future__ import annotations

import errno
import itertools
import os
import random
import struct
import zlib
from pathlib import Path

import pytest

import block
from block.aio.iothread import IOThread
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.check import check
from block.core.error import BlockError
from block.core.wait import run_sync
from block.formats.qcow2 import alloc, refcount
from block.formats.qcow2.layout import OFLAG_COMPRESSED
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.support.drivers import Outcome
from tests.support.qcow2_disk import Tape, open_on
from tests.support.qcow2_packed import COMPRESSED, entries, places, poke, text
from tests.support.qcow2_tables import first_l2


def refcounts(disk: BlockBackend, first: int, count: int) -> list[int]:
    s = state_of(disk)
    found: list[int] = []

    async def ask() -> None:
        async with s.lock:
            for cluster in range(first, first + count):
                found.append(await refcount.get_refcount(s, cluster))

    run_sync(disk.aio_context, ask)
    return found


def test_compressed_clusters_lie_byte_behind_byte_and_each_counts_what_it_reaches_into(
    opener: Opener,
) -> None:
    disk = opener()
    disk.pwrite(0, b"".join(text(n) for n in range(8)), COMPRESSED)
    found = places(disk, 8)
    lengths = [b - a for (a, _), (b, _) in itertools.pairwise(found)]
    assert all(20_000 < length < 20_600 for length in lengths), "no gap, and no sector's edge"
    first = found[0][0] >> 16
    reached = [range(at >> 16, (at + size - 1 >> 16) + 1) for at, size in found]
    last = reached[-1][-1]
    expected = [sum(n in clusters for clusters in reached) for n in range(first, last + 1)]
    assert refcounts(disk, first, last - first + 1) == expected
    assert sum(expected) > 8, "one of them lies across an edge"
    assert disk.pread(0, 8 * CLUSTER) == b"".join(text(n) for n in range(8))


def test_an_entry_tells_its_last_sector_and_not_its_last_byte(opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, text(1), COMPRESSED)
    disk.pwrite(CLUSTER, text(2), COMPRESSED)
    (first, room), (second, _) = places(disk, 2)
    assert (first + room) % 512 == 0
    assert first + room - 512 < second <= first + room


def test_the_next_one_after_opening_begins_a_cluster(opener: Opener) -> None:
    with opener() as disk:
        disk.pwrite(0, text(1), COMPRESSED)
    disk = opener()
    disk.pwrite(CLUSTER, text(2), COMPRESSED)
    assert places(disk, 2)[1][0] % CLUSTER == 0


def test_one_that_ends_with_its_cluster_is_followed_by_one_in_a_free_cluster(
    opener: Opener,
) -> None:
    disk = opener()
    s = state_of(disk)
    got: list[int] = []

    async def take() -> None:
        async with s.lock:
            got.append(await alloc.alloc_bytes(s, 1000))
            got.append(await alloc.alloc_bytes(s, CLUSTER - 1000))
            got.append(await alloc.alloc_clusters(s, 1, "data cluster"))
            got.append(await alloc.alloc_bytes(s, 10))

    run_sync(disk.aio_context, take)
    first = got[0]
    assert [place - first for place in got] == [0, 1000, CLUSTER, 2 * CLUSTER]
    assert refcounts(disk, first // CLUSTER, 3) == [2, 1, 1]


def test_they_may_lie_in_the_file_in_any_order(opener: Opener) -> None:
    disk = opener()
    order = [3, 0, 2, 1, 5, 4]
    for number in order:
        disk.pwrite(number * CLUSTER, text(number), COMPRESSED)
    found = [place for place, _ in places(disk, 6)]
    assert sorted(range(6), key=lambda number: found[number]) == order
    assert disk.pread(0, 6 * CLUSTER) == b"".join(text(n) for n in range(6))


def test_what_does_not_become_smaller_is_written_as_ever(opener: Opener) -> None:
    disk = opener()
    data = text(1) + os.urandom(CLUSTER) + os.urandom(CLUSTER) + text(2)
    disk.pwrite(0, data, COMPRESSED)
    kinds = [bool(entry & OFLAG_COMPRESSED) for entry in entries(disk, 4)]
    assert kinds == [True, False, False, True]
    assert disk.pread(0, len(data)) == data


def test_a_cluster_in_use_is_not_written_over_and_stays(opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, text(1), COMPRESSED)
    disk.pwrite(CLUSTER, b"plain" * 100)
    for offset in (0, CLUSTER):
        with pytest.raises(BlockError, match="Compressed write to a cluster in use") as caught:
            disk.pwrite(offset, text(3), COMPRESSED)
        assert caught.value.errno == errno.EIO
    assert disk.pread(0, CLUSTER) == text(1)
    assert disk.pread(CLUSTER, 500) == b"plain" * 100


def test_a_zero_cluster_without_a_place_is_written(opener: Opener) -> None:
    disk = opener()
    disk.pwrite_zeroes(0, CLUSTER, f.REQ_MAY_UNMAP)
    disk.pwrite(0, text(4), COMPRESSED)
    assert disk.pread(0, CLUSTER) == text(4)


def test_only_whole_clusters_or_the_end_of_the_disk_can_be_compressed(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "odd.qcow2")
    block.create(path, "qcow2", CLUSTER + 512)
    with block.open(path, format="qcow2") as disk:
        for offset, nbytes in ((0, 512), (512, CLUSTER), (0, CLUSTER - 512)):
            with pytest.raises(BlockError, match="whole clusters") as caught:
                disk.pwrite(offset, bytes(nbytes), COMPRESSED)
            assert caught.value.errno == errno.EINVAL
        disk.pwrite(0, b"e" * (CLUSTER + 512), COMPRESSED)
        assert disk.pread(0, CLUSTER + 512) == b"e" * (CLUSTER + 512)
        assert len(places(disk, 2)) == 2


def test_a_write_of_nothing_gives_the_file_whole_sectors(image: Path, opener: Opener) -> None:
    with opener() as disk:
        disk.pwrite(0, text(1), COMPRESSED)
        disk.pwrite(0, b"", COMPRESSED)
        assert image.stat().st_size % 512 == 0
    assert image.stat().st_size > 20_000


@pytest.mark.parametrize("refcount_bits", [1, 2, 16])
def test_no_cluster_of_the_file_is_counted_higher_than_its_refcount_can_be(
    tmp_path: Path, refcount_bits: int
) -> None:
    path = os.fspath(tmp_path / "narrow.qcow2")
    block.create(path, "qcow2", SIZE, refcount_bits=refcount_bits)
    with block.open(path, format="qcow2") as disk:
        for n in range(12):
            disk.pwrite(n * CLUSTER, text(n, random_bytes=2000), COMPRESSED)
        used = {at >> 16 for at, _ in places(disk, 12)}
        assert len(used) == {1: 12, 2: 4, 16: 1}[refcount_bits]
        assert disk.pread(0, 12 * CLUSTER) == b"".join(
            text(n, random_bytes=2000) for n in range(12)
        )


def test_written_over_a_cluster_gives_its_share_back_and_the_last_one_all(opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, text(1, random_bytes=100) + text(2, random_bytes=100), COMPRESSED)
    shared = places(disk, 1)[0][0] >> 16
    assert refcounts(disk, shared, 1) == [2]
    disk.pwrite(100, b"over")
    assert refcounts(disk, shared, 1) == [1]
    disk.pdiscard(CLUSTER, CLUSTER)
    assert refcounts(disk, shared, 1) == [0]
    assert state_of(disk).free_byte == 0, "nothing is packed into a cluster that is free"
    assert disk.pread(0, CLUSTER)[96:108] == text(1, random_bytes=100)[96:100] + b"over" + b"\2" * 4


def test_two_compressed_writes_to_one_cluster_do_not_both_get_it(opener: Opener) -> None:
    disk = opener()
    outcomes = [Outcome(), Outcome()]
    for number, outcome in enumerate(outcomes):
        disk.aio_pwritev(0, [memoryview(text(number))], outcome, COMPRESSED)
    disk.drain()
    assert sorted(outcome.ret or 0 for outcome in outcomes) == [-errno.EIO, 0]
    winner = next(n for n, outcome in enumerate(outcomes) if outcome.ret == 0)
    assert disk.pread(0, CLUSTER) == text(winner)


def test_a_write_waits_for_a_compressed_one_to_its_cluster(image: Path) -> None:
    tape = Tape(image.read_bytes())
    with open_on(tape) as disk:
        disk.pwrite(8 * CLUSTER, b"o" * CLUSTER)
        tape.log.clear()
        tape.parked = True
        packed, plain = Outcome(), Outcome()
        disk.aio_pwritev(0, [memoryview(text(1))], packed, COMPRESSED)
        while not tape.asked("pwritev"):
            disk.aio_context.poll(True)
        disk.aio_pwritev(0, [memoryview(b"late")], plain)
        disk.aio_context.poll(False)
        assert packed.pending
        assert plain.pending
        tape.release()
        disk.drain()
        assert (packed.ret, plain.ret) == (0, 0)
        assert disk.pread(0, CLUSTER) == b"late" + text(1)[4:]


def test_a_cluster_that_is_read_is_not_written_over(image: Path) -> None:
    """A guest reads one part of it and writes another. Then the old one is free, and another write
    would get its room."""
    tape = Tape(image.read_bytes())
    with open_on(tape) as disk:
        s = state_of(disk)
        disk.pwrite(0, text(1), COMPRESSED)
        disk.pwrite(8 * CLUSTER, b"o" * CLUSTER)
        disk.flush()
        place = places(disk, 1)[0][0]
        data, reader = bytearray(512), Outcome()
        tape.parked = True
        disk.aio_preadv(CLUSTER - 512, [memoryview(data)], reader)
        tape.parked = False  # whatever comes later passes by
        disk.pwrite(0, b"new")
        disk.flush()
        other = Outcome()
        disk.aio_pwritev(9 * CLUSTER, [memoryview(b"p" * CLUSTER)], other)
        while disk.aio_context.poll(False):
            pass
        assert reader.pending
        assert other.pending, "it waits for the reader"
        assert s.let_go == {place // CLUSTER}
        tape.release()
        disk.drain()
        assert (reader.ret, other.ret) == (0, 0)
        assert data == text(1)[-512:]
        assert disk.pread(9 * CLUSTER, CLUSTER) == b"p" * CLUSTER


def test_a_write_that_fails_leaves_the_cluster_as_it_was_and_no_leak(
    image: Path, tmp_path: Path
) -> None:
    tape = Tape(image.read_bytes())
    with open_on(tape) as disk:
        disk.pwrite(8 * CLUSTER, b"o" * CLUSTER)
        disk.flush()
        before = state_of(disk).free_cluster
        tape.errors["pwritev"] = BlockError(errno.ENOSPC)
        with pytest.raises(BlockError):
            disk.pwrite(0, text(1) + text(2), COMPRESSED)
        tape.errors.clear()
        assert entries(disk, 2) == [0, 0]
        assert refcounts(disk, before, 2) == [0, 0]
        assert disk.pread(0, 2 * CLUSTER) == bytes(2 * CLUSTER)
        disk.pwrite(0, text(1), COMPRESSED)
        assert disk.pread(0, CLUSTER) == text(1)


def test_a_write_that_fails_beside_one_that_was_let_go_leaves_that_to_a_power_cut(
    image: Path,
) -> None:
    """The other one was safe on the disk. With its entry there, its bytes must not be another's."""
    tape = Tape(image.read_bytes())
    with open_on(tape) as disk:
        disk.pwrite(0, text(1), COMPRESSED)
        disk.flush()
        cluster = places(disk, 1)[0][0] // CLUSTER
        tape.log.clear()
        tape.parked = True
        failing = Outcome()
        disk.aio_pwritev(CLUSTER, [memoryview(text(2))], failing, COMPRESSED)
        while not tape.asked("pwritev"):
            disk.aio_context.poll(True)
        tape.parked = False  # whatever comes later passes by
        disk.pdiscard(0, CLUSTER)
        tape.errors["pwritev"] = BlockError(errno.EIO, "bad")
        tape.release()
        disk.drain()
        tape.errors.clear()
        assert failing.ret == -errno.EIO
        assert refcounts(disk, cluster, 1) == [0]
        tape.writes.clear()
        disk.pwrite(8 * CLUSTER, b"o" * CLUSTER)
        assert cluster * CLUSTER not in [offset for offset, _ in tape.writes]


def test_a_power_cut_leaves_each_cluster_whole_or_as_it_was(image: Path, tmp_path: Path) -> None:
    tape = Tape(image.read_bytes())
    flushed: list[tuple[int, int]] = []  # (how long the tape was, clusters written)
    with open_on(tape) as disk:
        for number in range(12):
            disk.pwrite(number * CLUSTER, text(number, random_bytes=9000), COMPRESSED)
            if number % 4 == 3:
                disk.flush()
                flushed.append((len(tape.writes), number + 1))
    path, source = tmp_path / "cut.qcow2", random.Random(1)
    for at in range(len(tape.writes) + 1):
        path.write_bytes(tape.cut(at, source, shuffle=True))
        safe = max((count for moment, count in flushed if moment <= at), default=0)
        with block.open(os.fspath(path), format="qcow2") as disk:
            assert disk.bs is not None
            assert check(disk.bs).corruptions == 0
            for number in range(12):
                found = disk.pread(number * CLUSTER, CLUSTER)
                assert found in (text(number, random_bytes=9000), bytes(CLUSTER)), number
                assert number >= safe or found != bytes(CLUSTER), "flushed, and lost"


def test_it_works_in_an_iothread_and_after_a_move(opener: Opener, iothread: IOThread) -> None:
    disk = opener()
    disk.pwrite(0, text(1) + text(2), COMPRESSED)
    disk.set_aio_context(iothread.ctx)
    with iothread.ctx:
        disk.pwrite(2 * CLUSTER, text(3) + text(4), COMPRESSED)
        assert disk.pread(0, 4 * CLUSTER) == b"".join(text(n) for n in range(1, 5))
    disk.close()


def test_zstd_has_its_field_and_its_bit_and_zlib_has_not(tmp_path: Path) -> None:
    for name, field, bit in (("zlib", 0, 0), ("zstd", 1, 8)):
        path = tmp_path / f"{name}.qcow2"
        block.create(os.fspath(path), "qcow2", SIZE, compression_type=name)
        head = path.read_bytes()[:112]
        assert (head[104], int.from_bytes(head[72:80], "big")) == (field, bit)
        with block.open(os.fspath(path), format="qcow2") as disk:
            disk.pwrite(0, text(1), COMPRESSED)
            place, room = places(disk, 1)[0]
            assert disk.pread(0, CLUSTER) == text(1)
        packed = path.read_bytes()[place : place + room]
        assert (packed[:4] == b"\x28\xb5\x2f\xfd") is (name == "zstd")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compression_type": "lzma"}, "'compression-type' does not accept value 'lzma'"),
        ({"compression_type": "zstd", "compat": "0.10"}, "Non-zlib compression type is only"),
    ],
    ids=["unknown", "version 2"],
)
def test_what_cannot_be_is_refused_before_the_file_is_made(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    path = tmp_path / "none.qcow2"
    with pytest.raises(BlockError, match=message):
        block.create(os.fspath(path), "qcow2", SIZE, **options)
    assert not path.exists()


# -- lies


def compressed_image(folder: Path, opener: Opener) -> tuple[Path, int, int]:
    """An image with one compressed cluster; where its L2 entry is, and where its data."""
    path = folder / "lies.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE)
    with opener(path) as disk:
        disk.pwrite(0, text(1), COMPRESSED)
        disk.flush()
        return path, first_l2(disk), places(disk, 1)[0][0]


@pytest.mark.parametrize(
    "entry",
    [
        OFLAG_COMPRESSED | 1 << 45,  # behind the end of the file
        OFLAG_COMPRESSED | (1 << 54) - 1,  # the last byte that there can be
        OFLAG_COMPRESSED | 255 << 54 | 0,  # the header, and all sectors there can be
        OFLAG_COMPRESSED | 1 << 63 | 0x50000,  # COPIED goes with no compressed cluster
    ],
    ids=hex,
)
def test_a_place_that_holds_no_packed_cluster_is_an_error(
    tmp_path: Path, opener: Opener, entry: int
) -> None:
    path, l2, _ = compressed_image(tmp_path, opener)
    poke(path, l2, struct.pack(">Q", entry))
    length = path.stat().st_size
    disk = opener(path)
    if entry != OFLAG_COMPRESSED | 1 << 63 | 0x50000:
        with pytest.raises(BlockError):
            disk.pread(0, 512)
    disk.pwrite(CLUSTER, b"others go on")
    assert disk.pread(CLUSTER, 12) == b"others go on"
    disk.close()
    assert path.stat().st_size <= length + 4 * CLUSTER


def test_a_size_that_is_too_small_is_an_error(tmp_path: Path, opener: Opener) -> None:
    path, l2, place = compressed_image(tmp_path, opener)
    poke(path, l2, struct.pack(">Q", OFLAG_COMPRESSED | 3 << 54 | place))
    with pytest.raises(BlockError, match="cannot be unpacked"):
        opener(path).pread(0, 512)


def test_a_bomb_gives_one_cluster_and_no_more(tmp_path: Path, opener: Opener) -> None:
    path, l2, _ = compressed_image(tmp_path, opener)
    packer = zlib.compressobj(wbits=-12)
    bomb = packer.compress(bytes(50 << 20)) + packer.flush()
    assert len(bomb) < CLUSTER
    poke(path, 0x80000, bomb.ljust(CLUSTER, b"\0"))
    poke(path, l2, struct.pack(">Q", OFLAG_COMPRESSED | 127 << 54 | 0x80000))
    assert opener(path).pread(0, CLUSTER) == bytes(CLUSTER)


def test_one_bad_cluster_of_many_fails_the_read_and_no_other(
    tmp_path: Path, opener: Opener
) -> None:
    path = tmp_path / "bad.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE)
    with opener(path) as disk:
        disk.pwrite(0, b"".join(text(n) for n in range(6)), COMPRESSED)
        found = places(disk, 6)
    poke(path, found[3][0], b"\xff" * 1000)
    disk = opener(path)
    with pytest.raises(BlockError, match=f"{found[3][0]:#x} cannot be unpacked"):
        disk.pread(0, 6 * CLUSTER)
    assert disk.pread(0, 3 * CLUSTER) == b"".join(text(n) for n in range(3))
    assert disk.pread(4 * CLUSTER + 5, CLUSTER) == (text(4) + text(5))[5 : CLUSTER + 5]
