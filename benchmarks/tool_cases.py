# SPDX-License-Identifier: GPL-2.0-only
"""The other tools for images: `bench`, `check`, `map`, and how long a start takes.

`bench` and its requests are compared as a ratio. What is over in a moment is compared by how many
seconds ours takes longer, and a start by itself with its goal in milliseconds.
"""

from __future__ import annotations

import functools
from pathlib import Path
from statistics import median

from benchmarks import images, tools
from benchmarks.harness import Case, Other
from benchmarks.tools import OURS, THEIRS

# name, words of bench, requests in one run, goal of the ratio
BENCH = (
    ("4 KiB read, depth 1", "-d 1", 40_000, 1.3),
    ("4 KiB read, depth 32", "-d 32", 75_000, 0.9),
    ("64 KiB read, depth 1", "-d 1 -s 64k", 15_000, 1.0),
    ("64 KiB read, depth 32", "-d 32 -s 64k", 15_000, None),
    ("4 KiB rewrite, depth 1", "-w -d 1", 15_000, 0.7),
    ("4 KiB rewrite, depth 32", "-w -d 32", 40_000, 0.7),
    ("64 KiB allocating write, depth 1", "-w -d 1 -s 64k", 3_000, 0.7),
    ("64 KiB allocating write, depth 32", "-w -d 32 -s 64k", 3_000, 0.7),
)
SCANS = ("check", "map")
LATER_SECONDS = 0.3
# words, goal in ms
STARTS = (("--version", "", 35.0), ("info", "raw", 50.0), ("info", "qcow2", 120.0))
TIMES = 10


def cases(quick: bool) -> list[Case]:
    """Returns all of them."""
    scale = 5 if quick else 1
    return [
        *(bench_case(name, words, count // scale, goal) for name, words, count, goal in BENCH),
        *(scan_case(command) for command in SCANS),
        *(start_case(*row) for row in STARTS),
    ]


def bench_case(name: str, words: str, count: int, goal: float | None) -> Case:
    """Returns requests of one kind to a qcow2 image."""

    def thousands(program: str) -> float:
        path = new_image() if "allocating" in name else images.qcow2()
        return tools.requests(program, count, "-f", "qcow2", *words.split(), path)

    theirs = Other("qemu-img bench", functools.partial(thousands, THEIRS), goal)
    ours = functools.partial(thousands, OURS)
    return Case(f"bench: {name}", "thousand/s", "higher", ours, (theirs,))


def scan_case(command: str) -> Case:
    """Returns how much longer ours takes for an image of 100 GiB with 4 GiB of clusters."""

    def later() -> float:
        words = (command, "-f", "qcow2", large_image())
        return tools.seconds(OURS, *words) - tools.seconds(THEIRS, *words)

    name = f"{command} of 100 GiB: longer than qemu-img"
    return Case(name, "s", "lower", later, goal=LATER_SECONDS)


def start_case(command: str, fmt: str, goal: float) -> Case:
    """Returns the milliseconds of a whole process that has little to do."""

    def milliseconds() -> float:
        words = [command, small_image(fmt)] if fmt else [command]
        return 1000 * median(tools.seconds(OURS, *words) for _ in range(TIMES))

    name = f"start: {command} {fmt}".rstrip()
    return Case(name, "ms", "lower", milliseconds, goal=goal)


def new_image() -> str:
    """Returns an empty image, each time another one in the same place."""
    path = images.place("new.qcow2")
    Path(path).unlink(missing_ok=True)
    tools.run(OURS, "create", "-f", "qcow2", path, "1G")
    return path


@functools.cache
def large_image() -> str:
    """Returns an image whose first 4 GiB have clusters; the file itself stays sparse."""
    path = images.place("large.qcow2")
    tools.run(OURS, "create", "-f", "qcow2", "-o", "preallocation=metadata", path, "4G")
    tools.run(OURS, "resize", "-f", "qcow2", path, "100G")
    return path


@functools.cache
def small_image(fmt: str) -> str:
    """Returns an empty image of 1 MiB."""
    path = images.place(f"small.{fmt}")
    tools.run(OURS, "create", "-f", fmt, path, "1M")
    return path
