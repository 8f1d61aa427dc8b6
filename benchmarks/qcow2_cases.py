# SPDX-License-Identifier: GPL-2.0-only
"""4 KiB requests to an allocated qcow2 image in the page cache, ours against `qemu-img bench`.

As block_cases, with an image in which every cluster is there: a read finds its entry in the L2
cache, a write goes to the cluster that it has.
"""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import block
from benchmarks.block_cases import FOLDER, IMAGE_SIZE, Plan, cases_of, qemu_img_bench
from benchmarks.harness import Case

PLAN: Plan = (
    ("read", 1, 75_000, 1.3),
    ("read", 32, 75_000, 0.9),
    ("write", 1, 15_000, None),
    ("write", 32, 40_000, None),
)


def cases(quick: bool) -> list[Case]:
    """Returns reads and writes at depth 1 and 32."""
    return cases_of("qcow2", PLAN, ours, qemu_img, quick)


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
    return qemu_img_bench("qcow2", image(), operation, depth, count)
