# SPDX-License-Identifier: GPL-2.0-only
"""The engines aio=native and aio=io_uring, ours against `qemu-img bench -i` with the same one.

As in block_cases.py, with O_DIRECT (cache none) where it says so: then it is the disk that is
measured, and what each side adds to it.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys

from benchmarks.block_cases import image, parse_seconds
from benchmarks.harness import Case, Missing, Other

KIB, MIB = 1 << 10, 1 << 20
# (engine, cache, operation, bytes of a request, depth, requests in one run, goal of the ratio)
PLAN = (
    ("native", "none", "read", 4 * KIB, 32, 20_000, 0.9),
    ("native", "none", "write", 4 * KIB, 32, 20_000, None),
    ("native", "none", "read", 4 * KIB, 1, 5_000, None),
    ("native", "none", "read", MIB, 8, 600, 0.95),
    ("io_uring", "none", "read", 4 * KIB, 32, 20_000, 0.9),
    ("io_uring", "none", "write", 4 * KIB, 32, 20_000, None),
    ("io_uring", "none", "read", 4 * KIB, 1, 5_000, None),
    ("io_uring", "none", "read", MIB, 8, 600, 0.95),
    ("io_uring", "writeback", "read", 4 * KIB, 1, 75_000, 0.8),
    ("io_uring", "writeback", "read", 4 * KIB, 32, 75_000, 0.5),
    ("io_uring", "writeback", "read", MIB, 8, 2_000, 0.95),
    ("io_uring", "writeback", "write", 4 * KIB, 32, 20_000, None),
)


def cases(quick: bool) -> list[Case]:
    """Returns the cases of PLAN."""
    return [case(*row, scale=5 if quick else 1) for row in PLAN]


def case(
    aio: str,
    cache: str,
    operation: str,
    nbytes: int,
    depth: int,
    count: int,
    goal: float | None,
    *,
    scale: int,
) -> Case:
    """Returns one operation with one engine."""
    how = "O_DIRECT" if cache == "none" else "cached"
    size = "1 MiB" if nbytes == MIB else "4 KiB"
    words = (operation, depth, count // scale, nbytes, aio, cache)
    return Case(
        name=f"{aio}, {how}, {size} {operation}, depth {depth}",
        unit="thousand/s",
        better="higher",
        ours=functools.partial(ours, *words),
        others=(Other(f"qemu-img bench -i {aio}", functools.partial(qemu_img, *words), goal),),
    )


def ours(operation: str, depth: int, count: int, nbytes: int, aio: str, cache: str) -> float:
    """Runs benchmarks.block_run; returns thousand requests a second."""
    words = [sys.executable, "-m", "benchmarks.block_run", image(), str(count), str(depth)]
    words += [operation, str(nbytes), aio, cache]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return count / float(done.stdout) / 1000


def qemu_img(operation: str, depth: int, count: int, nbytes: int, aio: str, cache: str) -> float:
    """Runs qemu-img bench with the same engine; returns thousand requests a second."""
    program = shutil.which("qemu-img")
    if program is None:
        raise Missing("qemu-img: apt-get install qemu-utils")
    words = [program, "bench", "-f", "raw", "-i", aio, "-t", cache, "-c", str(count)]
    words += ["-d", str(depth), "-s", str(nbytes)]
    flags = ["-w"] if operation == "write" else []
    done = subprocess.run([*words, *flags, image()], capture_output=True, text=True, check=True)
    return count / parse_seconds(done.stdout) / 1000
