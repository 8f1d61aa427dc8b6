# SPDX-License-Identifier: GPL-2.0-only
"""`python -m benchmarks`: measures everything, prints the table, draws the picture.

With --only, results of other cases stay in results.json as they were. With --quick
nothing is written: such figures are for seeing that everything runs. A case that fails is
named and left out; then the exit status is 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from rich.console import Console
from rich.markup import escape

from benchmarks import (
    aio_cases,
    block_cases,
    convert_cases,
    engine_cases,
    guest_cases,
    move_cases,
    picture,
    qcow2_cases,
    report,
    tool_cases,
)
from benchmarks.harness import Case, Missing, Result, measure

console = Console(highlight=False)


def options() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", metavar="NAME", help="only cases whose name contains NAME")
    parser.add_argument("--pairs", type=int, default=7, help="pairs per case (default 7)")
    parser.add_argument("--quick", action="store_true", help="short runs; writes no files")
    return parser.parse_args()


def all_cases(quick: bool) -> list[Case]:
    """Returns every case, in the order of the table."""
    parts = (
        *(block_cases, qcow2_cases, tool_cases, convert_cases),
        *(engine_cases, aio_cases, move_cases, guest_cases),
    )
    return [case for part in parts for case in part.cases(quick)]


def run(cases: list[Case], pairs: int) -> tuple[list[Result], int]:
    """Measures one case after the other; returns the results, and how many cases failed."""
    results: list[Result] = []
    failed = 0
    for number, case in enumerate(cases, 1):
        console.print(f"[dim]{number}/{len(cases)}[/] {case.name} ...")
        try:
            results += measure(case, pairs)
        except Missing as lack:
            console.print(f"[yellow]left out[/], missing {lack}")
        except (OSError, EOFError, ValueError, subprocess.CalledProcessError) as error:
            console.print(f"[red]failed[/]: {type(error).__name__}: {escape(str(error))}")
            failed += 1
    return results, failed


def main() -> int:
    """Measures and reports; returns the exit status."""
    chosen = options()
    cases = [c for c in all_cases(chosen.quick) if not chosen.only or chosen.only in c.name]
    results, failed = run(cases, chosen.pairs)
    report.print_table(results)
    if not chosen.quick:
        kept = report.merge(report.read_results() if chosen.only or failed else [], results)
        report.write_results(kept, chosen.pairs)
        picture.draw(kept)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
