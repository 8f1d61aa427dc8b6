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
from block.formats.qcow2.layout import OFLAG_COPIED
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.support.qcow2_damage import counts, run_check
from tests.support.snapshots import CLUSTER as SMALL
from tests.support.snapshots import Kept, Step, do, node_of, steps

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
    file = {"driver": "file", "filename": os.fspath(image)}
    options = {"driver": "raw", "file": {"driver": "qcow2", "file": file}}
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
