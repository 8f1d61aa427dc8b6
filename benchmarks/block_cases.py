# SPDX-License-Identifier: GPL-2.0-only
"""4 KiB requests to a raw file in the page cache, ours against `qemu-img bench`.

Both sides open the same file by the same format (raw) and cache mode (writeback, the
default of qemu-img bench), send the same sequence of offsets, and measure inside
the run, without the start of the process. The file is written just before, so that
the page cache holds it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence

from benchmarks import images, tools
from benchmarks.harness import Case, Other

Plan = Sequence[tuple[str, int, int, float | None]]
"""What is measured: (operation, depth, requests in one run, goal of the ratio)."""
PLAN: Plan = (
    ("read", 1, 75_000, 1.5),
    ("read", 32, 75_000, 1.2),
    ("write", 1, 20_000, 0.5),
    ("write", 32, 50_000, 0.9),
)


def cases(quick: bool) -> list[Case]:
    """Returns reads and writes at depth 1 and 32."""
    return cases_of("raw", PLAN, images.raw, quick)


def cases_of(fmt: str, plan: Plan, image: Callable[[], str], quick: bool) -> list[Case]:
    """Returns what a plan asks for, of one format; a quick run does a fifth of it."""
    scale = 5 if quick else 1
    return [case(fmt, image, *row, scale=scale) for row in plan]


def case(
    fmt: str,
    image: Callable[[], str],
    operation: str,
    depth: int,
    count: int,
    goal: float | None,
    *,
    scale: int,
) -> Case:
    """Returns one operation at one depth."""
    request = (operation, depth, count // scale)

    def mine() -> float:
        return ours(image(), *request, "4096", "threads", "writeback", fmt)

    def other() -> float:
        return theirs(image(), *request, "-s", "4096", "-f", fmt)

    name = f"{fmt} 4 KiB {operation}, depth {depth}"
    return Case(name, "thousand/s", "higher", mine, (Other("qemu-img bench", other, goal),))


def ours(path: str, operation: str, depth: int, count: int, *how: str) -> float:
    """Runs block_run, which says what `how` may be; returns thousand requests a second."""
    words = [sys.executable, "-m", "benchmarks.block_run", path, str(count), str(depth), operation]
    done = subprocess.run([*words, *how], capture_output=True, text=True, check=True)
    return count / float(done.stdout) / 1000


def theirs(path: str, operation: str, depth: int, count: int, *how: str) -> float:
    """Runs qemu-img bench with some more of its words; returns thousand requests a second."""
    words = ["-w"] if operation == "write" else []
    return tools.requests(tools.THEIRS, count, "-d", str(depth), *words, *how, path)
