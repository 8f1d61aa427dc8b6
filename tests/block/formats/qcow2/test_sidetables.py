# SPDX-License-Identifier: GPL-2.0-only
"""Snapshots and bitmaps in a check: their clusters are in use, and their tables may lie."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from block.core import check as core
from block.core.error import BlockError
from block.formats.qcow2.layout import OFLAG_COPIED
from tests.support.qcow2_damage import (
    CLUSTER,
    DATA,
    GUEST,
    L1,
    L2,
    Image,
    counts,
    make_whole,
    run_check,
)

ALL = core.FIX_LEAKS | core.FIX_ERRORS
TABLE, OTHER_L1, DIRECTORY, BITMAP_TABLE, BITMAP = (15 + number for number in range(5))
SNAPSHOT_HEAD = struct.Struct(">QIHHIIQII")


def make(path: Path) -> Image:
    """An image with a snapshot, which shares the only L2 table, and a bitmap; not yet saved."""
    make_whole(path)
    image = Image(path)
    image.data += bytes(5 * CLUSTER)
    head = SNAPSHOT_HEAD.pack(OTHER_L1 * CLUSTER, 1, 1, 4, 0, 0, 0, 0, 16)
    entry = head + struct.pack(">QQ", 0, 8 << 20) + b"1" + b"snap"
    image.data[TABLE * CLUSTER : TABLE * CLUSTER + len(entry)] = entry
    image.put(OTHER_L1 * CLUSTER, L2)
    struct.pack_into(">IQ", image.data, 60, 1, TABLE * CLUSTER)
    image.put(L1, L2)
    for place in GUEST:
        image.entry(place, image.get(L2 + 8 * place) & ~OFLAG_COPIED)
    for cluster in range(4, 15):
        image.refcount(cluster, 2)
    directory = struct.pack(">QIIBBHI", BITMAP_TABLE * CLUSTER, 1, 0, 1, 16, 4, 0) + b"bits"
    image.data[DIRECTORY * CLUSTER : DIRECTORY * CLUSTER + len(directory)] = directory
    image.put(BITMAP_TABLE * CLUSTER, BITMAP * CLUSTER)
    extension = struct.pack(">IIIIQQ", 0x23852875, 24, 1, 0, 32, DIRECTORY * CLUSTER)
    image.data[112 : 112 + len(extension) + 8] = extension + bytes(8)
    image.put(88, 1)
    for cluster in range(TABLE, BITMAP + 1):
        image.refcount(cluster, 1)
    return image


def test_their_clusters_are_in_use(tmp_path: Path) -> None:
    image = make(tmp_path / "a.qcow2")
    image.save()
    result, lines = run_check(image.path)
    assert (counts(result), lines) == ((0, 0, 0), [])
    assert result.bfi.allocated_clusters == 10, "those of the disk, not of snapshots"
    assert result.image_end_offset == (BITMAP + 1) * CLUSTER


def test_a_repair_keeps_them_and_the_word_that_the_bitmaps_are_right(tmp_path: Path) -> None:
    image = make(tmp_path / "a.qcow2")
    image.refcount(TABLE, 0)
    image.save()
    assert counts(run_check(image.path, ALL)[0]) == (0, 0, 0)
    after = Image(image.path)
    assert after.get(88) == 1
    assert (
        after.data[TABLE * CLUSTER : BITMAP * CLUSTER]
        == image.data[TABLE * CLUSTER : BITMAP * CLUSTER]
    )


def test_bitmaps_that_somebody_wrote_behind_are_leaks(tmp_path: Path) -> None:
    image = make(tmp_path / "a.qcow2")
    image.put(88, 0)
    image.save()
    result, lines = run_check(image.path)
    assert counts(result) == (0, 3, 0)
    assert lines[0] == f"Leaked cluster {DIRECTORY} refcount=1 reference=0"


LIES = [  # where, format, value, what is said
    (DIRECTORY * CLUSTER + 8, ">I", 0, "Bitmap 'bits' doesn't satisfy the constraints"),
    (DIRECTORY * CLUSTER + 8, ">I", 1 << 30, "Bitmap 'bits' doesn't satisfy the constraints"),
    (DIRECTORY * CLUSTER, ">Q", 77, "Bitmap 'bits' doesn't satisfy the constraints"),
    (DIRECTORY * CLUSTER + 20, ">I", 8, "Broken bitmap directory"),
    (BITMAP_TABLE * CLUSTER, ">Q", BITMAP * CLUSTER + 1, "Broken bitmap table entry 0x130001"),
    (120, ">I", 9, "Less bitmaps found than specified in header extension"),
    (128, ">Q", 1 << 40, "exceeds the maximum supported size"),
]


@pytest.mark.parametrize(("offset", "form", "value", "said"), LIES)
def test_where_their_tables_lie_nothing_is_repaired(
    tmp_path: Path, offset: int, form: str, value: int, said: str
) -> None:
    """Who does not know what is in use must not give anything away."""
    image = make(tmp_path / "a.qcow2")
    image.refcount(8, 7)
    struct.pack_into(form, image.data, offset, value)
    image.save()
    for fix in (0, core.FIX_LEAKS, ALL):
        with pytest.raises(BlockError, match=said):
            run_check(image.path, fix)
        assert image.path.read_bytes() == image.data


FINDINGS = [
    (TABLE * CLUSTER, ">Q", OTHER_L1 * CLUSTER + 8,
     "ERROR snapshot 1 (snap) l1_offset=0x100008: L1 table is not cluster aligned; snapshot "
     "table entry corrupted"),
    (TABLE * CLUSTER + 8, ">I", (32 << 20) // 8 + 1,
     "ERROR snapshot 1 (snap) l1_size=0x400001: L1 table is too large; snapshot table entry "
     "corrupted"),
    (TABLE * CLUSTER + 36, ">I", 8, "ERROR snapshot table entry 0 is incomplete"),
]  # fmt: skip


@pytest.mark.parametrize(("offset", "form", "value", "line"), FINDINGS)
def test_an_impossible_snapshot_is_said(
    tmp_path: Path, offset: int, form: str, value: int, line: str
) -> None:
    image = make(tmp_path / "a.qcow2")
    struct.pack_into(form, image.data, offset, value)
    image.save()
    result, lines = run_check(image.path)
    assert lines[0] == line
    assert result.corruptions >= 1


@pytest.mark.parametrize("seed", range(4))
def test_any_bytes_at_all_raise_nothing_but_block_errors(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(12):
        image = make(tmp_path / f"{number}.qcow2")
        for _ in range(rng.randrange(1, 5)):
            base, span = rng.choice(
                [(60, 12), (112, 40), (TABLE * CLUSTER, 64), (OTHER_L1 * CLUSTER, 8),
                 (DIRECTORY * CLUSTER, 32), (BITMAP_TABLE * CLUSTER, 8)]
            )  # fmt: skip
            image.data[base + rng.randrange(span)] = rng.randrange(256)
        image.save()
        for fix in (0, ALL):
            try:
                result, _ = run_check(image.path, fix)
            except BlockError:
                continue
            assert min(counts(result)) >= 0
        image.path.unlink()


def test_a_snapshot_shares_data_with_the_disk(tmp_path: Path) -> None:
    """A refcount of 1 on what both use is corruption, and set right."""
    image = make(tmp_path / "a.qcow2")
    image.refcount(DATA // CLUSTER, 1)
    image.save()
    result, lines = run_check(image.path)
    assert lines[0] == "ERROR cluster 5 refcount=1 reference=2"
    assert counts(result) == (2, 0, 0), "the flag COPIED would have to be set, too"
    assert counts(run_check(image.path, ALL)[0]) == (0, 0, 0)
    assert counts(run_check(image.path)[0]) == (0, 0, 0)
