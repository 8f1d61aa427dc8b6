# SPDX-License-Identifier: GPL-2.0-only
"""Clusters that lie anywhere in the file: what is told of many at once is what is told of each."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import block
from block.core import flags as f
from block.core import status
from block.core.error import BlockError
from block.core.wait import run_sync
from block.formats.qcow2 import copied, walk
from block.formats.qcow2.layout import OFLAG_COPIED, OFLAG_ZERO
from block.ops.map import MapEntry, walk_map
from tests.block.formats.qcow2.conftest import Opener, state_of
from tests.support.qcow2_damage import counts, run_check
from tests.support.qcow2_tables import first_l2

CLUSTER = 4096
ENTRIES = CLUSTER // 8
SIZE = 6 * ENTRIES * CLUSTER + 5 * 512


def make(path: Path, seed: int, sparse: bool) -> None:
    """An image with data here and there, in any order."""
    rng = random.Random(seed)
    block.create(os.fspath(path), "qcow2", SIZE, cluster_size=CLUSTER)
    everywhere = range(SIZE // CLUSTER + 1)
    places = rng.sample(everywhere, len(everywhere) // (4 if sparse else 1))
    with block.open(os.fspath(path), format="qcow2", cache="unsafe") as disk:
        for place in places:
            offset = place * CLUSTER
            nbytes = min(CLUSTER, SIZE - offset)
            if rng.random() < 0.1:
                disk.pwrite_zeroes(offset, nbytes)
            else:
                disk.pwrite(offset, bytes([1 + place % 255]) * nbytes)


def damage(path: Path, seed: int) -> None:
    """Changes some entries and refcounts as they must not be."""
    rng = random.Random(seed)
    with block.open(os.fspath(path), format="qcow2", read_only=True) as disk:
        s = state_of(disk)
        l2 = [entry & ~OFLAG_COPIED for entry in s.l1_table if entry]
        refblock = s.reftable[0]
    data = bytearray(path.read_bytes())
    for _ in range(rng.randrange(1, 6)):
        at = rng.choice(l2) + 8 * rng.randrange(ENTRIES)
        old = int.from_bytes(data[at : at + 8], "big")
        new = rng.choice(
            (old ^ OFLAG_COPIED, old + CLUSTER, old | OFLAG_ZERO, old + 512, 0, old | 1 << 58,
             (99999 * CLUSTER) | OFLAG_COPIED)
        )  # fmt: skip
        data[at : at + 8] = new.to_bytes(8, "big")
        data[refblock + 2 * rng.randrange(200) + 1] = rng.randrange(4)
    path.write_bytes(data)


@pytest.mark.parametrize("seed", range(8))
def test_a_check_finds_the_same_at_once_as_one_by_one(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.qcow2"
    make(path, seed, sparse=bool(seed % 2))
    if seed > 1:
        damage(path, seed)
    asked = []

    def spy(*args: object) -> list[int] | None:
        asked.append(real(*args))  # type: ignore[arg-type]  # handed on as they are
        return asked[-1]

    real = walk.scattered
    monkeypatch.setattr(walk, "scattered", spy)
    result, lines = run_check(path)
    assert any(asked), "some table was taken at once"
    for module in (walk, copied):
        monkeypatch.setattr(module, "scattered", lambda *args: None)
    other, other_lines = run_check(path)
    assert (counts(result), lines) == (counts(other), other_lines)
    for name in ("allocated_clusters", "fragmented_clusters", "compressed_clusters"):
        assert getattr(result.bfi, name) == getattr(other.bfi, name), name
    assert seed > 1 or counts(result) == (0, 0, 0)


def extents(disk: block.BlockBackend, start: int = 0, end: int = SIZE) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []

    def note(entry: MapEntry, following: MapEntry | None) -> None:
        found.append((entry.start, entry.length, entry.data, entry.zero, entry.present,
                      entry.offset, entry.depth))  # fmt: skip

    assert disk.bs is not None
    walk_map(disk.bs, start, end, note)
    return found


@pytest.mark.parametrize("version", ["1.1", "0.10"])
@pytest.mark.parametrize("seed", range(4))
def test_a_map_is_the_same_at_once_as_one_by_one(
    tmp_path: Path, opener: Opener, seed: int, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.qcow2"
    make(path, seed, sparse=bool(seed % 2))
    disk = opener(path, read_only=True)
    state_of(disk).looks_hollow = False
    ranges = [
        (0, SIZE),
        (3 * CLUSTER, 700 * CLUSTER + 512),
        (513, 40 * CLUSTER),
        (SIZE - 512, SIZE),
    ]
    at_once = [extents(disk, *each) for each in ranges]
    assert len(at_once[0]) > 100
    bs = disk.bs
    assert bs is not None
    assert bs.drv is not None
    answers = run_sync(bs.aio_context, lambda: status.co_block_statuses(bs, 0, SIZE))
    assert len(answers) > 20
    assert all(ret & (f.BDRV_BLOCK_DATA | f.BDRV_BLOCK_ZERO) for ret, _, _, _ in answers)
    monkeypatch.setattr(type(bs.drv), "hooks", bs.drv.hooks - {"co_block_statuses"})
    assert [extents(disk, *each) for each in ranges] == at_once


@pytest.mark.parametrize("seed", range(2))
def test_the_file_is_asked_where_data_are_zeroes(
    tmp_path: Path, opener: Opener, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clusters were allocated, and the file has holes there, or has ended."""
    path = tmp_path / "a.qcow2"
    make(path, seed, sparse=True)
    data = path.read_bytes()
    rng = random.Random(seed)
    holes = set(rng.sample(range(40, len(data) // CLUSTER), 60))
    path.unlink()
    with path.open("wb") as file:
        for number in range(len(data) // CLUSTER - 20):
            if number not in holes:
                file.seek(number * CLUSTER)
                file.write(data[number * CLUSTER : (number + 1) * CLUSTER])
    disk = opener(path, read_only=True)
    state_of(disk).looks_hollow = True
    at_once = extents(disk)
    assert any(data and zero for _, _, data, zero, _, _, _ in at_once)
    assert disk.bs is not None
    drv = disk.bs.drv
    assert drv is not None
    monkeypatch.setattr(type(drv), "hooks", drv.hooks - {"co_block_statuses"})
    assert extents(disk) == at_once


def test_over_a_backing_file_the_layers_below_are_asked(tmp_path: Path, opener: Opener) -> None:
    base, top = tmp_path / "base.qcow2", tmp_path / "top.qcow2"
    make(base, 1, sparse=True)
    block.create(os.fspath(top), "qcow2", SIZE, cluster_size=CLUSTER, backing_file=os.fspath(base),
                 backing_fmt="qcow2")  # fmt: skip
    disk = opener(top)
    for place in range(0, 900, 7):
        disk.pwrite(place * CLUSTER, b"t" * CLUSTER)
    disk.flush()
    state_of(disk).looks_hollow = False
    at = {start: (length, depth, data) for start, length, data, _, _, _, depth in extents(disk)}
    assert at[7 * CLUSTER] == (CLUSTER, 0, True)
    assert {depth for _, depth, _ in at.values()} == {0, 1}
    assert sum(length for length, _, _ in at.values()) == SIZE


def test_neighbours_are_one_extent(tmp_path: Path, opener: Opener) -> None:
    path = tmp_path / "a.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, cluster_size=CLUSTER)
    disk = opener(path)
    disk.pwrite(CLUSTER, b"x" * 10 * CLUSTER)
    disk.pwrite_zeroes(20 * CLUSTER, 5 * CLUSTER)
    disk.flush()
    state_of(disk).looks_hollow = False
    bs = disk.bs
    assert bs is not None
    answers = run_sync(bs.aio_context, lambda: status.co_block_statuses(bs, 0, SIZE))
    assert [size // CLUSTER for _, size, _, _ in answers] == [1, 10, 9, 5, ENTRIES - 25]


def test_an_entry_that_cannot_be_is_complained_about(tmp_path: Path, opener: Opener) -> None:
    path = tmp_path / "a.qcow2"
    make(path, 0, sparse=True)
    with block.open(os.fspath(path), format="qcow2", read_only=True) as disk:
        l2 = first_l2(disk)
    data = bytearray(path.read_bytes())
    data[l2 + 80 : l2 + 88] = (CLUSTER * 50 + 512 | OFLAG_COPIED).to_bytes(8, "big")
    path.write_bytes(data)
    disk = opener(path, read_only=True)
    state_of(disk).looks_hollow = False
    with pytest.raises(BlockError, match="unaligned"):
        extents(disk)
