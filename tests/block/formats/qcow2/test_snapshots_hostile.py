# SPDX-License-Identifier: GPL-2.0-only
"""Internal snapshots: tables that lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import block
from block.core import check as core
from block.core import snapshot
from block.core.error import BlockError
from block.formats.qcow2 import snapshot_table as table
from block.formats.qcow2.layout import OFFSET_MASK, OFLAG_COPIED
from block.ops.amend import amend
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.block.formats.qcow2.test_snapshots import ALL, clean, make, names
from tests.support.qcow2_damage import counts, run_check
from tests.support.qcow2_tables import first_l2
from tests.support.snapshots import node_of


class Lying:
    """An image with three snapshots, whose table is to be hurt."""

    def __init__(self, path: Path) -> None:
        self.path = path
        block.create(os.fspath(path), "qcow2", SIZE)
        with block.open(os.fspath(path), format="qcow2", cache="unsafe") as disk:
            for name in ("a", "b", "c"):
                disk.pwrite(0, name.encode() * CLUSTER)
                make(disk, name)
            self.at = state_of(disk).snapshots_offset
        self.data = bytearray(path.read_bytes().ljust(self.at + CLUSTER, b"\0"))

    def entry(self, number: int) -> int:
        """Where an entry begins; each has 24 bytes of extra data, an ID and a name of one byte."""
        return self.at + 72 * number

    def save(self) -> None:
        self.path.write_bytes(self.data)


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


LIES = {
    "too many": (60, u32(65537), "Snapshot table too large (header.snapshots: 65537 > 65536)"),
    "at an odd place": (64, bytes(6) + b"\2\0", "Snapshot table offset invalid"),
    "far away": (64, b"\0\0\0\1" + bytes(4), "Snapshot table lies beyond the end of the file"),
    "more than there are": (60, u32(60000), "Snapshot table lies beyond the end of the file"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies_about_them_is_refused(tmp_path: Path, name: str) -> None:
    offset, value, said = LIES[name]
    lying = Lying(tmp_path / "a.qcow2")
    lying.data[offset : offset + len(value)] = value
    lying.save()
    with pytest.raises(BlockError) as caught:
        block.open(os.fspath(lying.path), format="qcow2")
    assert str(caught.value).startswith(said)


def test_too_much_extra_data_are_refused_or_cut_off(tmp_path: Path) -> None:
    lying = Lying(tmp_path / "a.qcow2")
    at = lying.entry(2)
    tail = lying.data[at + 64 : at + 66]
    lying.data[at + 36 : at + 40] = u32(2000)
    lying.data[at + 64 : at + 40 + 2000] = b"x" * 1976
    lying.data[at + 2040 : at + 2042] = tail
    lying.save()
    message = "Too much extra metadata in snapshot table entry 2"
    with pytest.raises(BlockError, match=message) as caught:
        block.open(os.fspath(lying.path), format="qcow2")
    assert caught.value.hint == (
        "You can force-remove this extra metadata with qemu-img check -r all"
    )
    for fix in (0, core.FIX_LEAKS):
        with pytest.raises(BlockError, match=message):
            run_check(lying.path, fix)
    result, lines = run_check(lying.path, ALL)
    assert lines == ["Discarding too much extra metadata in snapshot table entry 2 (2000 > 1024)"]
    assert (counts(result), result.corruptions_fixed) == ((0, 0, 0), 1)
    clean(lying.path)
    with block.open(os.fspath(lying.path), format="qcow2") as disk:
        assert names(disk) == [("1", "a"), ("2", "b"), ("3", "c")]
        assert state_of(disk).snapshots[2].unknown == b"x" * 1000


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (1024, "Repairing snapshot table entry 2 beyond the end of the file"),
        (90000, "Discarding too much extra metadata in snapshot table entry 2 (90000 > 1024)"),
    ],
)
def test_a_repair_keeps_a_snapshot_whose_name_lies_behind_the_end_of_the_file(
    tmp_path: Path, extra: int, said: str
) -> None:
    lying = Lying(tmp_path / "a.qcow2")
    at = lying.entry(2)
    lying.data[at + 36 : at + 40] = u32(extra)
    lying.data[at + 12 : at + 16] = b"\xff\xff" * 2
    lying.save()
    with pytest.raises(BlockError, match=r"beyond the end of the file|Too much extra metadata"):
        run_check(lying.path)
    result, lines = run_check(lying.path, ALL)
    assert lines == [said]
    assert (counts(result), result.corruptions_fixed) == ((0, 0, 0), 1)
    clean(lying.path)
    with block.open(os.fspath(lying.path), format="qcow2", cache="unsafe") as disk:
        assert names(disk) == [("1", "a"), ("2", "b"), ("", "")]
        snapshot.goto(node_of(disk), "")
        assert disk.pread(0, CLUSTER) == b"c" * CLUSTER
    clean(lying.path)


def test_more_snapshots_than_can_be_are_cut_off(tmp_path: Path) -> None:
    lying = Lying(tmp_path / "a.qcow2")
    lying.data[60:64] = u32(70000)
    lying.save()
    with pytest.raises(BlockError, match="snapshot table too large"):
        run_check(lying.path)
    result, lines = run_check(lying.path, ALL)
    assert lines[0] == "Discarding 4464 overhanging snapshots"
    assert counts(result) == (0, 0, 0)
    clean(lying.path)
    with block.open(os.fspath(lying.path), format="qcow2") as disk:
        snapshot.goto(node_of(disk), "b")
        assert disk.pread(0, CLUSTER) == b"b" * CLUSTER


def test_a_table_that_is_too_long_is_refused_or_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying = Lying(tmp_path / "a.qcow2")
    lying.save()
    monkeypatch.setattr(table, "MAX_SIZE", 150)
    with pytest.raises(BlockError, match="Snapshot table is too big") as caught:
        block.open(os.fspath(lying.path), format="qcow2")
    assert "all 1 overhanging snapshots" in caught.value.hint
    result, lines = run_check(lying.path, ALL)
    assert lines[0] == "Discarding 1 overhanging snapshots (snapshot table is too big)"
    assert counts(result) == (0, 0, 0)
    clean(lying.path)
    with block.open(os.fspath(lying.path), format="qcow2") as disk:
        assert names(disk) == [("1", "a"), ("2", "b")]


def test_an_upgrade_completes_them(tmp_path: Path) -> None:
    path = tmp_path / "old.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, compat="0.10")
    with block.open(os.fspath(path), format="qcow2", cache="unsafe") as disk:
        make(disk, "one")
        at = state_of(disk).snapshots_offset
    data = bytearray(path.read_bytes())
    data[at + 36 : at + 40] = bytes(4)
    data[at + 40 : at + 44] = data[at + 64 : at + 68]
    path.write_bytes(data)
    with block.open(os.fspath(path), format="qcow2", cache="unsafe") as disk:
        assert names(disk) == [("1", "one")]
        assert state_of(disk).snapshots[0].extra_size == 0
        amend(node_of(disk), {"compat": "1.1"}, lambda done, total: None)
    clean(path)
    with block.open(os.fspath(path), format="qcow2", cache="unsafe") as disk:
        assert state_of(disk).snapshots[0].is_complete()
        assert names(disk) == [("1", "one")]


def test_an_entry_too_short_for_version_3_is_completed(tmp_path: Path) -> None:
    lying = Lying(tmp_path / "a.qcow2")
    at = lying.entry(2)
    lying.data[at + 36 : at + 40] = u32(8)
    lying.data[at + 48 : at + 50] = lying.data[at + 64 : at + 66]
    lying.save()
    result, lines = run_check(lying.path)
    assert lines == ["ERROR snapshot table entry 2 is incomplete"]
    assert counts(result) == (1, 0, 0)
    assert counts(run_check(lying.path, core.FIX_LEAKS)[0]) == (1, 0, 0)
    result, lines = run_check(lying.path, ALL)
    assert lines == ["Repairing snapshot table entry 2 is incomplete"]
    clean(lying.path)
    with block.open(os.fspath(lying.path), format="qcow2") as disk:
        last = state_of(disk).snapshots[2]
        assert (last.disk_size, last.icount) == (SIZE, snapshot.NO_ICOUNT)


@pytest.mark.parametrize(
    ("offset", "value"),
    [(0, b"\0" * 6 + b"\2\0"), (8, u32((32 << 20) // 8 + 1)), (0, b"\0\0\0\1" + bytes(4))],
    ids=["at an odd place", "too long", "beyond the end"],
)
def test_an_l1_table_that_cannot_be_is_not_used(tmp_path: Path, offset: int, value: bytes) -> None:
    lying = Lying(tmp_path / "a.qcow2")
    at = lying.entry(1) + offset
    lying.data[at : at + len(value)] = value
    lying.save()
    with block.open(os.fspath(lying.path), format="qcow2") as disk:
        for call in (
            lambda: snapshot.goto(node_of(disk), "b"),
            lambda: snapshot.delete(node_of(disk), None, "b"),
        ):
            with pytest.raises(BlockError):
                call()
        assert disk.pread(0, CLUSTER) == b"c" * CLUSTER
    assert lying.path.read_bytes() == lying.data


def test_nothing_is_written_over_their_tables(tmp_path: Path, opener: Opener) -> None:
    """overlap-check: by default the table and L1 tables, with `all` L2 tables, too."""
    for what, checks in (("table", {}), ("l1", {}), ("l2", {"overlap-check": "all"})):
        lying = Lying(tmp_path / f"{what}.qcow2")
        lying.save()
        disk = opener(lying.path, options=checks)
        disk.pread(0, 1)  # loads the L2 table
        s = state_of(disk)
        first = s.snapshots[0]
        place = {
            "table": s.snapshots_offset,
            "l1": first.l1_offset,
            "l2": int.from_bytes(lying.data[first.l1_offset :][:8], "big") & OFFSET_MASK,
        }[what]
        s.l2_cache.tables[first_l2(disk)].cells[0] = place | OFLAG_COPIED
        with pytest.raises(BlockError, match="Preventing invalid write on metadata"):
            disk.pwrite(0, b"x" * 512)
