# SPDX-License-Identifier: GPL-2.0-only
"""Checking and repairing: what is found, what is mended, and what a repair never touches."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import block
from block.core import check as core
from block.core.edge import BdrvChild
from block.core.error import BlockError
from block.formats.qcow2.layout import OFLAG_COPIED, REFCOUNT_TABLE_AT
from tests.block.formats.qcow2.conftest import Opener
from tests.support.drivers import Outcome
from tests.support.qcow2_damage import (
    CLUSTER,
    DAMAGES,
    REFBLOCK,
    SIZE,
    Image,
    counts,
    make_damaged,
    make_whole,
    run_check,
)
from tests.support.qcow2_disk import Tape, open_on

LEAKS, ALL = core.FIX_LEAKS, core.FIX_LEAKS | core.FIX_ERRORS


def what_is_seen(path: Path) -> bytes:
    with block.open(os.fspath(path), format="qcow2", read_only=True) as disk:
        return disk.pread(0, SIZE)


# -- the table of damages


@pytest.mark.parametrize("name", DAMAGES)
def test_a_check_finds_what_there_is_and_changes_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.qcow2"
    make_damaged(path, name)
    before = path.read_bytes()
    result, lines = run_check(path)
    assert counts(result) == DAMAGES[name].found
    assert bool(lines) == any(DAMAGES[name].found)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", DAMAGES)
def test_a_repair_of_all_leaves_a_clean_image_with_the_same_data(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.qcow2"
    damage, seen = DAMAGES[name], make_damaged(path, name)
    result, _ = run_check(path, ALL)
    assert result.corruptions_fixed + result.leaks_fixed > 0 or not (
        damage.mended and any(damage.found)
    )
    again, _ = run_check(path)
    assert again.leaks == again.check_errors == 0
    assert (again.corruptions == 0) == damage.mended
    assert counts(again) == counts(result), "what is told to be mended is mended"
    if damage.same_data:
        assert what_is_seen(path) == seen
    if damage.mended:
        assert path.read_bytes()[72:80] == bytes(8), "neither dirty nor corrupt"


def test_leaks_are_given_back_without_touching_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    make_damaged(path, "an entry is gone")
    before = path.read_bytes()
    result, lines = run_check(path, LEAKS)
    assert lines == [
        "Leaked cluster 14 refcount=1 reference=0",
        "Repairing cluster 14 refcount=1 reference=0",
    ]
    assert (result.leaks, result.leaks_fixed, result.corruptions_fixed) == (0, 1, 0)
    after = bytearray(path.read_bytes())
    after[REFBLOCK + 2 * 14 : REFBLOCK + 2 * 15] = b"\0\1"
    assert after[: 14 * CLUSTER] == before[: 14 * CLUSTER]
    assert not any(after[14 * CLUSTER :]), "the file system has the room again"


def test_a_repair_of_leaks_does_not_touch_what_needs_new_tables(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    make_damaged(path, "a refcount is 0")
    before = path.read_bytes()
    with pytest.raises(BlockError, match="must be rebuilt"):
        run_check(path, LEAKS)
    assert path.read_bytes() == before


def test_findings_are_said_as_qemu_says_them(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    make_damaged(path, "a refcount is 0")
    _, lines = run_check(path)
    assert lines == [
        "ERROR cluster 6 refcount=0 reference=1",
        "ERROR OFLAG_COPIED data cluster: l2_entry=8000000000060000 refcount=0",
    ]


def test_without_a_listener_findings_go_to_standard_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.qcow2"
    make_damaged(path, "an entry is gone")
    with block.open(os.fspath(path), format="qcow2", read_only=True) as disk:
        assert disk.bs is not None
        assert core.check(disk.bs).leaks == 1
    assert capfd.readouterr().err == "Leaked cluster 14 refcount=1 reference=0\n"


def test_one_shared_cluster_in_a_long_run_is_found(image: Path, opener: Opener) -> None:
    """Eight clusters in order, from guest cluster 40 on; the fourth looks shared."""
    with opener() as disk:
        disk.pwrite(40 * CLUSTER, b"x" * 8 * CLUSTER)
    broken = Image(image)
    broken.refcount(8, 2)
    broken.save()
    result, lines = run_check(image)
    assert lines == [
        "Leaked cluster 8 refcount=2 reference=1",
        "ERROR OFLAG_COPIED data cluster: l2_entry=8000000000080000 refcount=2",
    ]
    assert (result.bfi.allocated_clusters, result.bfi.fragmented_clusters) == (8, 0)
    assert counts(run_check(image, LEAKS)[0]) == (0, 0, 0)
    broken.entry(43, 8 * CLUSTER)
    broken.refcount(8, 1)
    broken.save()
    result, lines = run_check(image, ALL)
    assert lines == ["Repairing OFLAG_COPIED data cluster: l2_entry=80000 refcount=1"]
    assert Image(image).data[4 * CLUSTER + 8 * 43] == 0x80, "the flag is set"


def test_how_the_clusters_are_filled(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    make_whole(path)
    image = Image(path)
    last, first = image.get(4 * CLUSTER + 8 * 18), image.get(4 * CLUSTER)
    image.entry(0, last)
    image.entry(18, first)
    image.save()
    result, _ = run_check(path)
    bfi = result.bfi
    assert (bfi.total_clusters, bfi.allocated_clusters) == (SIZE // CLUSTER, 10)
    assert (bfi.fragmented_clusters, bfi.compressed_clusters) == (2, 0)
    assert result.image_end_offset == 15 * CLUSTER


# -- dirty and corrupt


def test_a_dirty_image_is_repaired_when_it_is_opened_for_writing(
    tmp_path: Path, opener: Opener, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.qcow2"
    seen = make_damaged(path, "marked dirty, and refcounts are old")
    opener(path, read_only=True).close()
    assert path.read_bytes()[79] == 1, "who only reads repairs nothing"
    with opener(path) as disk:
        disk.pwrite(SIZE - CLUSTER, b"new" * 1000)
        assert disk.pread(0, 20 * CLUSTER) == seen[: 20 * CLUSTER]
    assert "Rebuilding refcount structure" in capfd.readouterr().err
    assert path.read_bytes()[79] == 0
    assert counts(run_check(path)[0]) == (0, 0, 0)


def test_a_dirty_image_that_cannot_be_repaired_is_not_opened_for_writing(
    tmp_path: Path, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.qcow2"
    make_damaged(path, "marked dirty, and refcounts are old")

    async def no_flush(self: BdrvChild) -> None:
        raise BlockError(5, "the disk is gone")

    with monkeypatch.context() as broken:
        broken.setattr(BdrvChild, "co_flush", no_flush)
        with pytest.raises(BlockError, match="Could not repair dirty image: the disk is gone"):
            opener(path)
    assert path.read_bytes()[79] == 1


def test_an_open_dirty_image_does_not_become_writable(tmp_path: Path, opener: Opener) -> None:
    from block.core.reopen import set_read_only

    path = tmp_path / "a.qcow2"
    make_damaged(path, "marked dirty")
    disk = opener(path, read_only=True)
    assert disk.bs is not None
    with pytest.raises(BlockError, match="a dirty image must be repaired first"):
        set_read_only(disk.bs, False)


def test_a_disk_in_use_can_be_checked_and_goes_on(image: Path, opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, b"a" * CLUSTER)
    assert disk.bs is not None
    assert counts(core.check(disk.bs)) == (0, 0, 0), "what waits in the caches is written first"
    disk.pwrite(CLUSTER, b"b" * CLUSTER)
    assert counts(core.check(disk.bs, ALL)) == (0, 0, 0)
    disk.pwrite(3 * CLUSTER, b"c" * CLUSTER)
    disk.close()
    assert counts(run_check(image)[0]) == (0, 0, 0)
    assert what_is_seen(image)[: 4 * CLUSTER] == b"".join(
        byte * CLUSTER for byte in (b"a", b"b", b"\0", b"c")
    )


# -- new tables


def test_what_a_write_on_its_way_has_taken_is_no_leak(image: Path) -> None:
    tape, outcome = Tape(image.read_bytes()), Outcome()
    with open_on(tape) as disk:
        assert disk.bs is not None
        tape.parked = True
        disk.aio_pwritev(0, [memoryview(b"x" * CLUSTER)], outcome)
        tape.parked = False  # whatever comes later passes by
        disk.aio_context.bh_schedule_oneshot(tape.release)
        result = core.check(disk.bs, LEAKS)
        assert (outcome.ret, result.leaks_fixed) == (0, 0)
        disk.pwrite(CLUSTER, b"y" * CLUSTER)
        assert disk.pread(0, CLUSTER) == b"x" * CLUSTER


def test_the_old_tables_stay_until_the_header_names_the_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The switch fails: the image is as it was, with something behind its end."""
    path = tmp_path / "a.qcow2"
    make_damaged(path, "all refcounts of data are 0")
    before = path.read_bytes()
    write = BdrvChild.co_pwritev
    written: list[int] = []

    async def all_but_the_switch(
        self: BdrvChild, offset: int, nbytes: int, qiov: list[memoryview], flags: int = 0
    ) -> None:
        if offset == REFCOUNT_TABLE_AT:
            raise BlockError(5, "power failure")
        written.append(offset)
        await write(self, offset, nbytes, qiov, flags)

    with monkeypatch.context() as broken:
        broken.setattr(BdrvChild, "co_pwritev", all_but_the_switch)
        with pytest.raises(BlockError, match="power failure"):
            run_check(path, ALL)
    assert written, "new tables were written"
    assert path.read_bytes()[: len(before)] == before
    assert run_check(path)[0].corruptions == 20


def test_new_tables_do_not_lie_where_an_entry_points_to(tmp_path: Path) -> None:
    """Not even where the entry points behind the end of the file."""
    path = tmp_path / "a.qcow2"
    make_whole(path)
    image = Image(path)
    image.entry(0, 15 * CLUSTER | OFLAG_COPIED)
    image.refcount(8, 0)
    image.save()
    run_check(path, ALL)
    table = Image(path).get(REFCOUNT_TABLE_AT)
    assert table > 16 * CLUSTER
    assert Image(path).get(table) != 15 * CLUSTER


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("cluster_size", [512, 4096])
def test_all_widths_of_refcounts_are_checked_and_built_anew(
    tmp_path: Path, bits: int, cluster_size: int
) -> None:
    path = tmp_path / "a.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, refcount_bits=bits, cluster_size=cluster_size)
    rng = random.Random(bits)
    data = bytearray(SIZE)
    with block.open(os.fspath(path), format="qcow2", cache="unsafe") as disk:
        for _ in range(30):
            offset = rng.randrange(SIZE - 50000)
            piece = rng.randbytes(rng.randrange(1, 50000))
            disk.pwrite(offset, piece)
            data[offset : offset + len(piece)] = piece
    assert counts(run_check(path)[0]) == (0, 0, 0)
    image = Image(path)
    table = image.get(REFCOUNT_TABLE_AT)
    image.put(table, 0)
    image.save()
    result, lines = run_check(path, ALL)
    assert "Rebuilding refcount structure" in lines
    assert counts(result) == counts(run_check(path)[0]) == (0, 0, 0)
    assert what_is_seen(path) == data


def test_a_count_that_does_not_fit_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, refcount_bits=1)
    with block.open(os.fspath(path), format="qcow2") as disk:
        disk.pwrite(0, b"x" * 2 * CLUSTER)
    image = Image(path)
    image.entry(1, image.get(4 * CLUSTER))
    image.save()
    result, lines = run_check(path)
    assert lines[0] == "ERROR: overflow cluster offset=0x50000"
    assert (result.corruptions, result.leaks) == (1, 1)


# -- the price


def test_a_sparse_terabyte_costs_what_its_data_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.qcow2"
    block.create(os.fspath(path), "qcow2", 1 << 40)
    with block.open(os.fspath(path), format="qcow2", cache="unsafe") as disk:
        for place in (0, 1 << 39, (1 << 40) - CLUSTER):
            disk.pwrite(place, b"x" * CLUSTER)
    reads: list[int] = []
    read = BdrvChild.co_preadv

    def noted(self: BdrvChild, offset: int, nbytes: int, *rest: object) -> object:
        reads.append(nbytes)
        return read(self, offset, nbytes, *rest)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(BdrvChild, "co_preadv", noted)
    result, _ = run_check(path)
    assert result.bfi.allocated_clusters == 3
    assert len(reads) <= 20
