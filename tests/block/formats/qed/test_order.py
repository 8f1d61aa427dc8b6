# SPDX-License-Identifier: GPL-2.0-only
"""What is written before what: an image that a power cut leaves is repaired when it is opened, has
leaks at most, and holds all that was flushed. A write that fails loses nothing but itself."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest

import block
from block.core import flags as f
from block.core.check import BdrvCheckResult, check
from block.core.error import BlockError
from block.core.open import open_backend
from tests.support.qcow2_disk import FLUSH, Flushed, Tape
from tests.support.qcow2_work import Work
from tests.support.qed_disk import NEED_CHECK, field, new_image, opened, opened_for_check

SIZE = (1 << 20) + 3 * 512
CLUSTER = 4096


def record(tape: Tape, work: Work, count: int, **options: Any) -> Flushed:
    """Does random work on an image over the tape."""
    safe = Flushed(work.size)
    safe.moments = [(0, bytes(work.model))]
    with opened(tape, **options) as disk:
        for op in work.ops(count):
            before = len(tape.writes)
            if op.what == "write":
                disk.pwrite(op.offset, bytes([op.pattern]) * op.nbytes)
            elif op.what in ("zeroes", "unmap"):
                disk.pwrite_zeroes(op.offset, op.nbytes)
            elif op.what in ("flush", "discard"):
                disk.flush()
                safe.moments.append((len(tape.writes), bytes(work.model)))
                continue
            else:
                continue
            work.note(op)
            safe.changed.append((before, op.offset, op.offset + op.nbytes))
    return safe


def found(path: Path, fix: int = 0) -> BdrvCheckResult:
    with opened_for_check(path, read_only=not fix) as disk:
        assert disk.bs is not None
        return check(disk.bs, fix)


def opens_with_all_that_was_flushed(path: Path, safe: Flushed, at: int) -> None:
    if not field(path.read_bytes(), "features") & NEED_CHECK:
        assert found(path).corruptions == 0, "an image that says it is clean is not"
    with block.open(os.fspath(path), format="qed", cache="unsafe") as disk:
        safe.compare(at, disk.pread(0, SIZE))
    result = found(path)
    assert (result.corruptions, result.check_errors) == (0, 0)


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "late writes lost"])
@pytest.mark.parametrize("backing", [False, True], ids=["alone", "overlay"])
@pytest.mark.parametrize("table_size", [1, 4])
def test_a_power_cut_leaves_leaks_at_most_and_what_was_flushed(
    tmp_path: Path, table_size: int, backing: bool, shuffle: bool
) -> None:
    options: dict[str, Any] = {"cluster_size": CLUSTER, "table_size": table_size}
    base = b""
    if backing:
        base = random.Random(1).randbytes(SIZE)
        (tmp_path / "base.raw").write_bytes(base)
        options.update(backing_file=os.fspath(tmp_path / "base.raw"), backing_fmt="raw")
    tape = Tape(new_image(tmp_path, SIZE, **options))
    seed = 4 * table_size + 2 * backing + shuffle
    safe = record(tape, Work(seed, SIZE, CLUSTER, base), 80)
    source = random.Random(seed)
    path = tmp_path / "cut.qed"
    for at in sorted(source.sample(range(len(tape.writes) + 1), 25)):
        path.write_bytes(tape.cut(at, source, shuffle))
        opens_with_all_that_was_flushed(path, safe, at)


# -- writes that fail


EVENTS = ["cow_write", "write_aio", "l2_load", "l2_update", "l1_update", "flush"]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("backing", [False, True], ids=["alone", "overlay"])
def test_a_write_that_fails_loses_only_itself(tmp_path: Path, event: str, backing: bool) -> None:
    """blkdebug lets each step of an allocation fail once; the guest tries again."""
    options: dict[str, object] = {"cluster_size": CLUSTER, "table_size": 1}
    if backing:
        (tmp_path / "base.raw").write_bytes(bytes(SIZE))
        options.update(backing_file=os.fspath(tmp_path / "base.raw"), backing_fmt="raw")
    image = tmp_path / "new.qed"
    new_image(tmp_path, 4 << 20, **options)
    with block.open(os.fspath(image), format="qed") as disk:
        disk.pwrite(0, b"a" * CLUSTER)
    failed = write_with_failures(image, event)
    assert failed, f"{event} never failed"
    with block.open(os.fspath(image), format="qed") as disk:
        for number, offset in enumerate(OFFSETS):
            assert disk.pread(offset, 600) == bytes([number + 1]) * 600
        assert disk.pread(0, 512) == b"a" * 512
    result = found(image)
    assert (result.corruptions, result.check_errors) == (0, 0)


OFFSETS = (CLUSTER + 512, 3 * CLUSTER, (2 << 20) + 512, (2 << 20) + 5 * CLUSTER)


def write_with_failures(image: Path, event: str) -> int:
    """Writes to new clusters until it works; returns how often it did not."""
    rule = {"event": "none", "iotype": "flush"} if event == "flush" else {"event": event}
    options = {
        "driver": "qed",
        "file": {
            "driver": "blkdebug",
            "image": {"driver": "file", "filename": os.fspath(image)},
            "inject-error": [{**rule, "once": True, "errno": errno.ENOSPC}],
        },
    }
    failed = 0
    disk = open_backend(options=options, flags=f.BDRV_O_RDWR)
    try:
        for number, offset in enumerate(OFFSETS):
            for _ in range(3):
                try:
                    disk.pwrite(offset, bytes([number + 1]) * 600)
                    break
                except BlockError as error:
                    failed += error.errno == errno.ENOSPC
    finally:
        disk.unref()
    return failed


def test_what_failed_before_its_entry_takes_no_room(tmp_path: Path) -> None:
    tape = Tape(new_image(tmp_path, SIZE, cluster_size=CLUSTER))
    with opened(tape) as disk:
        disk.pwrite(0, b"x" * CLUSTER)
        length = len(tape.data)
        disk.flush()
        tape.errors["pwritev"] = BlockError(errno.EIO, "gone")
        with pytest.raises(BlockError, match="gone"):
            disk.pwrite(CLUSTER, b"y" * CLUSTER)
        tape.errors.clear()
        disk.pwrite(CLUSTER, b"z" * CLUSTER)
        assert len(tape.data) == length + CLUSTER


def test_what_a_failed_write_left_is_written_over_before_an_entry_points_there(
    tmp_path: Path,
) -> None:
    """Else a power cut may keep the entry alone, and show it."""
    tape = Tape(new_image(tmp_path, SIZE, cluster_size=CLUSTER))
    with opened(tape) as disk:
        disk.pwrite(0, b"x" * CLUSTER)
        place = len(tape.data)
        tape.bad_place, tape.keeps = place, True
        with pytest.raises(BlockError, match="torn"):
            disk.pwrite(CLUSTER, b"y" * CLUSTER)
        tape.writes.clear()
        disk.pwrite(2 * CLUSTER, b"z" * CLUSTER)
        assert tape.writes[:2] == [(place, b"z" * CLUSTER), FLUSH]
        tape.writes.clear()
        disk.pwrite(3 * CLUSTER, b"w" * CLUSTER)
        assert FLUSH not in tape.writes, "behind that there is nothing"


def test_an_entry_that_failed_and_is_there_all_the_same_is_found(tmp_path: Path) -> None:
    """Zeroes for a zero cluster are no work; for one with data they are."""
    tape = Tape(new_image(tmp_path, SIZE, cluster_size=CLUSTER))
    with opened(tape) as disk:
        disk.pwrite_zeroes(0, CLUSTER)
        tape.writes_left, tape.keeps = 1, True
        with pytest.raises(BlockError, match="torn"):
            disk.pwrite(0, b"x" * CLUSTER)  # the data, then the entry
        tape.writes_left = None
        disk.pwrite_zeroes(0, CLUSTER)
    path = tmp_path / "again.qed"
    path.write_bytes(tape.data)
    with block.open(os.fspath(path), format="qed", cache="unsafe") as disk:
        assert disk.pread(0, CLUSTER) == bytes(CLUSTER)


def test_after_a_failed_entry_a_second_write_allocates_again(tmp_path: Path) -> None:
    """QEMU 7.2 takes the cluster for allocated, writes in place, and the data are lost."""
    image = tmp_path / "new.qed"
    new_image(tmp_path, 4 << 20, cluster_size=CLUSTER)
    with block.open(os.fspath(image), format="qed") as disk:
        disk.pwrite(0, b"a" * CLUSTER)
    assert write_with_failures(image, "l2_update") == 1
    with block.open(os.fspath(image), format="qed") as disk:
        assert disk.pread(OFFSETS[0], 600) == b"\1" * 600


def test_the_copied_bytes_are_safe_before_an_entry_points_to_them(tmp_path: Path) -> None:
    tape = Tape(new_image(tmp_path, SIZE, cluster_size=CLUSTER))
    with opened(tape, backing={"driver": "null-co", "read-zeroes": True}) as disk:
        disk.pwrite(0, b"x" * CLUSTER)
        tape.writes.clear()
        disk.pwrite(CLUSTER + 512, b"y" * 512)
    (_, data), flush, (_, table), *_ = tape.writes
    assert (len(data), flush, len(table)) == (CLUSTER, FLUSH, 512)
