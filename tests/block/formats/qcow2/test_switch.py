# SPDX-License-Identifier: GPL-2.0-only
"""The write to the header that makes other tables hold fails, or so it seems: the disk has it. Who
goes on working, and opens the image again, finds all of it. Where what was there cannot be written
again either, nobody goes on working."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import block
from block.core import check as core_check
from block.core import dirty_bitmap, snapshot
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.snapshot import SnapshotInfo
from block.formats.qcow2.layout import L1_SIZE_AT, REFCOUNT_TABLE_AT, SIZE_AT
from block.ops import bitmap as ops
from block.ops.amend import amend
from tests.block.formats.qcow2.conftest import state_of
from tests.support.qcow2_bitmaps import IN_USE, stored
from tests.support.qcow2_cuts import CLEAN, LEAKS, SIZE, check, new_image
from tests.support.qcow2_disk import FLUSH, Tape, open_on

CLUSTER = 512
COVERED = CLUSTER // 8 * CLUSTER  # by one L2 table


class Unsure(Tape):
    """A disk that has written, but says of the next `failing` flushes behind a write to `behind`
    that they failed."""

    behind: int | None = None
    failing = 0
    written = False

    async def note(self, name: str, *args: object) -> None:
        await super().note(name, *args)
        if name == "pwritev" and args[0] == self.behind:
            self.written = True
        elif name == "flush" and self.written and self.failing:
            self.failing -= 1
            raise BlockError(errno.EIO, "who knows")

    def fail(self, behind: int, times: int = 1) -> None:
        self.behind, self.failing, self.written = behind, times, False


@pytest.fixture
def tape(tmp_path: Path) -> Unsure:
    """An empty image of small clusters."""
    return Unsure(new_image(tmp_path, cluster_size=CLUSTER))


def reopened(folder: Path, tape: Tape) -> bytes:
    """What the next one to open the image reads; it is in order, too."""
    path = folder / "again.qcow2"
    path.write_bytes(tape.data)
    assert check(path) in (CLEAN, LEAKS)
    with block.open(os.fspath(path), format="qcow2", cache="unsafe") as disk:
        return disk.pread(0, disk.length)


def change_refcounts(disk: BlockBackend) -> None:
    assert disk.bs is not None
    amend(disk.bs, {"refcount_bits": 64}, lambda done, total: None)


def test_a_longer_l1_table(tmp_path: Path, tape: Unsure) -> None:
    with open_on(tape) as disk:
        disk.pwrite(0, b"a" * CLUSTER)
        tape.fail(L1_SIZE_AT)
        with pytest.raises(BlockError, match="Failed to grow the L1 table: who knows"):
            disk.truncate(2 * SIZE)
        disk.pwrite(COVERED, b"b" * CLUSTER)  # hooks up a new L2 table
        assert not tape.failing
    found = reopened(tmp_path, tape)
    assert found == b"a" * CLUSTER + bytes(COVERED - CLUSTER) + b"b" * CLUSTER + bytes(
        SIZE - COVERED - CLUSTER
    )


def test_a_larger_refcount_table(tmp_path: Path, tape: Unsure) -> None:
    with open_on(tape) as disk:
        change_refcounts(disk)  # a block counts 32 KiB, and a table of one cluster 2 MiB
        tape.fail(REFCOUNT_TABLE_AT)
        with pytest.raises(BlockError, match="who knows"):
            disk.pwrite(0, b"a" * SIZE)
        assert not tape.failing
        first = bytes(tape.data[REFCOUNT_TABLE_AT : REFCOUNT_TABLE_AT + 8])
        assert int.from_bytes(first, "big") == state_of(disk).reftable_offset
        disk.pwrite(0, b"b" * SIZE)
    assert reopened(tmp_path, tape) == b"b" * SIZE


def test_a_snapshot_that_the_disk_goes_back_to(tmp_path: Path, tape: Unsure) -> None:
    with open_on(tape) as disk:
        assert disk.bs is not None
        disk.pwrite(0, b"a" * SIZE)
        snapshot.create(disk.bs, SnapshotInfo("s"))
        disk.pwrite(0, b"b" * SIZE)
        tape.fail(SIZE_AT)
        with pytest.raises(BlockError, match="Failed to load snapshot"):
            snapshot.goto(disk.bs, "s")
        disk.pwrite(0, b"c" * CLUSTER)
        assert not tape.failing
    assert reopened(tmp_path, tape) == b"c" * CLUSTER + b"b" * (SIZE - CLUSTER)


def test_a_shorter_disk(tmp_path: Path, tape: Unsure) -> None:
    with open_on(tape) as disk:
        tape.fail(SIZE_AT)
        with pytest.raises(BlockError, match="Failed to update the image size: who knows"):
            disk.truncate(COVERED)
        assert disk.length == SIZE
        disk.pwrite(SIZE - CLUSTER, b"e" * CLUSTER)
        assert not tape.failing
    assert reopened(tmp_path, tape) == bytes(SIZE - CLUSTER) + b"e" * CLUSTER


def test_other_refcounts(tmp_path: Path, tape: Unsure) -> None:
    with open_on(tape) as disk:
        disk.pwrite(0, b"a" * SIZE)
        tape.fail(0)
        with pytest.raises(BlockError, match="who knows"):
            change_refcounts(disk)
        assert state_of(disk).refcount_bits == 16
        disk.pwrite_zeroes(0, COVERED)
        disk.pwrite(0, b"b" * SIZE)
        assert not tape.failing
    path = tmp_path / "again.qcow2"
    path.write_bytes(tape.data)
    assert check(path) == CLEAN
    assert reopened(tmp_path, tape) == b"b" * SIZE


def test_a_rebuilt_refcount_table(tmp_path: Path, tape: Unsure) -> None:
    with open_on(tape) as disk:
        disk.pwrite(0, b"a" * SIZE)
        disk.flush()
        lost = state_of(disk).reftable[1]
        tape.data[lost : lost + CLUSTER] = bytes(CLUSTER)  # none of its clusters is in use, it says
        tape.fail(REFCOUNT_TABLE_AT)
        assert disk.bs is not None
        with pytest.raises(BlockError, match="who knows"):
            core_check.check(disk.bs, core_check.FIX_ERRORS, lambda line: None)
        first = bytes(tape.data[REFCOUNT_TABLE_AT : REFCOUNT_TABLE_AT + 8])
        assert int.from_bytes(first, "big") == state_of(disk).reftable_offset
        assert not tape.failing


# -- twice in a row


def make_longer(disk: BlockBackend) -> None:
    disk.truncate(2 * SIZE)


@pytest.mark.parametrize(
    ("change", "field"), [(change_refcounts, 0), (make_longer, L1_SIZE_AT)], ids=["refcounts", "L1"]
)
def test_where_nobody_knows_the_header_nothing_is_written_any_more(
    tmp_path: Path,
    tape: Unsure,
    change: Callable[[BlockBackend], None],
    field: int,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Whichever tables hold, what was flushed is there."""
    with open_on(tape) as disk:
        disk.pwrite(0, b"a" * SIZE)
        disk.flush()
        tape.fail(field, 2)
        with pytest.raises(BlockError, match="who knows"):
            change(disk)
        assert not tape.failing
        written = len([write for write in tape.writes if write != FLUSH])
        for request in (lambda: disk.pwrite(0, b"z"), lambda: disk.pread(0, 1)):
            with pytest.raises(BlockError, match="Nobody knows what the header says"):
                request()
    assert len([write for write in tape.writes if write != FLUSH]) == written
    assert "the image is written no more: who knows" in capfd.readouterr().err
    assert reopened(tmp_path, tape) == b"a" * SIZE


def test_what_was_not_flushed_by_then_is_told_to_be_lost(tape: Unsure) -> None:
    with open_on(tape) as disk:
        disk.pwrite(0, b"a" * CLUSTER)
        tape.fail(L1_SIZE_AT, 2)
        with pytest.raises(BlockError, match="who knows"):
            disk.truncate(2 * SIZE)
        with pytest.raises(BlockError, match="Nobody knows what the header says"):
            disk.flush()


def test_refcount_blocks_of_what_was_cut_off(tmp_path: Path) -> None:
    """Clusters that are counted in a block which the table on the disk has not, are free there."""
    tape = Unsure(new_image(tmp_path, cluster_size=CLUSTER, refcount_bits=64))
    with open_on(tape) as disk:
        disk.pwrite(0, b"a" * SIZE)
        tape.fail(state_of(disk).reftable_offset)
        with pytest.raises(BlockError, match="who knows"):
            disk.truncate(COVERED)
        assert not tape.failing
        disk.pwrite(0, b"b" * SIZE)
    assert reopened(tmp_path, tape) == b"b" * SIZE


def test_bits_that_are_out_of_date_by_then(tmp_path: Path, tape: Unsure) -> None:
    """The directory on the disk would call them right, and a backup would leave out what came
    later."""
    with open_on(tape) as disk:
        assert disk.bs is not None
        ops.add(disk.bs, "b0", persistent=True)
        dirty_bitmap.store(disk.bs)
    with open_on(tape) as disk:
        assert disk.bs is not None
        tape.fail(0)
        with pytest.raises(BlockError, match="Failed to update bitmap extension: who knows"):
            dirty_bitmap.store(disk.bs)
        assert not tape.failing
        disk.pwrite(0, b"late")
        disk.flush()
        path = tmp_path / "killed.qcow2"
        path.write_bytes(tape.data)
        assert stored(path)["b0"].flags & IN_USE
