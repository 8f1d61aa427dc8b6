# SPDX-License-Identifier: GPL-2.0-only
"""The engines aio=native and aio=io_uring, ours against `qemu-img bench -i` with the same one.

As in block_cases.py, with O_DIRECT (cache none) where it says so: then it is the disk that is
measured, and what each side adds to it.
"""

from __future__ import annotations

from benchmarks import images
from benchmarks.block_cases import ours, theirs
from benchmarks.harness import Case, Other

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
    request = (operation, depth, count // scale)

    def mine() -> float:
        return ours(images.raw(), *request, str(nbytes), aio, cache, "raw")

    def other() -> float:
        how = ("-f", "raw", "-i", aio, "-t", cache, "-s", str(nbytes))
        return theirs(images.raw(), *request, *how)

    how = "O_DIRECT" if cache == "none" else "cached"
    size = "1 MiB" if nbytes == MIB else "4 KiB"
    name = f"{aio}, {how}, {size} {operation}, depth {depth}"
    return Case(
        name, "thousand/s", "higher", mine, (Other(f"qemu-img bench -i {aio}", other, goal),)
    )
