# SPDX-License-Identifier: GPL-2.0-only
"""Subclusters: images that lie."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

import block
from block.core.error import BlockError
from block.formats.qcow2 import subcluster
from block.formats.qcow2.layout import OFLAG_COMPRESSED
from tests.block.formats.qcow2.conftest import CLUSTER, Opener
from tests.support.drivers import Outcome
from tests.support.qcow2_damage import counts, run_check
from tests.support.qcow2_subclusters import ONE, PLACE, SUB, TOP, image
from tests.support.qcow2_tables import first_l2_in

__all__ = ["image"]


def poke(path: Path, cluster: int, entry: int | None, bitmap: int) -> None:
    """Changes an entry of the first L2 table; None leaves the entry as it is."""
    data = bytearray(path.read_bytes())
    at = first_l2_in(data) + 16 * cluster
    if entry is not None:
        struct.pack_into(">Q", data, at, entry)
    struct.pack_into(">Q", data, at + 8, bitmap)
    path.write_bytes(data)


@pytest.fixture
def written(image: Path) -> Path:
    """The image with two clusters of data."""
    with block.open(os.fspath(image), format="qcow2") as disk:
        disk.pwrite(0, b"d" * 2 * CLUSTER)
    return image


@pytest.mark.parametrize("cluster", [0, 5], ids=["with a cluster", "without one"])
def test_bits_that_contradict_each_other_are_a_corruption(
    written: Path, opener: Opener, cluster: int, capfd: pytest.CaptureFixture[str]
) -> None:
    poke(written, cluster, None, TOP << 7 | ONE << 7)
    disk = opener(written)
    with pytest.raises(BlockError, match="Invalid cluster entry found"):
        disk.pread(cluster * CLUSTER, 512)
    with pytest.raises(BlockError):
        disk.pwrite(cluster * CLUSTER + 31 * SUB, b"x")
    disk.close()
    assert "Marking image as corrupt: Invalid cluster entry found" in capfd.readouterr().err
    with pytest.raises(BlockError, match="Image is corrupt"):
        opener(written)


def test_one_bad_pair_spoils_the_whole_cluster_in_the_cache_too(
    written: Path, opener: Opener, capfd: pytest.CaptureFixture[str]
) -> None:
    poke(written, 0, None, TOP << 7 | ONE << 7 | ONE)
    disk = opener(written)
    assert disk.pread(CLUSTER, 512) == b"d" * 512
    reading, writing = Outcome(), Outcome()
    disk.aio_preadv(0, [memoryview(bytearray(512))], reading)
    disk.drain()
    disk.aio_pwritev(0, [memoryview(b"x" * 512)], writing)
    disk.drain()
    assert (reading.ret, writing.ret) == (-errno.EIO, -errno.EIO)
    capfd.readouterr()


def test_a_write_over_several_clusters_stops_before_the_one_that_lies(
    written: Path, opener: Opener, capfd: pytest.CaptureFixture[str]
) -> None:
    poke(written, 3, None, ONE)
    disk = opener(written)
    with pytest.raises(BlockError, match="Invalid cluster entry found"):
        disk.pwrite(2 * CLUSTER, b"x" * 3 * CLUSTER)
    capfd.readouterr()
    with pytest.raises(BlockError, match="Image is corrupt"):
        disk.close()  # of what was written to the first of them nothing is left
    assert run_check(written)[0].corruptions == 1


@pytest.mark.parametrize(
    ("cluster", "entry", "bitmap", "line"),
    [
        (0, None, TOP | ONE, "Allocated cluster has corrupted subcluster allocation bitmap"),
        (5, None, ONE, "Unallocated cluster has non-zero subcluster allocation map"),
        (5, OFLAG_COMPRESSED | 5 * CLUSTER, ONE,
         "compressed cluster 5 with non-zero subcluster allocation bitmap"),
    ],
)  # fmt: skip
def test_a_check_says_which_bitmaps_cannot_be(
    written: Path, cluster: int, entry: int | None, bitmap: int, line: str
) -> None:
    poke(written, cluster, entry, bitmap)
    result, lines = run_check(written)
    assert counts(result) == (1, 0, 0)
    assert any(line in said for said in lines), lines


def test_a_compressed_cluster_has_no_subclusters_whatever_its_bitmap_says(
    written: Path, opener: Opener
) -> None:
    poke(written, 1, OFLAG_COMPRESSED | 6 * CLUSTER, TOP)
    disk = opener(written)
    with pytest.raises(BlockError, match="cannot be unpacked"):
        disk.pread(CLUSTER, 512)


def test_an_entry_at_an_odd_place_is_dropped_by_a_repair_if_it_holds_zeroes(
    written: Path, opener: Opener
) -> None:
    poke(written, 1, PLACE + CLUSTER + 512, subcluster.ALL_ZEROES)
    assert run_check(written)[0].corruptions > 0
    run_check(written, fix=3)
    assert counts(run_check(written)[0]) == (0, 0, 0)
    assert opener(written).pread(0, 2 * CLUSTER) == b"d" * CLUSTER + bytes(CLUSTER)


def test_such_a_repair_does_not_turn_more_into_zeroes(tmp_path: Path) -> None:
    base, top = tmp_path / "base.raw", tmp_path / "top.qcow2"
    base.write_bytes(b"b" * CLUSTER)
    block.create(
        os.fspath(top), "qcow2", CLUSTER, extended_l2=True, cluster_size=CLUSTER,
        backing_file=os.fspath(base), backing_fmt="raw",
    )  # fmt: skip
    with block.open(os.fspath(top), format="qcow2") as disk:
        disk.pwrite(0, b"d" * CLUSTER)
    poke(top, 0, PLACE + 512, TOP << 7)  # one subcluster is zeroes, the others are the base's
    run_check(top, fix=3)
    with block.open(os.fspath(top), format="qcow2") as disk:
        seen = disk.pread(0, CLUSTER)
    assert seen == b"b" * 7 * SUB + bytes(SUB) + b"b" * 24 * SUB


def test_clusters_must_be_large_enough_for_subclusters_of_a_sector(image: Path) -> None:
    data = bytearray(image.read_bytes())
    struct.pack_into(">I", data, 20, 13)
    image.write_bytes(data)
    with pytest.raises(BlockError, match=r"Unsupported subcluster size: 256 \(header.cluster_bits"):
        block.open(os.fspath(image), format="qcow2").close()
