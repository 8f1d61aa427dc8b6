# SPDX-License-Identifier: GPL-2.0-only
"""Internal snapshots: what they keep, what they share, and what a crash or a failure leaves."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

import block
from block.core import check as core
from block.core import dirty_bitmap, snapshot, vmstate
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.snapshot import SnapshotInfo
from block.formats.qcow2 import snapshot_table as table
from block.formats.qcow2.layout import OFFSET_MASK, OFLAG_COPIED
from block.ops.amend import amend
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.support.qcow2_damage import counts, run_check
from tests.support.qcow2_disk import FLUSH, Tape, open_on
from tests.support.snapshots import CLUSTER as SMALL
from tests.support.snapshots import LONGEST, Kept, Step, do, node_of, steps

ALL = core.FIX_LEAKS | core.FIX_ERRORS


def make(disk: BlockBackend, name: str, **known: Any) -> SnapshotInfo:
    info = SnapshotInfo(name, **known)
    snapshot.create(node_of(disk), info)
    return info


def let_resize(disk: BlockBackend) -> BlockBackend:
    """The disk's user has nothing against another length."""
    disk.set_perm(disk.perm, f.BLK_PERM_ALL)
    return disk


def names(disk: BlockBackend) -> list[tuple[str, str]]:
    return [(info.id, info.name) for info in snapshot.snapshots_of(node_of(disk))]


def clean(path: Path) -> None:
    assert counts(run_check(path)[0]) == (0, 0, 0)


# -- what they are for


def test_a_snapshot_keeps_what_the_disk_held(image: Path, opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, b"a" * 3 * CLUSTER)
    make(disk, "then")
    disk.pwrite(CLUSTER, b"b" * CLUSTER)
    disk.pwrite_zeroes(2 * CLUSTER, CLUSTER)
    disk.pwrite(5 * CLUSTER, b"c" * 100)
    now = disk.pread(0, 8 * CLUSTER)
    make(disk, "now")
    snapshot.goto(node_of(disk), "then")
    assert disk.pread(0, 8 * CLUSTER) == (b"a" * 3 * CLUSTER).ljust(8 * CLUSTER, b"\0")
    snapshot.goto(node_of(disk), "now")
    assert disk.pread(0, 8 * CLUSTER) == now
    disk.close()
    clean(image)


def test_it_shares_clusters_until_one_is_written(image: Path, opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, b"a" * 40 * CLUSTER)
    disk.flush()
    before = os.path.getsize(image)
    make(disk, "then")
    assert os.path.getsize(image) <= before + 2 * CLUSTER, "an L1 table and the snapshot table"
    disk.pwrite(0, b"b" * 512)
    disk.flush()
    assert os.path.getsize(image) <= before + 4 * CLUSTER, "and an L2 table, and a data cluster"


def test_deleting_it_gives_back_what_nobody_else_has(image: Path, opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, b"a" * 10 * CLUSTER)
    make(disk, "then")
    disk.pwrite(0, b"b" * 10 * CLUSTER)
    s = state_of(disk)
    snapshot.delete(node_of(disk), "1", "then")
    assert (s.snapshots, s.nb_snapshots, s.snapshots_offset) == ([], 0, 0)
    entries = s.l1_table[0]
    assert entries & OFLAG_COPIED, "the L2 table is the disk's own again"
    disk.pwrite(0, b"c" * 10 * CLUSTER)
    disk.close()
    clean(image)
    result, _ = run_check(image)
    assert result.bfi.allocated_clusters == 10


def test_ids_go_on_from_the_largest(opener: Opener) -> None:
    disk = opener()
    assert [make(disk, name).id for name in ("a", "b", "a")] == ["1", "2", "3"]
    snapshot.delete(node_of(disk), None, "b")
    assert make(disk, "d").id == "4"
    snapshot.delete(node_of(disk), None, "a")
    assert names(disk) == [("3", "a"), ("4", "d")], "the first of that name was meant"


def test_an_id_is_looked_for_before_a_name(opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, b"1" * 512)
    make(disk, "2")
    disk.pwrite(0, b"2" * 512)
    make(disk, "other")
    snapshot.goto(node_of(disk), "2")
    assert disk.pread(0, 1) == b"2"


@pytest.mark.parametrize(
    ("call", "number"),
    [
        (lambda bs: snapshot.goto(bs, "none"), errno.ENOENT),
        (lambda bs: snapshot.delete(bs, None, "none"), errno.ENOENT),
        (lambda bs: snapshot.delete(bs, "1", "none"), errno.ENOENT),
        (lambda bs: snapshot.delete(bs, None, None), errno.EINVAL),
        (lambda bs: snapshot.load_tmp(bs, "1", None), errno.EINVAL),
    ],
)
def test_what_is_not_there_is_refused(opener: Opener, call: Any, number: int) -> None:
    disk = opener()
    make(disk, "one")
    with pytest.raises(BlockError) as caught:
        call(node_of(disk))
    assert caught.value.errno == number


def test_all_that_is_known_of_it_comes_back(image: Path, opener: Opener) -> None:
    known = {
        "vm_state_size": 5 << 32, "date_sec": 1 << 31, "date_nsec": 999_999_999,
        "vm_clock_nsec": (1 << 63) + 7, "icount": 1 << 40,
    }  # fmt: skip
    disk = opener()
    make(disk, "é\udcff" + "n" * 250, **known)
    disk.close()
    (info,) = snapshot.snapshots_of(node_of(opener()))
    assert {name: getattr(info, name) for name in known} == known
    assert info.name == "é\udcff" + "n" * 250


def test_a_name_is_cut_where_qemu_has_no_more_room(opener: Opener) -> None:
    disk = opener()
    make(disk, "x" * 300)
    assert names(disk) == [("1", "x" * 255)]


def test_extra_data_nobody_understands_stay(image: Path, opener: Opener) -> None:
    disk = opener()
    make(disk, "one")
    s = state_of(disk)
    s.snapshots[0].unknown = b"future" * 10
    make(disk, "two")
    disk.close()
    s = state_of(opener())
    assert [entry.unknown for entry in s.snapshots] == [b"future" * 10, b""]


def test_a_filter_and_raw_hand_the_question_on(image: Path) -> None:
    options = {"driver": "raw", "file": {"driver": "qcow2", "file": {"driver": "file"}}}
    options["file"]["file"]["filename"] = os.fspath(image)  # type: ignore[index]
    with block.open(options=options) as disk:
        disk.pwrite(0, b"a" * 512)
        make(disk, "through")
        disk.pwrite(0, b"b" * 512)
        assert names(disk) == [("1", "through")]
        let_resize(disk).truncate(2 * SIZE)
        snapshot.goto(node_of(disk), "through")
        assert disk.pread(0, 512) == b"a" * 512
        assert disk.length == SIZE, "raw has heard of it"


def test_bitmaps_would_not_know_what_has_changed(opener: Opener) -> None:
    disk = opener()
    make(disk, "one")
    bitmap = dirty_bitmap.create(node_of(disk), 65536, "watch")
    with pytest.raises(BlockError, match="Device has active dirty bitmaps"):
        snapshot.goto(node_of(disk), "one")
    bitmap.release()
    snapshot.goto(node_of(disk), "one")


def test_a_format_without_refuses_in_qemus_words(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    block.create(os.fspath(path), "raw", 1 << 20)
    with block.open(os.fspath(path), format="raw") as disk:
        bs = node_of(disk)
        with pytest.raises(BlockError, match="Block driver does not support snapshots"):
            snapshot.goto(bs, "x")
        with pytest.raises(BlockError, match="'raw' used by device '' does not support internal"):
            snapshot.delete(bs, None, "x")
        with pytest.raises(BlockError, match="does not support internal snapshots"):
            snapshot.snapshots_of(bs)
        assert snapshot.find(bs, "x") is None


def test_an_image_opened_read_only_keeps_none(image: Path, opener: Opener) -> None:
    disk = opener(read_only=True)
    with pytest.raises(BlockError) as caught:
        make(disk, "no")
    assert caught.value.errno == errno.EACCES


# -- lengths


def test_the_disk_becomes_as_long_as_the_snapshot(image: Path, opener: Opener) -> None:
    disk = let_resize(opener())
    disk.pwrite(0, b"a" * CLUSTER)
    make(disk, "short")
    disk.truncate(4 << 30)
    disk.pwrite(3 << 30, b"b" * CLUSTER)
    make(disk, "long")
    snapshot.goto(node_of(disk), "short")
    assert disk.length == SIZE
    s = state_of(disk)
    small = s.l2_cache.capacity
    snapshot.goto(node_of(disk), "long")
    assert disk.length == 4 << 30
    assert s.l2_cache.capacity > small, "it may hold all that the longer disk has"
    assert disk.pread(3 << 30, CLUSTER) == b"b" * CLUSTER
    disk.close()
    clean(image)
    assert opener().length == 4 << 30


def test_who_needs_the_length_as_it_is_prevents_that(opener: Opener) -> None:
    disk = opener()
    make(disk, "short")
    disk.truncate(2 * SIZE)
    with pytest.raises(BlockError, match="Failed to load snapshot: Operation not supp") as caught:
        snapshot.goto(node_of(disk), "short")
    assert "does not allow 'resize'" in str(caught.value.__cause__)
    assert disk.length == 2 * SIZE


def test_version_2_keeps_its_length_while_there_are_snapshots(
    tmp_path: Path, opener: Opener
) -> None:
    path = tmp_path / "old.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, compat="0.10")
    disk = opener(path)
    make(disk, "one")
    with pytest.raises(BlockError, match="Can't resize a v2 image which has snapshots"):
        disk.truncate(2 * SIZE)
    snapshot.delete(node_of(disk), "1", None)
    disk.truncate(2 * SIZE)


# -- a machine's state


def test_a_machines_state_belongs_to_the_snapshot(image: Path, opener: Opener) -> None:
    disk = opener()
    state = random.Random(1).randbytes(3 * CLUSTER + 77)
    vmstate.save(disk, 0, [memoryview(state)])
    make(disk, "running", vm_state_size=len(state))
    found = bytearray(len(state))
    vmstate.load(disk, 0, [memoryview(found)])
    assert found == bytes(len(state)), "the disk has none any more"
    snapshot.goto(node_of(disk), "running")
    vmstate.load(disk, 0, [memoryview(found)])
    assert found == state
    disk.close()
    clean(image)


def test_behind_all_that_was_saved_there_are_zeroes(opener: Opener) -> None:
    disk = opener()
    vmstate.save(disk, 10, [memoryview(b"state")])
    found = bytearray(b"?" * 40)
    vmstate.load(disk, 0, [memoryview(found)])
    assert found == bytes(10) + b"state" + bytes(25)
    far = bytearray(b"?" * 40)
    vmstate.load(disk, 1 << 40, [memoryview(far)])
    assert far == bytes(40)


def test_a_longer_disk_does_not_show_it(image: Path, opener: Opener) -> None:
    """With QEMU 7.2 the state comes to light where the new part begins."""
    disk = opener()
    vmstate.save(disk, 0, [memoryview(b"secret" * 1000)])
    disk.truncate(1 << 30)
    assert not disk.pread(512 << 20, CLUSTER).strip(b"\0")
    disk.close()
    clean(image)


# -- reading one


def test_one_can_be_read_without_the_disk_changing(image: Path, opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, b"a" * CLUSTER)
    make(disk, "then")
    disk.pwrite(0, b"b" * CLUSTER)
    disk.truncate(1 << 30)
    disk.close()
    before = image.read_bytes()
    reader = opener(read_only=True)
    snapshot.load_tmp_by_id_or_name(node_of(reader), "then")
    assert reader.pread(0, CLUSTER) == b"a" * CLUSTER
    assert reader.pread((1 << 30) - CLUSTER, CLUSTER) == bytes(CLUSTER)
    with pytest.raises(BlockError, match="Can't find snapshot"):
        snapshot.load_tmp(node_of(reader), "1", "other")
    reader.close()
    assert image.read_bytes() == before


# -- failures


@pytest.mark.parametrize("bits", [1, 2])
def test_what_refcounts_cannot_count_changes_nothing(
    tmp_path: Path, opener: Opener, bits: int
) -> None:
    """QEMU leaves a leak behind each try."""
    path = tmp_path / "narrow.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, refcount_bits=bits)
    disk = opener(path)
    disk.pwrite(0, b"a" * 5 * CLUSTER)
    fine = (1 << bits) - 2
    for _ in range(fine):
        make(disk, "more")
    for _ in range(2):
        with pytest.raises(BlockError) as caught:
            make(disk, "one too many")
        assert caught.value.errno == errno.EINVAL
    assert len(names(disk)) == fine
    disk.close()
    clean(path)


@pytest.mark.parametrize("torn", [False, True], ids=["one write fails", "all that follow, too"])
@pytest.mark.parametrize("what", ["create", "goto", "delete"])
def test_a_failing_write_leaves_leaks_at_most(tmp_path: Path, what: str, torn: bool) -> None:
    """If it is only one, and before the write that counts, it leaves not even these."""
    start, kept = small_image(tmp_path)
    number = 0
    failed = True
    while failed:
        tape = Tape(start)
        with open_on(tape) as disk:
            tape.writes_left, tape.torn = number, torn
            try:
                change(disk, what)
                failed = False
            except BlockError:
                failed = True
            unchanged = len(names(disk)) == 2 and disk.pread(0, LONGEST) == kept.disk
        number += 1
        judge(tmp_path, bytes(tape.data), kept, what)
        if not torn and unchanged and tape.failed_at is not None and tape.failed_at >= SMALL:
            (tmp_path / "cut.qcow2").write_bytes(tape.data)
            clean(tmp_path / "cut.qcow2")
    assert number > 3, "there were some writes"


@pytest.mark.parametrize("tries", [1, 6], ids=["in order", "late writes lost"])
@pytest.mark.parametrize("what", ["create", "goto", "delete"])
def test_a_cut_anywhere_leaves_leaks_at_most(tmp_path: Path, what: str, tries: int) -> None:
    start, kept = small_image(tmp_path)
    tape = Tape(start)
    tape.discards = True
    with open_on(tape) as disk:
        tape.writes.clear()
        change(disk, what)
    source = random.Random(what)
    assert FLUSH in tape.writes
    cuts = {
        tape.cut(at, source, tries > 1) for at in range(len(tape.writes) + 1) for _ in range(tries)
    }
    for data in cuts:
        judge(tmp_path, data, kept, what)


def test_refcounts_are_written_before_flags_that_follow_from_them(tmp_path: Path) -> None:
    start, _ = small_image(tmp_path)
    tape = Tape(start)
    with open_on(tape) as disk:
        snapshot.delete(node_of(disk), None, "s1")
        disk.flush()
        tape.writes.clear()
        snapshot.delete(node_of(disk), None, "s2")
        s = state_of(disk)
        l2, refblock = s.l1_table[0] & OFFSET_MASK, s.reftable[0]
        order = [offset for offset, _ in tape.writes]
    flags = order.index(l2)
    counted = flags - order[:flags][::-1].index(refblock) - 1
    assert FLUSH[0] in order[counted:flags]


def test_a_count_that_stops_half_way_is_taken_back(tmp_path: Path, opener: Opener) -> None:
    """One of many clusters, in the second refcount block, cannot be counted up."""
    path = tmp_path / "wide.qcow2"
    block.create(os.fspath(path), "qcow2", 1 << 20, cluster_size=512, refcount_bits=64)
    disk = opener(path)
    disk.pwrite(0, b"a" * 200 * 512)
    disk.flush()
    s = state_of(disk)
    before = {place: list(block_.cells) for place, block_ in s.refcount_cache.tables.items()}
    cells = s.refcount_cache.tables[s.reftable[1]].cells
    assert cells[2] == 1
    cells[2] = s.refcount_max
    with pytest.raises(BlockError):
        make(disk, "no")
    cells[2] = 1
    after = {place: list(block_.cells) for place, block_ in s.refcount_cache.tables.items()}
    assert after == before


def small_image(folder: Path) -> tuple[bytes, Kept]:
    """An image with two snapshots that share most with the disk; and what is in it."""
    path = folder / "start.qcow2"
    block.create(os.fspath(path), "qcow2", LONGEST, cluster_size=SMALL)
    kept = Kept(LONGEST)
    with block.open(os.fspath(path), format="qcow2", cache="unsafe") as disk:
        for step in (
            Step("write", 0, 80, 1), Step("create"), Step("write", 8, 24, 2), Step("create"),
            Step("write", 60, 90, 3), Step("zeroes", 0, 8),
        ):  # fmt: skip
            do(disk, kept, step)
    return path.read_bytes(), kept


def change(disk: BlockBackend, what: str) -> None:
    if what == "create":
        make(disk, "s3")
    elif what == "goto":
        snapshot.goto(node_of(disk), "s1")
    else:
        snapshot.delete(node_of(disk), None, "s1")


def judge(folder: Path, data: bytes, kept: Kept, what: str) -> None:
    """The disk is the old or the new one; whatever snapshot is there is whole, also after
    somebody has written to the disk; and `check -r leaks` finds nothing else to repair."""
    path = folder / "cut.qcow2"
    path.write_bytes(data)
    known = {**kept.snapshots, "s3": bytes(kept.disk)}
    with block.open(os.fspath(path), format="qcow2", cache="unsafe") as disk:
        found = disk.pread(0, LONGEST)
        assert found in ((bytes(kept.disk), known["s1"]) if what == "goto" else (kept.disk,))
        there = [name for _, name in names(disk)]
        expected = {"create": ("s1", "s2", "s3"), "goto": ("s1", "s2"), "delete": ("s2",)}[what]
        assert tuple(there) in (("s1", "s2"), expected)
        disk.pwrite(0, b"w" * LONGEST)
    for name in there:
        with block.open(os.fspath(path), format="qcow2", read_only=True) as reader:
            snapshot.load_tmp(node_of(reader), None, name)
            assert reader.pread(0, LONGEST) == known[name], name
    path.write_bytes(data)
    before, lines = run_check(path)
    assert before.check_errors == 0
    assert all("OFLAG_COPIED" in line or line.startswith("Leaked") for line in lines)
    run_check(path, core.FIX_LEAKS)
    clean(path)


# -- tables that lie


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
        s.l2_cache.tables[s.l1_table[0] & OFFSET_MASK].cells[0] = place | OFLAG_COPIED
        with pytest.raises(BlockError, match="Preventing invalid write on metadata"):
            disk.pwrite(0, b"x" * 512)


# -- anything at all


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps(14))
def test_any_sequence_is_as_a_plain_copy_would_be(
    tmp_path_factory: pytest.TempPathFactory, sequence: list[Step]
) -> None:
    path = tmp_path_factory.mktemp("work") / "a.qcow2"
    size = 10 * SMALL + SECTOR
    block.create(os.fspath(path), "qcow2", size, cluster_size=SMALL)
    kept = Kept(size)
    with block.open(
        os.fspath(path), format="qcow2", cache="unsafe", options={"discard": "unmap"}
    ) as disk:
        let_resize(disk)
        for step in sequence:
            do(disk, kept, step)
            assert disk.pread(0, disk.length) == kept.disk
        there = names(disk)
    assert [name for _, name in there] == list(kept.snapshots)
    clean(path)
    with block.open(os.fspath(path), format="qcow2", cache="unsafe") as disk:
        let_resize(disk)
        for name, content in kept.snapshots.items():
            snapshot.goto(node_of(disk), name)
            assert disk.pread(0, disk.length) == content
        for snapshot_id, _ in there:
            snapshot.delete(node_of(disk), snapshot_id, None)
    clean(path)
    path.unlink()


SECTOR = 512
