# SPDX-License-Identifier: GPL-2.0-only
"""Internal snapshots: what a failed request leaves, and what a power cut."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

import block
from block.core import check as core
from block.core import snapshot
from block.core.backend import BlockBackend
from block.core.error import BlockError
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.block.formats.qcow2.test_snapshots import clean, make, names
from tests.support.qcow2_damage import run_check
from tests.support.qcow2_disk import FLUSH, Tape, open_on
from tests.support.qcow2_tables import first_l2
from tests.support.snapshots import CLUSTER as SMALL
from tests.support.snapshots import LONGEST, Kept, Step, do, node_of


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
            unchanged = not state_of(disk).broken and (
                len(names(disk)) == 2 and disk.pread(0, LONGEST) == kept.disk
            )
        number += 1
        judge(tmp_path, bytes(tape.data), kept, what)
        if not torn and unchanged and tape.failed_at is not None and tape.failed_at >= SMALL:
            (tmp_path / "cut.qcow2").write_bytes(tape.data)
            clean(tmp_path / "cut.qcow2")
    assert number > 3, "there were some writes"


@pytest.mark.parametrize("what", ["goto", "delete"])
def test_what_cannot_be_freed_behind_it_is_no_failure(
    tmp_path: Path, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whoever hears of one, and goes on, would have another disk than he thinks."""
    start, kept = small_image(tmp_path)
    tape = Tape(start)
    with open_on(tape) as disk:
        real = tape.note

        async def fail_behind(name: str, *args: object) -> None:
            await real(name, *args)
            if name == "preadv" and bytes(tape.data[:72]) != start[:72]:
                raise BlockError(errno.EIO, "bad sector")

        tape.note = fail_behind  # type: ignore[method-assign]  # fails once the header is another
        change(disk, what)
        tape.note = real  # type: ignore[method-assign]  # it is whole again
        said = "qcow2: not all that nobody needs any more is freed: bad sector"
        assert said in capfd.readouterr().err
        assert disk.pread(0, LONGEST) == (kept.snapshots["s1"] if what == "goto" else kept.disk)
    judge(tmp_path, bytes(tape.data), kept, what)


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
        l2, refblock = first_l2(disk), state_of(disk).reftable[0]
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
