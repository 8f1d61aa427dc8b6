# SPDX-License-Identifier: GPL-2.0-only
"""Makes the table, the picture and results.json out of the measured figures.

R1 All three come from the same list of results; no number is typed by hand.
R2 The picture's axis is logarithmic and reads "so many times as good": a bar to the
   right of 1 means ours is ahead, whichever way the unit points.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Result, reached, times_better
from benchmarks.words import figure, goal, spread

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
CONDITIONS = HERE / "conditions.json"
WIDTH = 160  # in a pipe or a file
IMAGES = HERE.parent / "docs" / "images"

VERDICT = {True: "[green]reached[/]", False: "[red]missed[/]", None: ""}


def table(results: Sequence[Result]) -> Table:
    """Returns the table that the terminal shows."""
    made = Table("", "ours", "other", "unit", "ratio", "spread", "goal", "", box=SIMPLE_HEAD)
    for column in made.columns[1:]:
        column.no_wrap = True
    for column in made.columns[1:3] + made.columns[4:7]:
        column.justify = "right"
    for row in results:
        made.add_row(
            row["name"],
            figure(row["ours"]),
            figure(row["other"]),
            row["unit"],
            figure(row["ratio"]),
            spread(row),
            goal(row),
            VERDICT[reached(row)],
        )
    return made


def print_table(results: Sequence[Result], console: Console | None = None) -> None:
    """Prints the table on the terminal; where there is none, as wide as its names are long."""
    console = console or Console()
    if not console.is_terminal:
        console.width = WIDTH
    console.print(table(results))


def read_results() -> list[Result]:
    """Reads results.json, or an empty list where nothing was measured yet."""
    if not RESULTS.exists():
        return []
    rows: list[Result] = json.loads(RESULTS.read_text())
    return rows


def merge(old: Sequence[Result], new: Sequence[Result]) -> list[Result]:
    """Puts fresh results in the places of the old ones with the same name; others follow."""
    fresh = {row["name"]: row for row in new}
    kept = [fresh.pop(row["name"], row) for row in old]
    return kept + list(fresh.values())


def write_results(results: Sequence[Result], pairs: int) -> None:
    """Writes results.json, and beside it on which machine and when it was measured."""
    RESULTS.write_text(json.dumps(list(results), indent=1) + "\n")
    CONDITIONS.write_text(json.dumps(conditions(pairs), indent=1) + "\n")


def conditions(pairs: int) -> dict[str, object]:
    """Returns the machine, the versions and the day."""
    return {
        "day": time.strftime("%Y-%m-%d"),
        "pairs": pairs,
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "qemu": version("qemu-img"),
    }


def processor() -> str:
    """Returns the processor's name as the kernel prints it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def version(program: str) -> str:
    """Returns the first line that a program prints for --version; "" where it is missing."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.splitlines()[0]


def compared(results: Sequence[Result]) -> list[Result]:
    """Returns the results that have a ratio, worst place first: pictures grow upwards."""
    return [row for row in reversed(results) if row["ratio"] is not None]


def bar(row: Result) -> tuple[float, float, float]:
    """Returns a result's place in the picture: times as good, and its range (R2)."""
    ends = [times_better(row, end) for end in row["spread"] or []]
    return times_better(row, row["ratio"] or 0.0), min(ends), max(ends)
