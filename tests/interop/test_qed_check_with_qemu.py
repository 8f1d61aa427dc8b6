# SPDX-License-Identifier: GPL-2.0-only
"""Damaged and dirty qed images: each program finds and repairs what the other has left."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import block
from block.core.backend import BlockBackend
from block.core.check import FIX_ERRORS, BdrvCheckResult, check
from tests.support.qed_disk import NEED_CHECK, field, opened_for_check, poke
from tests.support.qemu_tools import holds, is_clean, qemu

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]


def ours(path: Path) -> BlockBackend:
    return block.open(os.fspath(path), format="qed", cache="unsafe")


DAMAGES: dict[str, Callable[[Path, int, int], None]] = {
    "nothing": lambda path, l1, l2: None,
    "entry behind the end": lambda path, l1, l2: poke(path, l2 + 8, 1 << 40),
    "entry that is odd": lambda path, l1, l2: poke(path, l2 + 16, 0x50200),
    "entry in the header": lambda path, l1, l2: poke(path, l2 + 16, 2),
    "entry lost": lambda path, l1, l2: poke(path, l2 + 24, 0),
    "two entries, one cluster": lambda path, l1, l2: poke(path, l2 + 32, entry_at(path, l2)),
    "data in the L2 table": lambda path, l1, l2: poke(path, l2 + 32, l2),
    "data in the L1 table": lambda path, l1, l2: poke(path, l2 + 32, l1),
    "table behind the end": lambda path, l1, l2: poke(path, l1, 1 << 40),
    "table that is odd": lambda path, l1, l2: poke(path, l1, l2 + 512),
    "table used twice": lambda path, l1, l2: poke(path, l1 + 8, l2),
    "table behind the disk": lambda path, l1, l2: poke(path, l1 + 8 * 5000, 1 << 40),
    "end cut off": lambda path, l1, l2: os.truncate(path, path.stat().st_size - 3 * 65536),
    "end too long": lambda path, l1, l2: os.truncate(path, path.stat().st_size + 5 * 65536 + 9),
}


def entry_at(path: Path, offset: int) -> int:
    value: int = struct.unpack_from("<Q", path.read_bytes(), offset)[0]
    return value


def damaged(path: Path, damage: str) -> None:
    """An image of some data and tables, hurt."""
    if path.exists():
        path.unlink()
    block.create(os.fspath(path), "qed", 4 << 30)
    with ours(path) as disk:
        for offset in (0, 65536, 131072, 3 << 16, 7 << 16, 3 << 30, (3 << 30) + (5 << 16)):
            disk.pwrite(offset, b"d" * 65536)
    l1 = field(path.read_bytes(), "l1_table_offset")
    DAMAGES[damage](path, l1, entry_at(path, l1))
    poke(path, "features", NEED_CHECK)


def as_json(result: BdrvCheckResult) -> dict[str, int]:
    """The numbers of `qemu-img check --output=json`, without those that are not told when 0."""
    told = {
        "corruptions": result.corruptions,
        "corruptions-fixed": result.corruptions_fixed,
        "leaks": result.leaks,
        "check-errors": result.check_errors,
        "total-clusters": result.bfi.total_clusters,
        "allocated-clusters": result.bfi.allocated_clusters,
        "fragmented-clusters": result.bfi.fragmented_clusters,
    }
    return {name: value for name, value in told.items() if value}


def qemu_found(path: Path, *repair: str) -> dict[str, int]:
    done = qemu("qemu-img", "check", "-f", "qed", *repair, "--output=json", path)
    found = json.loads(done.stdout)
    numbers = {name: value for name, value in found.items() if isinstance(value, int)}
    return {name: value for name, value in numbers.items() if value}


@pytest.mark.parametrize("damage", DAMAGES)
def test_check_and_repair_agree_with_qemu_img(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "bad.qed"
    damaged(path, damage)
    with opened_for_check(path, read_only=True) as disk:
        assert as_json(check(disk.bs)) == qemu_found(path)
    with opened_for_check(path) as disk:
        result = check(disk.bs, FIX_ERRORS)
    mine = path.read_bytes()
    damaged(path, damage)
    theirs = qemu_found(path, "-r", "all")
    # After a repair qemu-img checks once more, and tells of that what was not repaired.
    assert result.corruptions_fixed == theirs.get("corruptions-fixed", 0)
    assert mine[64:] == path.read_bytes()[64:]
    still_dirty = bool(field(mine, "features"))
    assert still_dirty == bool(result.corruptions), "QEMU clears the bit in any case"


WORKER = """
import os, sys, time
import block
disk = block.open(sys.argv[1], format="qed", cache="writeback")
for cluster in range(0, 64, 3):
    disk.pwrite(cluster << 16, bytes([cluster + 1]) * 65536)
disk.flush()
disk.pwrite(1 << 16, b"z" * 65536)
print("ready", flush=True)
time.sleep(60)
"""


def left_by_us(path: Path) -> None:
    """Written by our driver in a process that is killed."""
    command = [sys.executable, "-c", WORKER, os.fspath(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        worker.send_signal(signal.SIGKILL)


def left_by_qemu(path: Path) -> None:
    words = [w for c in range(0, 64, 3) for w in ("-c", f"write -P {c + 1} {c << 16} 64k")]
    words += ["-c", "flush", "-c", "write -P 122 64k 64k", "-c", "sigraise 9"]
    done = qemu("qemu-io", "-f", "qed", *words, path)
    assert done.returncode == -signal.SIGKILL


def qemu_repairs(path: Path) -> None:
    assert qemu("qemu-img", "check", "-f", "qed", "-r", "all", path).returncode in (0, 3)


def we_repair(path: Path) -> None:
    ours(path).close()


@pytest.mark.parametrize("repair", [qemu_repairs, we_repair])
@pytest.mark.parametrize("leave", [left_by_us, left_by_qemu])
@pytest.mark.parametrize("torn", [False, True], ids=["whole", "its end lost"])
def test_what_was_left_dirty_by_one_is_repaired_by_the_other(
    tmp_path: Path, leave: Callable[[Path], None], repair: Callable[[Path], None], torn: bool
) -> None:
    path = tmp_path / "left.qed"
    block.create(os.fspath(path), "qed", 4 << 20)
    leave(path)
    assert field(path.read_bytes(), "features") == NEED_CHECK
    if torn:  # what a power cut does to the last write, which no flush had made safe
        os.truncate(path, path.stat().st_size - 65536)
    repair(path)
    assert field(path.read_bytes(), "features") == 0
    is_clean(path, "qed")
    expected = bytearray(4 << 20)
    for cluster in range(0, 64, 3):
        expected[cluster << 16 : (cluster + 1) << 16] = bytes([cluster + 1]) * 65536
    expected[1 << 16 : 2 << 16] = bytes(65536) if torn else b"z" * 65536
    holds(path, expected, "qed")
    with ours(path) as disk:
        assert disk.pread(0, 4 << 20) == expected
