# SPDX-License-Identifier: GPL-2.0-only
"""Extended L2 entries: what their bits say; and any work leaves what a bytearray has."""

from __future__ import annotations

import os
import random
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import block
from block.core import flags as f
from block.core.backend import BlockBackend
from block.formats.qcow2 import subcluster
from block.formats.qcow2.cache import Table
from block.formats.qcow2.layout import OFLAG_COMPRESSED, OFLAG_COPIED, OFLAG_ZERO
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
from tests.support.qcow2_damage import counts, run_check
from tests.support.qcow2_subclusters import ONE, PLACE, SUB, TOP, image
from tests.support.qcow2_work import OurImage, Work

__all__ = ["image"]

QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


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


@pytest.mark.parametrize("entry", [0, OFLAG_ZERO, PLACE, PLACE | OFLAG_ZERO])
def test_an_entry_can_be_said_as_in_an_image_without_subclusters(entry: int) -> None:
    table = Table(0, array("Q", [7]), array("Q", [7]))
    subcluster.set_plain_entry(table, 0, entry)
    assert subcluster.plain_entry(table, 0) == entry
    assert not table.cells[0] & OFLAG_ZERO


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
