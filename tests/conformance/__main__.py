# SPDX-License-Identifier: GPL-2.0-only
"""`make conformance`: moves every registered driver in every tree, and prints the table."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from block.core.registry import Row
from tests.conformance import cells
from tests.conformance.run import Result, run
from tests.conformance.samples import NoSample, registered_rows, samples_of
from tests.conformance.trees import TREES

LACKING = (pytest.skip.Exception, pytest.fail.Exception)  # what tests/support/needs.py raises
HEAD = ("driver", "tree", "moves", "requests", "findings", "seconds", "verdict")
LAYOUT = "{:<16} {:<28} {:>6} {:>9} {:>8} {:>8}  {}"


def options() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("drivers", nargs="*", help="only these drivers")
    parser.add_argument("--moves", type=int, default=cells.ALL_MOVES, help="moves in each tree")
    return parser.parse_args()


def results_of(row: Row, moves: int) -> Iterator[Result]:
    """Moves one driver in every tree. Raises NoSample."""
    for sample in samples_of(row):
        for tree in TREES:
            with tempfile.TemporaryDirectory() as folder:
                sample.require(Path(folder))
                yield run(sample, tree, moves, Path(folder))


def line(result: Result) -> str:
    """Returns one line of the table."""
    if result.lacks:
        counts = ("-",) * 4
    else:
        counts = (
            f"{result.moves:,}",
            f"{result.requests:,}",
            f"{len(result.findings)}",
            f"{result.seconds:.1f}",
        )
    return LAYOUT.format(result.driver, result.tree, *counts, result.verdict)


def main() -> int:
    """Prints the table; returns the exit status."""
    chosen = options()
    rows = [r for r in registered_rows() if not chosen.drivers or r.name in chosen.drivers]
    done: list[Result] = []
    missing: list[BaseException] = []
    print(LAYOUT.format(*HEAD))
    for row in rows:
        try:
            for result in results_of(row, chosen.moves):
                print(line(result), flush=True)
                done.append(result)
        except (NoSample, *LACKING) as error:
            missing.append(error)
    ran = [result for result in done if not result.lacks]
    failed = [result for result in ran if result.findings]
    print(
        f"\n{len(rows)} drivers, {len(ran)} trees, {sum(r.moves for r in ran):,} moves, "
        f"{sum(r.requests for r in ran):,} requests, {len(failed)} trees with findings, "
        f"{sum(r.seconds for r in ran):.0f} s"
    )
    for result in failed:
        for finding in result.findings:
            print(f"  {result.tree}: {finding}")
    for error in missing:
        print(f"missing: {error}")
    unknown = set(chosen.drivers) - {row.name for row in rows}
    for name in sorted(unknown):
        print(f"missing: no driver '{name}' is registered")
    return 1 if failed or missing or unknown else 0


if __name__ == "__main__":
    sys.exit(main())
