# SPDX-License-Identifier: GPL-2.0-only
"""Another version or size for an image that is there: it stays whole, whenever the power goes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import block
from block.core import check as core_check
from block.core import flags as f
from block.core import snapshot
from block.core.backend import BlockBackend
from block.core.backing import change_backing_file
from block.core.error import BlockError
from block.formats.qcow2 import bitmap_store
from block.formats.qcow2.dirty import is_dirty
from block.formats.qcow2.refcount import get_refcount
from block.ops import bitmap as bitmaps
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.support.luks_images import make_qcow2, opened_qcow2, secret
from tests.support.qcow2_amend import change, cut_all, fill
from tests.support.qcow2_bitmaps import stored
from tests.support.qcow2_cuts import CLEAN, check, new_image
from tests.support.qcow2_cuts import SIZE as TAPE_SIZE
from tests.support.qcow2_disk import Tape, open_on
from tests.support.qcow2_tables import cluster_of, first_l2
from tests.support.snapshots import node_of

# -- compat


def test_version_2_has_no_zero_entries(image: Path, opener: Opener) -> None:
    disk = opener()
    seen = fill(disk, SIZE)
    said = change(disk, compat="0.10")
    assert said[-1][0] == said[-1][1]
    assert disk.pread(0, SIZE) == seen
    disk.pwrite_zeroes(SIZE // 3, 4 * CLUSTER)
    disk.close()
    assert image.read_bytes()[7] == 2
    assert check(image) == CLEAN
    disk = opener()
    change(disk, compat="1.1", lazy_refcounts=True)
    disk.pwrite(20 * CLUSTER, b"x")
    assert is_dirty(state_of(disk))
    disk.close()
    assert check(image) == CLEAN


def test_zeroes_over_a_backing_file_become_data(tmp_path: Path, opener: Opener) -> None:
    base, top = tmp_path / "base", tmp_path / "top"
    base.write_bytes(b"b" * SIZE)
    block.create(os.fspath(top), "qcow2", SIZE, backing_file="base", backing_fmt="raw")
    disk = opener(top)
    disk.pwrite_zeroes(CLUSTER, 3 * CLUSTER)
    disk.pwrite(2 * CLUSTER, b"x" * CLUSTER)
    disk.pwrite_zeroes(2 * CLUSTER, CLUSTER)  # keeps its cluster
    change(disk, compat="0.10")
    disk.close()
    assert check(top) == CLEAN
    expected = b"b" * CLUSTER + bytes(3 * CLUSTER) + b"b" * (SIZE - 4 * CLUSTER)
    assert opener(top).pread(0, SIZE) == expected


def test_a_cluster_that_somebody_else_has_is_not_filled_with_zeroes(
    image: Path, opener: Opener
) -> None:
    disk = opener()
    disk.pwrite(0, b"x" * CLUSTER)
    s = state_of(disk)
    table = s.l2_cache.tables[first_l2(disk)]
    place = cluster_of(disk, 0)
    table.cells[0] = place | 1  # zero, and not COPIED: as if a snapshot had it, too
    s.l2_cache.mark_dirty(table)
    block_ = s.refcount_cache.tables[s.reftable[0]]
    block_.cells[place // CLUSTER] = 2
    s.refcount_cache.mark_dirty(block_)
    change(disk, compat="0.10")
    assert disk.pread(0, CLUSTER) == bytes(CLUSTER)
    disk.flush()
    assert image.read_bytes()[place : place + CLUSTER] == b"x" * CLUSTER
    assert refcount_of(disk, place) == 1, "one reference less"


def refcount_of(disk: BlockBackend, place: int) -> int:
    from block.core.wait import run_sync

    s = state_of(disk)
    return run_sync(disk.aio_context, lambda: get_refcount(s, place >> s.cluster_bits))


def test_a_lazy_image_becomes_clean_before_it_forgets_how_to_be_dirty(
    image: Path, opener: Opener
) -> None:
    disk = opener(options={"lazy-refcounts": "on"})
    seen = fill(disk, SIZE)
    assert is_dirty(state_of(disk))
    change(disk, compat="0.10")
    data = image.read_bytes()
    image.with_name("killed.qcow2").write_bytes(data)
    assert check(image.with_name("killed.qcow2")) == CLEAN
    disk.pwrite(0, seen[:512])
    assert not is_dirty(state_of(disk))


def tape_over(folder: Path, backing: bool) -> Tape:
    """A new image with small clusters, over a backing file or over nothing."""
    base = folder / "base"
    base.write_bytes(b"b" * TAPE_SIZE)
    options = {"backing_file": os.fspath(base), "backing_fmt": "raw"} if backing else {}
    return Tape(new_image(folder, cluster_size=4096, **options))


@pytest.mark.parametrize("backing", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_power_cut_while_it_is_downgraded_leaves_leaks_at_most(
    tmp_path: Path, backing: bool, shuffle: bool
) -> None:
    tape = tape_over(tmp_path, backing)
    with open_on(tape, **{"l2-cache-size": 1024, "l2-cache-entry-size": 512}) as disk:
        fill(disk, TAPE_SIZE)
        disk.flush()
        seen = disk.pread(0, TAPE_SIZE)
        start = len(tape.writes)
        change(disk, compat="0.10")
    cut_all(tape, start, 20, shuffle, tmp_path, seen)


# -- bitmaps, which version 2 has not


def with_bitmaps(path: Path, opener: Opener) -> BlockBackend:
    """An open image with two bitmaps that it keeps, and one that is in memory so far."""
    disk = opener(path)
    assert disk.bs is not None
    for name in ("a", "b"):
        bitmaps.add(disk.bs, name, persistent=True)
    disk.pwrite(0, b"x" * 3 * CLUSTER)
    disk.close()
    disk = opener(path)
    assert disk.bs is not None
    bitmaps.add(disk.bs, "new", persistent=True)
    bitmaps.add(disk.bs, "not kept")
    return disk


def test_bitmaps_go_with_version_3_and_leave_nothing_behind(image: Path, opener: Opener) -> None:
    disk = with_bitmaps(image, opener)
    assert disk.bs is not None
    change(disk, compat="0.10")
    assert [bitmap.name for bitmap in disk.bs.dirty_bitmaps] == ["not kept"]
    disk.pwrite(CLUSTER, b"y")
    bitmaps.remove(disk.bs, "not kept")
    disk.close()
    assert check(image) == CLEAN
    disk = opener()
    assert disk.bs is not None
    assert not disk.bs.dirty_bitmaps
    assert disk.pread(0, 3 * CLUSTER) == b"x" * CLUSTER + b"y" + b"x" * (2 * CLUSTER - 1)


def test_a_bitmap_that_somebody_works_with_stands_in_the_way(image: Path, opener: Opener) -> None:
    disk = with_bitmaps(image, opener)
    assert disk.bs is not None
    backup = bitmaps.lookup(disk.bs, "a")
    backup.create_successor()
    with pytest.raises(BlockError, match="Bitmap 'a' is currently in use by another operation"):
        change(disk, compat="0.10", size=2 * SIZE)
    assert disk.length == SIZE, "nothing was begun"
    backup.reclaim()
    bitmaps.remove(disk.bs, "not kept")
    disk.close()
    assert sorted(stored(image)) == ["a", "b", "new"]


def test_where_the_header_cannot_be_written_the_bitmaps_stay(
    image: Path, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*args: object) -> None:
        raise BlockError(errno.EIO, "bad sector")

    disk = with_bitmaps(image, opener)
    with monkeypatch.context() as patch:
        patch.setattr(bitmap_store, "co_update_header", fails)
        with pytest.raises(BlockError, match="bad sector"):
            change(disk, compat="0.10")
    assert disk.bs is not None
    assert state_of(disk).version == 3
    bitmaps.remove(disk.bs, "not kept")
    disk.close()
    assert check(image) == CLEAN
    assert sorted(stored(image)) == ["a", "b", "new"]


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_power_cut_while_bitmaps_go_leaves_leaks_at_most(tmp_path: Path, shuffle: bool) -> None:
    path = tmp_path / "start.qcow2"
    path.write_bytes(new_image(tmp_path, cluster_size=4096))
    with block.open(os.fspath(path), format="qcow2") as disk:
        assert disk.bs is not None
        for name in ("a", "b"):
            bitmaps.add(disk.bs, name, persistent=True)
        fill(disk, TAPE_SIZE)
    tape = Tape(path.read_bytes())
    with open_on(tape) as disk:
        seen = disk.pread(0, TAPE_SIZE)
        start = len(tape.writes)
        change(disk, compat="0.10")
    cut_all(tape, start, 20, shuffle, tmp_path, seen)


def test_what_cannot_be_done_in_the_end_is_not_begun(image: Path, opener: Opener) -> None:
    block.create(os.fspath(image), "qcow2", SIZE, refcount_bits=8)
    disk = opener()
    disk.pwrite(0, b"x")
    disk.flush()
    before = image.read_bytes()
    with pytest.raises(BlockError, match="requires refcount_bits=16"):
        change(disk, compat="0.10", size=2 * SIZE)
    assert image.read_bytes() == before


def test_a_backing_format_may_be_any_bytes(tmp_path: Path, opener: Opener) -> None:
    top = tmp_path / "top"
    block.create(os.fspath(top), "qcow2", SIZE, backing_file="base", backing_fmt="raw")
    data = top.read_bytes()
    top.write_bytes(data.replace(b"raw\0", b"r\xffw\0"))
    disk = opener(top, options={"backing": None})
    with pytest.raises(BlockError, match=r"^Cannot amend the backing file$"):
        change(disk, backing_file="base", backing_fmt="raw")
    fmt = node_of(disk).backing_format
    change(disk, backing_file="base", backing_fmt=fmt, lazy_refcounts=True)
    change_backing_file(node_of(disk), "other", fmt)
    disk.close()
    assert b"r\xffw\0" in top.read_bytes()[:CLUSTER]


def test_a_size_is_exact_and_may_be_smaller(image: Path, opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, b"x" * SIZE)
    disk.set_perm(disk.perm, f.BLK_PERM_ALL)
    change(disk, size=CLUSTER)
    assert disk.length == CLUSTER
    disk.close()
    assert check(image) == CLEAN


def test_zstd_stays_where_a_cluster_needs_it(tmp_path: Path, opener: Opener) -> None:
    path = tmp_path / "a.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, compression_type="zstd")
    disk = opener(path)
    disk.pwrite(0, b"x" * CLUSTER, f.REQ_WRITE_COMPRESSED)
    with pytest.raises(BlockError, match="zstd compression type and existing compressed"):
        change(disk, compat="0.10")
    disk.pwrite(0, b"y" * CLUSTER)
    change(disk, compat="0.10")
    disk.pwrite(CLUSTER, b"x" * CLUSTER, f.REQ_WRITE_COMPRESSED)
    disk.close()
    assert check(path) == CLEAN
    assert opener(path).pread(0, 2 * CLUSTER) == b"y" * CLUSTER + b"x" * CLUSTER


def test_zeroes_of_an_encrypted_image_are_written_as_the_guest_would(tmp_path: Path) -> None:
    base, top = tmp_path / "base", tmp_path / "top"
    base.write_bytes(b"b" * SIZE)
    with secret():
        make_qcow2(top, SIZE - 512, backing_file="base", backing_fmt="raw")
        with opened_qcow2(top) as disk:
            disk.pwrite(CLUSTER, b"x" * CLUSTER)
            disk.pwrite_zeroes(CLUSTER, 2 * CLUSTER)
            disk.pwrite_zeroes(SIZE - CLUSTER, CLUSTER - 512)
            seen = disk.pread(0, SIZE - 512)
            assert seen[CLUSTER : 3 * CLUSTER] == bytes(2 * CLUSTER)
            change(disk, compat="0.10")
            assert state_of(disk).version == 2
            assert disk.pread(0, SIZE - 512) == seen
            assert disk.bs is not None
            result = core_check.check(disk.bs)
    assert (result.corruptions, result.leaks) == (0, 0)


def test_an_upgrade_completes_the_table_of_snapshots(image: Path, opener: Opener) -> None:
    block.create(os.fspath(image), "qcow2", SIZE, compat="0.10")
    disk = opener()
    disk.pwrite(0, b"x")
    assert disk.bs is not None
    snapshot.create(disk.bs, snapshot.SnapshotInfo("s"))
    (entry,) = state_of(disk).snapshots
    entry.extra_size = 0
    before = state_of(disk).snapshots_offset
    change(disk, compat="1.1")
    assert state_of(disk).snapshots_offset != before, "a new table"
    assert entry.is_complete()
    disk.close()
    assert check(image) == CLEAN


def test_a_downgrade_that_fails_in_its_last_write_was_none(tmp_path: Path) -> None:
    """The disk may have that all the same. Who wrote on as in version 3 would spoil it."""
    tape = Tape(new_image(tmp_path))
    path = tmp_path / "again.qcow2"
    with open_on(tape) as disk:
        disk.pwrite(0, b"x" * TAPE_SIZE)
        tape.bad_place, tape.keeps = 0, True
        with pytest.raises(BlockError, match="Failed to update the image header"):
            change(disk, compat="0.10")
        assert tape.bad_place is None
        disk.pwrite_zeroes(0, CLUSTER)
    path.write_bytes(tape.data)
    with block.open(os.fspath(path), format="qcow2") as disk:
        assert state_of(disk).version == 3
        assert disk.pread(0, TAPE_SIZE) == bytes(CLUSTER) + b"x" * (TAPE_SIZE - CLUSTER)


def test_snapshots_of_another_length_prevent_a_downgrade(image: Path, opener: Opener) -> None:
    disk = opener()
    assert disk.bs is not None
    snapshot.create(disk.bs, snapshot.SnapshotInfo("s"))
    disk.truncate(2 * SIZE)
    with pytest.raises(BlockError, match="Internal snapshots prevent downgrade"):
        change(disk, compat="0.10")
    with pytest.raises(BlockError, match="Internal snapshots prevent downgrade"):
        change(disk, compat="0.10", size=3 * SIZE)
    disk.set_perm(disk.perm, f.BLK_PERM_ALL)
    change(disk, compat="0.10", size=SIZE)
    assert (state_of(disk).version, disk.length) == (2, SIZE)


def with_snapshots(disk: BlockBackend, size: int) -> dict[str, bytes]:
    """Snapshots that share tables and clusters, zero ones too; what each of them holds."""
    assert disk.bs is not None
    seen = {}
    cluster = state_of(disk).cluster_size
    disk.pwrite(0, b"x" * 8 * cluster)
    disk.pwrite_zeroes(cluster, cluster)  # keeps its place
    disk.pwrite_zeroes(20 * cluster, 2 * cluster)
    for name in ("a", "b"):
        snapshot.create(disk.bs, snapshot.SnapshotInfo(name))
        seen[name] = disk.pread(0, size)
    disk.pwrite_zeroes(2 * cluster, cluster)  # the place is the snapshots', too
    snapshot.create(disk.bs, snapshot.SnapshotInfo("c"))
    seen["c"] = disk.pread(0, size)
    disk.pwrite(cluster, b"y" * cluster)
    seen[""] = disk.pread(0, size)
    return seen


@pytest.mark.parametrize("backing", [False, True])
def test_snapshots_go_back_to_version_2_too(tmp_path: Path, opener: Opener, backing: bool) -> None:
    base, top = tmp_path / "base", tmp_path / "top"
    base.write_bytes(b"b" * SIZE)
    options = {"backing_file": "base", "backing_fmt": "raw"} if backing else {}
    block.create(os.fspath(top), "qcow2", SIZE, **options)
    disk = opener(top)
    seen = with_snapshots(disk, SIZE)
    said = change(disk, compat="0.10")
    assert said[-1][0] == said[-1][1]
    disk.close()
    assert check(top) == CLEAN
    for name in sorted(seen):  # the disk itself first: a snapshot takes its place
        disk = opener(top)
        assert disk.bs is not None
        if name:
            snapshot.goto(disk.bs, name)
        assert disk.pread(0, SIZE) == seen[name], name
        disk.close()
        assert check(top) == CLEAN


@pytest.mark.parametrize("backing", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_power_cut_while_snapshots_are_downgraded(
    tmp_path: Path, backing: bool, shuffle: bool
) -> None:
    tape = tape_over(tmp_path, backing)
    with open_on(tape) as disk:
        seen = with_snapshots(disk, TAPE_SIZE)[""]
        disk.flush()
        start = len(tape.writes)
        change(disk, compat="0.10")
    cut_all(tape, start, 20, shuffle, tmp_path, seen)
