# SPDX-License-Identifier: GPL-2.0-only
"""Prints the interoperability matrix: python -m tests.interop [every] (make interop-matrix).

Runs all of tests/support/format_kinds.py and counts the images, by format, by the value of each
option, and by who created them. `every` takes each combination of options instead of each pair of
values: thousands of images, half an hour.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.support.format_kinds import Kind, kinds
from tests.support.format_matrix import DIRECTIONS, Cell


class Count:
    """How many images of a kind went well in each direction, and how many did not."""

    def __init__(self) -> None:
        self.good: Counter[tuple[str, str, str]] = Counter()
        self.bad: list[str] = []
        self.operations = 0

    def run(self, kind: Kind, direction: str, seed: int) -> None:
        """Tries one cell."""
        with tempfile.TemporaryDirectory() as folder:
            before = Path.cwd()
            os.chdir(folder)
            try:
                self.operations += Cell(kind, seed).run(direction)
            except (AssertionError, OSError) as error:
                self.bad.append(f"{kind}, {direction}: {error}")
                return
            finally:
                os.chdir(before)
        for what in traits(kind):
            self.good[kind.fmt, what, direction] += 1


def traits(kind: Kind) -> list[str]:
    """The lines of the table that an image counts in."""
    version = ["compat=1.1"] if kind.fmt == "qcow2" and "compat" not in kind.options else []
    named = [
        "data_file" if name == "data_file" else f"{name}={value}"
        for name, value in kind.options.items()
    ]
    backing = [] if kind.backing else ["no backing"]
    return ["", *version, *named, *kind.extras, *backing]


def print_table(count: Count) -> None:
    """One line for each value of an option."""
    print(f"{'format':8}{'option':32}{'we begin':>10}{'QEMU begins':>14}")
    lines = dict.fromkeys((fmt, what) for fmt, what, _ in count.good)
    for fmt, what in sorted(lines):
        ours, qemus = (count.good[fmt, what, direction] for direction in DIRECTIONS)
        print(f"{'' if what else fmt:8}{what or 'all images':32}{ours:10}{qemus:14}")
    total = sum(number for (_, what, _), number in count.good.items() if not what)
    print(f"\n{total} images, {count.operations} operations, {len(count.bad)} failures")
    for line in count.bad:
        print("FAILED", line)


def main(words: list[str]) -> int:
    """Runs all cells; the exit status."""
    count = Count()
    for seed, kind in enumerate(kinds(every="every" in words)):
        for direction in DIRECTIONS:
            count.run(kind, direction, seed)
    print_table(count)
    return bool(count.bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
