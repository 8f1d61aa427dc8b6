# SPDX-License-Identifier: GPL-2.0-only
"""Extended L2 entries: what the bits say, how little is copied, and images whose bits lie."""

from __future__ import annotations

import os
import random
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import block
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.wait import run_sync
from block.formats.qcow2 import subcluster
from block.formats.qcow2.cache import Table
from block.formats.qcow2.layout import OFLAG_COMPRESSED, OFLAG_COPIED, OFLAG_ZERO
from block.formats.qcow2.refcount import change_refcounts
from block.formats.qcow2.state import (
    COMPRESSED,
    INVALID,
    NORMAL,
    PLACED,
    UNALLOCATED,
    UNALLOCATED_ALLOC,
    ZERO_ALLOC,
    ZERO_PLAIN,
    Qcow2State,
)
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.support.drivers import Outcome
from tests.support.qcow2_damage import counts, run_check
from tests.support.qcow2_disk import Tape, open_on
from tests.support.qcow2_work import OurImage, Work

SUB = CLUSTER // 32
PLACE = 5 * CLUSTER | OFLAG_COPIED
ONE, TOP = 1, 1 << 32
QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An empty image with subclusters of 2 KiB."""
    path = tmp_path / "a.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, extended_l2=True)
    return path


@pytest.fixture
def s(opener: Opener) -> Qcow2State:
    """The state of an open image with subclusters."""
    return state_of(opener())


# -- what the bits say


@pytest.mark.parametrize(
    ("entry", "bitmap", "kind"),
    [
        (PLACE, 0, UNALLOCATED_ALLOC),
        (PLACE, ONE, NORMAL),
        (PLACE, TOP, ZERO_ALLOC),
        (PLACE, TOP | ONE, INVALID),
        (0, 0, UNALLOCATED),
        (0, ONE, INVALID),
        (0, TOP, ZERO_PLAIN),
        (0, TOP | ONE, INVALID),
        (PLACE | OFLAG_COMPRESSED, 0, COMPRESSED),
        (PLACE | 1, ONE, NORMAL),
        (1, 0, UNALLOCATED),
        (PLACE, (TOP | ONE) << 31, INVALID),
        (0, 1 << 31, INVALID),
    ],
)
def test_a_subcluster_is_what_its_two_bits_and_its_entry_say(
    s: Qcow2State, entry: int, bitmap: int, kind: int
) -> None:
    assert subcluster.type_of(s, entry, bitmap, 0) == kind


# A bitmap in runs of up to 32, in which zero bits and allocated bits do not meet.
runs = st.lists(st.tuples(st.integers(1, 32), st.sampled_from("-az")), min_size=1, max_size=9)


def bitmap_of(pieces: list[tuple[int, str]]) -> int:
    letters = "".join(letter * count for count, letter in pieces)[:32]
    allocated = sum(1 << number for number, letter in enumerate(letters) if letter == "a")
    zero = sum(1 << number for number, letter in enumerate(letters) if letter == "z")
    return zero << 32 | allocated


@QUICK
@given(pieces=runs, number=st.integers(0, 31))
def test_a_run_ends_where_the_type_changes(
    s: Qcow2State, pieces: list[tuple[int, str]], number: int
) -> None:
    bitmap = bitmap_of(pieces)
    kinds = [subcluster.type_of(s, PLACE, bitmap, n) for n in range(32)]
    kind, count = subcluster.run_from(s, PLACE, bitmap, number)
    assert kind == kinds[number]
    assert set(kinds[number : number + count]) == {kind}
    assert number + count == 32 or kinds[number + count] != kind


@QUICK
@given(
    clusters=st.lists(st.tuples(st.integers(0, 6), runs), min_size=4, max_size=4),
    start=st.integers(0, 4 * CLUSTER - 1),
    length=st.integers(1, 4 * CLUSTER),
)
def test_an_extent_is_as_long_as_the_same_type_lies_side_by_side(
    s: Qcow2State, clusters: list[tuple[int, list[tuple[int, str]]]], start: int, length: int
) -> None:
    """Against one that asks of every subcluster."""
    entries = [number * CLUSTER | OFLAG_COPIED if number else 0 for number, _ in clusters]
    bitmaps = [
        bitmap_of(pieces) >> 32 << 32 if not number else bitmap_of(pieces)
        for number, pieces in clusters
    ]
    room = [0] * (s.slice_mask + 1 - 4)
    table = Table(0, array("Q", entries + room), array("Q", bitmaps + room))
    length = min(length, 4 * CLUSTER - start)

    def ask(sub: int) -> tuple[int, int]:
        kind = subcluster.type_of(s, entries[sub // 32], bitmaps[sub // 32], sub % 32)
        host = (entries[sub // 32] & ~OFLAG_COPIED) + sub % 32 * SUB
        return kind, host - sub * SUB if kind in PLACED else 0

    first = start // SUB
    stop = first
    while stop * SUB < start + length and ask(stop) == ask(first):
        stop += 1
    kind, host, nbytes = subcluster.extent_in(s, table, start, length)
    assert kind == ask(first)[0]
    assert nbytes == min(start + length, stop * SUB) - start
    if kind in PLACED:
        assert host == start + ask(first)[1]


# -- how much is written


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


@pytest.mark.parametrize("entry", [0, OFLAG_ZERO, PLACE, PLACE | OFLAG_ZERO])
def test_an_entry_can_be_said_as_in_an_image_without_subclusters(entry: int) -> None:
    table = Table(0, array("Q", [7]), array("Q", [7]))
    subcluster.set_plain_entry(table, 0, entry)
    assert subcluster.plain_entry(table, 0) == entry
    assert not table.cells[0] & OFLAG_ZERO


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


# -- sequences


@pytest.mark.parametrize("backing", [False, True], ids=["alone", "overlay"])
@pytest.mark.parametrize("cluster_size", [16384, 65536, 1 << 20])
def test_random_work_leaves_what_a_bytearray_has_and_a_clean_image(
    tmp_path: Path, cluster_size: int, backing: bool
) -> None:
    base = random.Random(7).randbytes(SIZE // 2 + 3 * 512) if backing else b""
    options: dict[str, object] = {"extended_l2": True, "cluster_size": cluster_size}
    if backing:
        (tmp_path / "base.raw").write_bytes(base)
        options.update(backing_file="base.raw", backing_fmt="raw")
    path = tmp_path / "a.qcow2"
    size = SIZE + 7 * 512
    block.create(os.fspath(path), "qcow2", size, **options)
    work = Work(cluster_size + backing, size, cluster_size, base)
    OurImage(path, work, **{"l2-cache-size": 1024, "l2-cache-entry-size": 512}).work_on(150)
    assert counts(run_check(path)[0]) == (0, 0, 0)


steps = st.lists(
    st.tuples(
        st.sampled_from(["write", "zeroes", "unmap", "discard"]),
        st.integers(0, 4 * 32 * 4),  # in quarters of a subcluster
        st.integers(1, 2 * 32 * 4),
        st.integers(1, 255),
    ),
    min_size=1,
    max_size=25,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=steps)
def test_any_sequence_at_quarters_of_subclusters_reads_as_the_model(
    tmp_path: Path, steps: list[tuple[str, int, int, int]]
) -> None:
    size, cluster = 4 * 16384, 16384
    base = random.Random(3).randbytes(size)
    (tmp_path / "base.raw").write_bytes(base)
    path = tmp_path / "a.qcow2"
    block.create(os.fspath(path), "qcow2", size, extended_l2=True, cluster_size=cluster,
                 backing_file="base.raw", backing_fmt="raw")  # fmt: skip
    model = bytearray(base)
    calls: dict[str, Callable[[BlockBackend, int, int], None]] = {
        "zeroes": lambda disk, at, n: disk.pwrite_zeroes(at, n),
        "unmap": lambda disk, at, n: disk.pwrite_zeroes(at, n, f.REQ_MAY_UNMAP),
        "discard": lambda disk, at, n: disk.pdiscard(at, n),
    }
    with block.open(os.fspath(path), format="qcow2", cache="unsafe",
                    options={"discard": "unmap"}) as disk:  # fmt: skip
        for what, start, count, byte in steps:
            at = min(start * 128, size - 128)
            nbytes = min(count * 128, size - at)
            if what == "write":
                disk.pwrite(at, bytes([byte]) * nbytes)
                model[at : at + nbytes] = bytes([byte]) * nbytes
                continue
            calls[what](disk, at, nbytes)
            stop = at + nbytes
            if what == "discard":
                at = -(-at // cluster) * cluster
                stop = stop if stop == size else stop // cluster * cluster
            if at < stop:
                model[at:stop] = bytes(stop - at)
        assert disk.pread(0, size) == model
    with block.open(os.fspath(path), format="qcow2", read_only=True) as disk:
        assert disk.pread(0, size) == model
    assert counts(run_check(path)[0]) == (0, 0, 0)
