# SPDX-License-Identifier: GPL-2.0-only
"""Check and repair: what is found, what is repaired, what is left alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import block
from block.core import check as core
from block.core.backend import BlockBackend
from block.core.check import FIX_ERRORS, FIX_NOTHING, BdrvCheckResult, check
from block.core.error import BlockError
from block.core.wait import run_sync
from block.formats.qed.check import UsedClusters
from tests.block.formats.qed.conftest import CLUSTER, FIRST_DATA, FIRST_L2, L1_TABLE, Opener
from tests.support.qcow2_disk import Tape
from tests.support.qed_disk import (
    NEED_CHECK,
    entry,
    field,
    opened,
    opened_for_check,
    poke,
    state_of,
)


def checked(disk: BlockBackend, fix: int = FIX_NOTHING) -> BdrvCheckResult:
    assert disk.bs is not None
    return check(disk.bs, fix)


def found(image: Path, fix: int = FIX_NOTHING) -> BdrvCheckResult:
    with opened_for_check(image) as disk:
        return checked(disk, fix)


def summary(result: BdrvCheckResult) -> tuple[int, int, int]:
    return result.corruptions, result.corruptions_fixed, result.leaks


@pytest.fixture
def filled(image: Path, opener: Opener) -> Path:
    """The image, with guest clusters 0 to 7 written, in that order."""
    with opener() as disk:
        for cluster in range(8):
            disk.pwrite(cluster * CLUSTER, bytes([cluster + 1]) * CLUSTER)
    return image


def test_a_sound_image_has_nothing_to_say(filled: Path) -> None:
    result = found(filled)
    assert summary(result) == (0, 0, 0)
    bfi = result.bfi
    assert (bfi.total_clusters, bfi.allocated_clusters, bfi.compressed_clusters) == (128, 8, 0)
    assert bfi.fragmented_clusters == 1, "the L2 table stands behind the first"


def test_fragments_are_counted_within_a_table(tmp_path: Path, opener: Opener) -> None:
    path = tmp_path / "two.qed"
    block.create(os.fspath(path), "qed", 4 << 20, cluster_size=4096, table_size=1)
    with opener(path) as disk:
        disk.pwrite(0, b"x" * 3 * 4096)
        disk.pwrite(2 << 20, b"x" * 3 * 4096)
    assert found(path).bfi.fragmented_clusters == 0


def test_clusters_that_nothing_points_to_are_leaks(filled: Path) -> None:
    poke(filled, FIRST_L2 + 8 * 3, 0)
    with filled.open("r+b") as file:
        file.truncate(filled.stat().st_size + 5 * CLUSTER)
    assert summary(found(filled)) == (0, 0, 6)
    assert summary(found(filled, FIX_ERRORS)) == (0, 0, 6), "qed has no way to free them"


@pytest.mark.parametrize("value", [FIRST_DATA + 512, 1 << 50, CLUSTER // 2, 2])
def test_an_entry_that_points_nowhere_is_taken_away(filled: Path, value: int) -> None:
    poke(filled, FIRST_L2 + 8 * 2, value)
    assert summary(found(filled)) == (1, 0, 1)
    assert entry(filled.read_bytes(), FIRST_L2, 2) == value, "nobody asked for a repair"
    assert summary(found(filled, FIX_ERRORS)) == (0, 1, 1)
    assert entry(filled.read_bytes(), FIRST_L2, 2) == 0
    assert summary(found(filled)) == (0, 0, 1)


@pytest.mark.parametrize("value", [FIRST_L2 + 512, 1 << 50, (1 << 64) - CLUSTER])
def test_a_table_that_is_nowhere_is_taken_away(filled: Path, value: int) -> None:
    poke(filled, L1_TABLE, value)
    assert summary(found(filled)) == (1, 0, 12)
    assert summary(found(filled, FIX_ERRORS)) == (0, 1, 12)
    assert entry(filled.read_bytes(), L1_TABLE, 0) == 0


def test_entries_of_the_l1_table_behind_the_end_of_the_disk_are_checked_too(filled: Path) -> None:
    poke(filled, L1_TABLE + 8 * 20_000, 1 << 50)
    assert summary(found(filled)) == (1, 0, 0)
    assert summary(found(filled, FIX_ERRORS)) == (0, 1, 0)
    assert summary(found(filled)) == (0, 0, 0)


@pytest.mark.parametrize("value", [FIRST_DATA, FIRST_L2, L1_TABLE], ids=["data", "L2", "L1"])
def test_whose_a_cluster_is_that_two_point_to_nobody_decides(
    filled: Path, opener: Opener, value: int
) -> None:
    poke(filled, FIRST_L2 + 8, value)
    poke(filled, "features", NEED_CHECK)
    assert summary(found(filled)) == (1, 0, 1)
    assert summary(found(filled, FIX_ERRORS)) == (1, 0, 1)
    assert field(filled.read_bytes(), "features") == NEED_CHECK, "it is not clean"
    with opener() as disk:
        disk.pwrite(20 * CLUSTER, b"x")
    assert field(filled.read_bytes(), "features") == NEED_CHECK, "nor is it after a use"
    assert entry(filled.read_bytes(), FIRST_L2, 1) == value


def test_a_table_that_two_entries_share_is_read_once(filled: Path) -> None:
    poke(filled, L1_TABLE + 8, FIRST_L2)
    result = found(filled)
    assert summary(result) == (4, 0, 0)
    assert result.bfi.allocated_clusters == 8


def test_an_image_that_was_left_dirty_is_clean_after_it_was_opened(
    filled: Path, opener: Opener
) -> None:
    """As a crash leaves it: an entry points behind the end of the file."""
    end = filled.stat().st_size
    poke(filled, FIRST_L2 + 8 * 8, end)
    poke(filled, "features", NEED_CHECK)
    disk = opener(cache="writeback")
    assert field(filled.read_bytes(), "features") == 0
    assert disk.pread(8 * CLUSTER, 1) == b"\0"
    disk.pwrite(8 * CLUSTER, b"y")
    assert disk.pread(7 * CLUSTER, 1) == b"\x08"
    assert summary(checked(disk)) == (0, 0, 0)


def test_a_checker_finds_a_dirty_image_as_it_was_left(filled: Path) -> None:
    poke(filled, FIRST_L2, 1 << 50)
    poke(filled, "features", NEED_CHECK)
    before = filled.read_bytes()
    with opened_for_check(filled, read_only=True) as disk:
        assert summary(checked(disk)) == (1, 0, 1)
    assert filled.read_bytes() == before
    assert summary(found(filled, FIX_ERRORS)) == (0, 1, 1), "open has left it to the checker"
    assert field(filled.read_bytes(), "features") == 0


def test_what_was_repaired_is_known_at_once(filled: Path) -> None:
    """Tables in memory are read anew."""
    with opened_for_check(filled) as disk:
        assert disk.pread(0, 1) == b"\1"
        poke(filled, FIRST_L2, 1 << 50)
        assert summary(checked(disk, FIX_ERRORS)) == (0, 1, 1)
        assert disk.pread(0, 1) == b"\0"


def test_a_table_that_cannot_be_read_is_an_error_of_the_check(filled: Path) -> None:
    tape = Tape(filled.read_bytes())
    with opened(tape) as disk:
        bs = disk.bs
        assert bs is not None
        tape.errors["preadv"] = BlockError(errno.EIO, "gone")
        result = BdrvCheckResult()
        with pytest.raises(BlockError, match="gone"):
            run_sync(bs.aio_context, lambda: core.co_check(bs, result, FIX_ERRORS))
        assert result.check_errors >= 1
        assert result.leaks == 0, "who has not seen all tables knows of no leaks"
        tape.errors.clear()
        assert not state_of(disk).allocating.locked


def test_a_repair_that_cannot_be_written_is_none(filled: Path) -> None:
    poke(filled, FIRST_L2, 1 << 50)
    tape = Tape(filled.read_bytes())
    with opened(tape) as disk:
        bs = disk.bs
        assert bs is not None
        tape.errors["pwritev"] = BlockError(errno.EIO, "gone")
        result = BdrvCheckResult()
        with pytest.raises(BlockError, match="gone"):
            run_sync(bs.aio_context, lambda: core.co_check(bs, result, FIX_ERRORS))
        assert (summary(result)[:2], result.check_errors) == ((1, 0), 1)


def test_the_map_of_used_clusters_costs_what_is_used() -> None:
    used = UsedClusters()
    far = (1 << 50, (1 << 50) + 1, 7, 8)
    assert [used.add(cluster) for cluster in (*far, *far)] == [True] * 4 + [False] * 4
    assert (used.count, len(used.chunks)) == (4, 2)


def test_clusters_are_counted_right_beyond_the_4095th(tmp_path: Path, opener: Opener) -> None:
    """QEMU 7.2 finds two leaks in such an image."""
    path = tmp_path / "many.qed"
    block.create(os.fspath(path), "qed", 20 << 20, cluster_size=4096)
    with opener(path) as disk:
        disk.pwrite(0, b"x" * (20 << 20))
    assert summary(found(path)) == (0, 0, 0)
