# SPDX-License-Identifier: GPL-2.0-only
"""preallocate, ours and the real qemu-io's: the same writes make files of the same length."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

import pytest

import block
from tests.support import needs
from tests.support.qemu_tools import qemu_done

pytestmark = pytest.mark.full

MIB = 1 << 20
CLUSTER = 65536
Step = tuple[str, int, int]  # write, zero or truncate; offset; bytes


class Theirs:
    """qemu-io with an image, told one command after the other."""

    def __init__(self, options: dict[str, object]) -> None:
        # Without stdbuf it would keep what it says until the end.
        command = [needs.program("stdbuf"), "-o0", needs.program("qemu-io")]
        self.process = subprocess.Popen(
            [*command, "json:" + json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        self.wait_for_prompt()

    def wait_for_prompt(self) -> None:
        assert self.process.stdout is not None
        said = b""
        while not said.endswith(b"qemu-io> "):
            byte = self.process.stdout.read(1)
            assert byte, f"qemu-io has ended: {said!r}"
            said += byte

    def do(self, step: Step) -> None:
        kind, offset, nbytes = step
        word = {"write": "write -q", "zero": "write -q -z", "truncate": "truncate"}[kind]
        line = f"{word} {offset}" if kind == "truncate" else f"{word} {offset} {nbytes}"
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.wait_for_prompt()

    def close(self) -> None:
        self.process.communicate(b"quit\n", timeout=60)


class Ours:
    """The same of ours."""

    def __init__(self, options: dict[str, object]) -> None:
        self.disk = block.open(options=options)

    def do(self, step: Step) -> None:
        kind, offset, nbytes = step
        if kind == "write":
            self.disk.pwrite(offset, b"\xcd" * nbytes)
        elif kind == "zero":
            self.disk.pwrite_zeroes(offset, nbytes)
        else:
            self.disk.truncate(offset)

    def close(self) -> None:
        self.disk.close()


def lengths(image: Path, top: str, steps: list[Step], worker: type[Theirs | Ours]) -> list[int]:
    """The file's length before, after each step, and after closing."""
    below: dict[str, object] = {
        "driver": "preallocate", "prealloc-size": 3 * MIB, "prealloc-align": MIB,
        "file": {"driver": "file", "filename": os.fspath(image)},
    }  # fmt: skip
    disk = worker(below if top == "preallocate" else {"driver": top, "file": below})
    found = [image.stat().st_size]
    try:
        for step in steps:
            disk.do(step)
            found.append(image.stat().st_size)
    finally:
        disk.close()
    return [*found, image.stat().st_size]


def below_qcow2(dice: random.Random) -> list[Step]:
    """Whole clusters here and there: each new one goes to the end of the file."""
    return [
        (dice.choice(["write", "write", "zero"]), dice.randrange(900) * CLUSTER,
         dice.randrange(1, 30) * CLUSTER)
        for _ in range(20)
    ]  # fmt: skip


RESIZES: list[Step] = [
    ("write", 0, MIB), ("truncate", 3 * MIB, 0), ("write", MIB, 2 * MIB),
    ("truncate", 5 * MIB + 512, 0), ("zero", 4 * MIB, MIB), ("truncate", MIB, 0),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_below_qcow2(tmp_path: Path, seed: int) -> None:
    steps = below_qcow2(random.Random(seed))
    found = []
    for worker in (Ours, Theirs):
        image = tmp_path / f"{worker.__name__}.qcow2"
        block.create(str(image), "qcow2", 64 * MIB)
        found.append(lengths(image, "qcow2", steps, worker))
        qemu_done("qemu-img", "check", "-q", image)
    assert found[0] == found[1]
    assert len(set(found[0])) > 3


@pytest.mark.parametrize("top", ["raw", "preallocate"])
def test_resizes_by_hand(tmp_path: Path, top: str) -> None:
    found = []
    for worker in (Ours, Theirs):
        image = tmp_path / f"{worker.__name__}.img"
        image.write_bytes(bytes(MIB))
        found.append(lengths(image, top, RESIZES, worker))
    assert found[0] == found[1]
