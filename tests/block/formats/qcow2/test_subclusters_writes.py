# SPDX-License-Identifier: GPL-2.0-only
"""How much is written where a cluster has 32 parts: what a request touches, and little else."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import block
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.wait import run_sync
from block.formats.qcow2 import subcluster
from block.formats.qcow2.layout import OFLAG_COPIED
from block.formats.qcow2.refcount import change_refcounts
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.support.drivers import Outcome
from tests.support.qcow2_damage import counts, run_check
from tests.support.qcow2_disk import Tape, open_on
from tests.support.qcow2_subclusters import SUB, image

__all__ = ["image"]


@pytest.fixture
def tape(image: Path) -> Iterator[tuple[Tape, BlockBackend]]:
    """An image over a tape in which cluster 8 is there, and its first subcluster written."""
    tape = Tape(image.read_bytes())
    with open_on(tape) as disk:
        disk.pwrite(8 * CLUSTER, b"o" * SUB)
        disk.flush()
        tape.writes.clear()
        yield tape, disk


def entry_of(disk: BlockBackend, offset: int) -> tuple[int, int]:
    """The entry and the bitmap of a guest offset, which are in memory."""
    s = state_of(disk)
    table = s.cached_slice(offset)
    assert table is not None
    assert table.bitmaps is not None
    return table.cells[s.slice_index(offset)], table.bitmaps[s.slice_index(offset)]


def lengths(tape: Tape) -> list[int]:
    return [len(data) for offset, data in tape.writes if offset >= 0]


def test_a_small_write_is_filled_up_to_its_subclusters_edges_only(
    tape: tuple[Tape, BlockBackend],
) -> None:
    held, disk = tape
    disk.pwrite(8 * CLUSTER + 4 * SUB + 512, b"x" * 512)
    assert lengths(held) == [SUB]
    assert entry_of(disk, 8 * CLUSTER)[1] == 1 << 4 | 1
    assert disk.pread(8 * CLUSTER, CLUSTER) == (
        b"o" * SUB + bytes(3 * SUB + 512) + b"x" * 512 + bytes(CLUSTER - 4 * SUB - 1024)
    )


def test_a_write_to_subclusters_that_are_there_writes_nothing_else(
    tape: tuple[Tape, BlockBackend],
) -> None:
    held, disk = tape
    disk.pwrite(8 * CLUSTER + 100, b"x" * 300)
    assert lengths(held) == [300]


def test_a_write_that_begins_in_place_is_filled_up_behind_only(
    tape: tuple[Tape, BlockBackend],
) -> None:
    held, disk = tape
    disk.pwrite(8 * CLUSTER + SUB - 512, b"x" * 1024)
    assert sum(lengths(held)) == 512 + SUB
    assert disk.pread(8 * CLUSTER, 2 * SUB) == (b"o" * (SUB - 512) + b"x" * 1024 + bytes(SUB - 512))


def test_a_write_that_ends_in_data_that_are_there_stops_where_it_ends(
    tape: tuple[Tape, BlockBackend],
) -> None:
    held, disk = tape
    disk.pwrite(8 * CLUSTER + 3 * SUB, b"t" * SUB)
    held.writes.clear()
    disk.pwrite(8 * CLUSTER + 2 * SUB + 512, b"x" * SUB)
    assert lengths(held) == [SUB + 512]
    assert disk.pread(8 * CLUSTER + 2 * SUB, 2 * SUB) == (
        bytes(512) + b"x" * SUB + b"t" * (SUB - 512)
    )


def share(disk: BlockBackend, offset: int) -> None:
    """Makes a cluster one that somebody else refers to, too, as a snapshot does."""
    s = state_of(disk)
    table = s.cached_slice(offset)
    assert table is not None
    index = s.slice_index(offset)
    table.cells[index] &= ~OFLAG_COPIED
    s.l2_cache.mark_dirty(table)

    async def count() -> None:
        async with s.lock:
            await change_refcounts(s, table.cells[index] >> s.cluster_bits, 1, 1)

    run_sync(s.bs.aio_context, count)


@pytest.mark.parametrize(("first", "last"), [(12, 12), (0, 1), (2, 4), (5, 31), (30, 31)])
def test_from_a_shared_cluster_all_data_come_along_and_it_stays_as_it_is(
    tape: tuple[Tape, BlockBackend], first: int, last: int
) -> None:
    _, disk = tape
    model = bytearray(CLUSTER)
    for number in (2, 9, 20):
        model[number * SUB : number * SUB + SUB] = bytes([number]) * SUB
        disk.pwrite(4 * CLUSTER + number * SUB, bytes([number]) * SUB)
    disk.pwrite_zeroes(4 * CLUSTER + 5 * SUB, SUB)
    old, bitmap = entry_of(disk, 4 * CLUSTER)
    share(disk, 4 * CLUSTER)
    start, end = first * SUB + 512, last * SUB + 1024
    disk.pwrite(4 * CLUSTER + start, b"x" * (end - start))
    model[start:end] = b"x" * (end - start)
    assert disk.pread(4 * CLUSTER, CLUSTER) == model
    new, now = entry_of(disk, 4 * CLUSTER)
    assert new & OFLAG_COPIED
    assert new != old
    begins, ends = min(first, 2), max(last, 20)
    written = subcluster.bits(begins, ends + 1)
    assert now == bitmap & ~(written << 32) | written


def test_from_the_backing_file_no_more_is_copied_than_one_subcluster(
    tmp_path: Path, opener: Opener
) -> None:
    base = random.Random(1).randbytes(SIZE)
    (tmp_path / "base.raw").write_bytes(base)
    path = tmp_path / "top.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, extended_l2=True, backing_file="base.raw",
                 backing_fmt="raw")  # fmt: skip
    disk = opener(path)
    disk.pwrite(3 * CLUSTER + 5 * SUB + 7, b"x")
    entry, bitmap = entry_of(disk, 3 * CLUSTER)
    assert entry & OFLAG_COPIED
    assert bitmap == 1 << 5
    expected = bytearray(base)
    expected[3 * CLUSTER + 5 * SUB + 7] = ord("x")
    assert disk.pread(0, SIZE) == expected


def test_zeroing_subclusters_writes_no_data_and_keeps_the_cluster(
    tape: tuple[Tape, BlockBackend],
) -> None:
    held, disk = tape
    entry, _ = entry_of(disk, 8 * CLUSTER)
    disk.pwrite(8 * CLUSTER, b"y" * CLUSTER)
    held.writes.clear()
    disk.pwrite_zeroes(8 * CLUSTER + 2 * SUB, 3 * SUB)
    assert lengths(held) == []
    assert entry_of(disk, 8 * CLUSTER) == (entry, 0b11100 << 32 | (1 << 32) - 1 & ~0b11100)
    data = b"y" * 2 * SUB + bytes(3 * SUB) + b"y" * 27 * SUB
    assert disk.pread(8 * CLUSTER, CLUSTER) == data


def test_zeroes_over_several_clusters_take_parts_of_the_first_and_the_last(
    opener: Opener,
) -> None:
    disk = opener()
    disk.pwrite(0, b"z" * 4 * CLUSTER)
    disk.pwrite_zeroes(CLUSTER - SUB, 2 * CLUSTER + 2 * SUB, f.REQ_MAY_UNMAP)
    assert entry_of(disk, 0)[1] >> 32 == 1 << 31
    assert entry_of(disk, CLUSTER) == (0, subcluster.ALL_ZEROES)
    assert entry_of(disk, 3 * CLUSTER)[1] >> 32 == 1
    assert disk.pread(0, 4 * CLUSTER) == (
        b"z" * (CLUSTER - SUB) + bytes(2 * CLUSTER + 2 * SUB) + b"z" * (CLUSTER - SUB)
    )


def test_a_read_over_the_edge_of_a_cluster_asks_both_bitmaps(opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, b"1" * 2 * CLUSTER)
    disk.pwrite_zeroes(0, 5 * SUB)
    disk.pwrite_zeroes(CLUSTER + SUB, SUB)
    start, nbytes = 5 * SUB, 32 * SUB
    into = bytearray(nbytes)
    reading = Outcome()
    disk.aio_preadv(start, [memoryview(into)], reading)
    disk.drain()
    assert reading.ret == 0
    assert into == b"1" * 28 * SUB + bytes(SUB) + b"1" * 3 * SUB


def test_a_discarded_cluster_is_free_and_reads_as_zeroes(opener: Opener, image: Path) -> None:
    disk = opener()
    disk.pwrite(0, b"z" * 2 * CLUSTER)
    disk.pdiscard(0, CLUSTER)
    assert entry_of(disk, 0) == (0, subcluster.ALL_ZEROES)
    assert disk.pread(0, 2 * CLUSTER) == bytes(CLUSTER) + b"z" * CLUSTER
    disk.close()
    assert counts(run_check(image)[0]) == (0, 0, 0)


def test_clusters_allocated_beforehand_still_read_from_the_backing_file(
    tmp_path: Path, opener: Opener
) -> None:
    (tmp_path / "base.raw").write_bytes(b"b" * SIZE)
    path = tmp_path / "top.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, extended_l2=True, preallocation="metadata",
                 backing_file="base.raw", backing_fmt="raw")  # fmt: skip
    disk = opener(path)
    assert disk.pread(0, SIZE) == b"b" * SIZE
    disk.pwrite(CLUSTER - SUB, b"x" * (3 * CLUSTER))
    assert disk.pread(0, 5 * CLUSTER) == (
        b"b" * (CLUSTER - SUB) + b"x" * 3 * CLUSTER + b"b" * (CLUSTER + SUB)
    )


def test_clusters_allocated_beforehand_are_written_in_one_piece(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, extended_l2=True, preallocation="metadata")
    tape = Tape(path.read_bytes())
    with open_on(tape) as disk:
        disk.pwrite(CLUSTER + 3 * SUB, b"x" * 4 * CLUSTER)
        assert lengths(tape) == [4 * CLUSTER]
        assert disk.pread(0, 6 * CLUSTER) == (
            bytes(CLUSTER + 3 * SUB) + b"x" * 4 * CLUSTER + bytes(CLUSTER - 3 * SUB)
        )


@pytest.mark.parametrize("at", [3 * CLUSTER + 512, 3 * CLUSTER + SUB, 4 * CLUSTER - 512])
def test_what_was_cut_off_does_not_come_back(opener: Opener, at: int) -> None:
    """The last cluster stays, with subclusters behind the end of the disk."""
    disk = opener()
    disk.pwrite(0, b"x" * SIZE)
    disk.truncate(at)
    disk.truncate(4 * CLUSTER - 512)
    disk.truncate(SIZE)
    assert disk.pread(0, SIZE) == b"x" * at + bytes(SIZE - at)


def test_of_a_compressed_cluster_what_was_cut_off_does_not_come_back(opener: Opener) -> None:
    disk = opener()
    disk.pwrite(CLUSTER, b"x" * CLUSTER, f.REQ_WRITE_COMPRESSED)
    disk.truncate(CLUSTER + 3 * SUB + 512)
    disk.truncate(SIZE)
    assert disk.pread(CLUSTER, CLUSTER) == b"x" * (3 * SUB + 512) + bytes(29 * SUB - 512)


def test_an_emptied_image_has_no_zero_subclusters_left(tmp_path: Path) -> None:
    """Over another backing file they would be seen. A data file, as others start all over."""
    (tmp_path / "base.raw").write_bytes(b"b" * SIZE)
    path = tmp_path / "a.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, extended_l2=True, backing_file="base.raw",
                 backing_fmt="raw", data_file=os.fspath(tmp_path / "d"))  # fmt: skip
    with block.open(os.fspath(path), format="qcow2") as disk:
        disk.pwrite_zeroes(SUB, 3 * SUB)
        disk.pwrite_zeroes(2 * CLUSTER, CLUSTER)
        disk.pwrite(CLUSTER, b"x" * SUB)
        assert disk.bs is not None
        assert disk.bs.drv is not None
        disk.bs.drv.make_empty(disk.bs)
        assert disk.pread(0, SIZE) == b"b" * SIZE
