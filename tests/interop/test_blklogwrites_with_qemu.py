# SPDX-License-Identifier: GPL-2.0-only
"""QEMU writes the same log, byte for byte; each goes on with the other's; ours replays both."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from block.ops.replay_log import ReplayLog
from tests.support import needs

pytestmark = pytest.mark.full
SIZE = 1 << 20
PROGRAM = Path(__file__).parents[2] / "bin" / "miniqemu-io"


class Pair:
    """A raw file and its log, which qemu-io or miniqemu-io work on."""

    def __init__(self, folder: Path, name: str) -> None:
        self.raw, self.log = folder / f"{name}.raw", folder / f"{name}.log"
        self.raw.write_bytes(bytes(SIZE))
        self.log.write_bytes(b"")

    def run(self, ours: bool, commands: list[str], options: str = "") -> None:
        program = [sys.executable, os.fspath(PROGRAM)] if ours else [needs.program("qemu-io")]
        node = (
            f"driver=blklogwrites,file.driver=file,file.filename={self.raw},"
            f"log.driver=file,log.filename={self.log}{options}"
        )
        words = [word for command in commands for word in ("-c", command)]
        done = subprocess.run(
            [*program, "-t", "writeback", "-d", "unmap", *words, "--image-opts", node],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def replayed(self) -> bytes:
        log = ReplayLog.open(os.fspath(self.log))
        image = self.raw.with_suffix(".replay")
        image.write_bytes(bytes(SIZE))
        with image.open("r+b") as file:
            log.replay(log.entries, file)
        return image.read_bytes()


def commands(seed: int) -> list[str]:
    """Random work in which each flush has something to make safe, as QEMU logs no other."""
    pick = random.Random(seed)
    made = []
    for _ in range(25):
        offset = pick.randrange(0, SIZE - 65536)
        sectors = 512 * (offset // 512), 512 * pick.randint(1, 60)
        made.append(
            pick.choice(
                (
                    f"write -P {pick.randrange(1, 255)} {offset} {pick.randint(1, 30000)}",
                    "write -z {} {}".format(*sectors),
                    "discard {} {}".format(*sectors),
                )
            )
        )
        if pick.random() < 0.3:
            made.append("flush")
    return [*made, "flush"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [512, 4096])
def test_the_same_work_leaves_the_same_log(tmp_path: Path, size: int, seed: int) -> None:
    work = [word for word in commands(seed) if size == 512 or not word.startswith("discard")]
    pairs = Pair(tmp_path, "ours"), Pair(tmp_path, "theirs")
    for pair, ours in zip(pairs, (True, False), strict=True):
        pair.run(ours, work, f",log-sector-size={size}")
    assert pairs[0].log.read_bytes() == pairs[1].log.read_bytes()
    assert pairs[0].replayed() == pairs[0].raw.read_bytes() == pairs[1].raw.read_bytes()


@pytest.mark.parametrize("ours_first", [True, False])
def test_each_goes_on_with_the_log_of_the_other(tmp_path: Path, ours_first: bool) -> None:
    pair = Pair(tmp_path, "shared")
    pair.run(ours_first, commands(10))
    before = len(ReplayLog.open(os.fspath(pair.log)).entries)
    pair.run(not ours_first, commands(11), ",log-append=on")
    pair.run(ours_first, commands(12), ",log-append=on")
    assert len(ReplayLog.open(os.fspath(pair.log)).entries) > before + 40
    assert pair.replayed() == pair.raw.read_bytes()
