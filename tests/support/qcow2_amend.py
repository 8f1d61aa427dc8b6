# SPDX-License-Identifier: GPL-2.0-only
"""For tests of amend: an image with something of everything, a change, power cuts meanwhile."""

from __future__ import annotations

import os
import random
from pathlib import Path

from block.core.backend import BlockBackend
from block.ops.amend import amend
from tests.support.qcow2_cuts import CLEAN, LEAKS, check, plain
from tests.support.qcow2_disk import Tape


def change(disk: BlockBackend, **options: object) -> list[tuple[int, int]]:
    """Amends; what was said about the progress."""
    said: list[tuple[int, int]] = []
    assert disk.bs is not None
    amend(disk.bs, options, lambda done, total: said.append((done, total)))
    return said


def fill(disk: BlockBackend, size: int) -> bytes:
    """Data, holes and zeroes; what the guest sees."""
    seen = bytearray(size)
    for start, length in ((0, 70000), (size // 3, 200000), (size - 512, 512)):
        data = os.urandom(length)
        disk.pwrite(start, data)
        seen[start : start + length] = data
    disk.pwrite_zeroes(4096, 8192)
    seen[4096:12288] = bytes(8192)
    disk.pwrite_zeroes(size // 2, 65536)
    seen[size // 2 : size // 2 + 65536] = bytes(65536)
    return bytes(seen)


def cut_all(tape: Tape, start: int, cuts: int, shuffle: bool, folder: Path, seen: bytes) -> None:
    """Cuts at some moments from `start` on, and at the last ones: at worst leaks, and the guest's
    data are there."""
    source, path = random.Random(start), folder / "cut.qcow2"
    moments = range(start, len(tape.writes) + 1)
    chosen = {*source.sample(moments, min(cuts, len(moments))), *moments[-6:]}
    for at in sorted(chosen):
        path.write_bytes(tape.cut(at, source, shuffle))
        assert check(path) in (CLEAN, LEAKS)
        assert plain(path, folder) == seen
