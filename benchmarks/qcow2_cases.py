# SPDX-License-Identifier: GPL-2.0-only
"""4 KiB requests to an allocated qcow2 image in the page cache, ours against `qemu-img bench`.

As block_cases, with an image in which every cluster is there: a read finds its entry in the L2
cache, a write goes to the cluster that it has.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import block
from benchmarks.block_cases import FOLDER, IMAGE_SIZE, parse_seconds
from benchmarks.harness import Case, Missing, Other

# What is measured: (operation, depth, requests in one run, goal of the ratio).
PLAN: tuple[tuple[str, int, int, float | None], ...] = (
    ("read", 1, 75_000, 1.3),
    ("read", 32, 75_000, 0.9),
    ("write", 1, 15_000, None),
    ("write", 32, 40_000, None),
)


def cases(quick: bool) -> list[Case]:
    """Returns reads and writes at depth 1 and 32."""
    scale = 5 if quick else 1
    return [case(operation, depth, count // scale, goal) for operation, depth, count, goal in PLAN]


def case(operation: str, depth: int, count: int, goal: float | None) -> Case:
    """Returns one operation at one depth."""
    return Case(
        name=f"qcow2 4 KiB {operation}, depth {depth}",
        unit="thousand/s",
        better="higher",
        ours=functools.partial(ours, operation, depth, count),
        others=(
            Other("qemu-img bench", functools.partial(qemu_img, operation, depth, count), goal),
        ),
    )


@functools.cache
def image() -> str:
    """Returns the path of an image full of data; it is made once, and goes at the end."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    folder = tempfile.TemporaryDirectory(dir=FOLDER)
    atexit.register(folder.cleanup)
    path = str(Path(folder.name) / "disk.qcow2")
    block.create(path, "qcow2", IMAGE_SIZE)
    with block.open(path, format="qcow2") as disk:
        for offset in range(0, IMAGE_SIZE, 1 << 20):
            disk.pwrite(offset, os.urandom(1 << 20))
    return path


def ours(operation: str, depth: int, count: int) -> float:
    """Runs benchmarks.block_run; returns thousand requests a second."""
    words = [sys.executable, "-m", "benchmarks.block_run", image(), str(count), str(depth)]
    words += [operation, "4096", "threads", "writeback", "qcow2"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return count / float(done.stdout) / 1000


def qemu_img(operation: str, depth: int, count: int) -> float:
    """Runs qemu-img bench with its default engine; returns thousand requests a second."""
    program = shutil.which("qemu-img")
    if program is None:
        raise Missing("qemu-img: apt-get install qemu-utils")
    words = [program, "bench", "-f", "qcow2", "-c", str(count), "-d", str(depth), "-s", "4096"]
    flags = ["-w"] if operation == "write" else []
    done = subprocess.run([*words, *flags, image()], capture_output=True, text=True, check=True)
    return count / parse_seconds(done.stdout) / 1000
