# SPDX-License-Identifier: GPL-2.0-only
"""4 KiB requests to a raw file in the page cache, ours against `qemu-img bench`.

Both sides open the same file by the same format (raw) and cache mode (writeback, the
default of qemu-img bench), send the same sequence of offsets, and measure inside
the run, without the start of the process. The file is written just before, so that
the page cache holds it. It lies in build/, not in /tmp: that may be a tmpfs, which refuses
RWF_NOWAIT on reads.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.harness import Case, Missing, Other

FOLDER = Path(__file__).parent.parent / "build" / "bench"
IMAGE_SIZE = 64 << 20
Plan = Sequence[tuple[str, int, int, float | None]]
"""What is measured: (operation, depth, requests in one run, goal of the ratio)."""
Run = Callable[[str, int, int], float]
"""Measures one operation at one depth, with so many requests: thousand requests a second."""
PLAN: Plan = (
    ("read", 1, 75_000, 1.5),
    ("read", 32, 75_000, 1.2),
    ("write", 1, 20_000, 0.5),
    ("write", 32, 50_000, 0.9),
)
COMPLETED = re.compile(r"Run completed in ([0-9.]+) seconds")


def cases(quick: bool) -> list[Case]:
    """Returns reads and writes at depth 1 and 32."""
    return cases_of("raw", PLAN, ours, qemu_img, quick)


def cases_of(fmt: str, plan: Plan, ours: Run, qemu_img: Run, quick: bool) -> list[Case]:
    """Returns what a plan asks for, of one format; a quick run does a fifth of it."""
    scale = 5 if quick else 1
    return [
        Case(
            name=f"{fmt} 4 KiB {operation}, depth {depth}",
            unit="thousand/s",
            better="higher",
            ours=functools.partial(ours, operation, depth, count // scale),
            others=(
                Other(
                    "qemu-img bench",
                    functools.partial(qemu_img, operation, depth, count // scale),
                    goal,
                ),
            ),
        )
        for operation, depth, count, goal in plan
    ]


@functools.cache
def image() -> str:
    """Returns the path of an image full of data; it is made once, and goes at the end.

    Each run of the benchmarks has one of its own: image locks would keep two runs apart.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    folder = tempfile.TemporaryDirectory(dir=FOLDER)
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "disk.raw"
    chunk = os.urandom(1 << 20)
    with path.open("wb") as file:
        for _ in range(IMAGE_SIZE // len(chunk)):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return str(path)


def ours(operation: str, depth: int, count: int) -> float:
    """Runs benchmarks.block_run; returns thousand requests a second."""
    words = [sys.executable, "-m", "benchmarks.block_run", image(), str(count), str(depth)]
    done = subprocess.run([*words, operation], capture_output=True, text=True, check=True)
    return count / float(done.stdout) / 1000


def qemu_img(operation: str, depth: int, count: int) -> float:
    """Runs qemu-img bench with its default engine; returns thousand requests a second."""
    return qemu_img_bench("raw", image(), operation, depth, count)


def qemu_img_bench(fmt: str, path: str, operation: str, depth: int, count: int) -> float:
    """Runs qemu-img bench on an image of one format; returns thousand requests a second."""
    program = shutil.which("qemu-img")
    if program is None:
        raise Missing("qemu-img: apt-get install qemu-utils")
    words = [program, "bench", "-f", fmt, "-c", str(count), "-d", str(depth), "-s", "4096"]
    flags = ["-w"] if operation == "write" else []
    done = subprocess.run([*words, *flags, path], capture_output=True, text=True, check=True)
    return count / parse_seconds(done.stdout) / 1000


def parse_seconds(text: str) -> float:
    """Finds the seconds in what qemu-img bench prints."""
    found = COMPLETED.search(text)
    if found is None:
        raise ValueError(f"qemu-img bench printed no time: {text!r}")
    return float(found.group(1))
