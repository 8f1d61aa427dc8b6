# SPDX-License-Identifier: GPL-2.0-only
"""`make test-matrix`: all cells of the matrix, and a table; exit status 1 if one is not well.

python -m tests.matrix [--pairwise] [WORD ...]      only cells that have all the words
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from tests.matrix.cells import ENGINES, FORMATS, MACHINES, SERVED, Cell, every, pairwise, possible
from tests.matrix.cells import why_not as why_not_at_all
from tests.matrix.run import Verdict, need, run_here, run_nested

TABLE_WIDTH = 100
Outcomes = dict[Cell, Verdict | str]


def lacks(cell: Cell) -> str | None:
    """Why this machine cannot run a cell, None if it can."""
    try:
        need(cell)
    except (pytest.skip.Exception, pytest.fail.Exception) as reason:
        return str(reason)
    return None


def run(cells: list[Cell], tell: Console) -> Outcomes:
    """Runs them, one after the other; a text instead of a verdict says why not."""
    out: Outcomes = {}
    nested = []
    for cell in cells:
        reason = lacks(cell)
        if reason is not None:
            out[cell] = reason
        elif cell.nested:
            nested.append(cell)
        else:
            with tempfile.TemporaryDirectory() as folder:
                out[cell] = run_here(cell, Path(folder))
            tell.print(f"{cell}: {word(out[cell])}", style="dim")
    if nested:
        with tempfile.TemporaryDirectory() as folder:
            out |= run_nested(nested, Path(folder))
    return out


def word(outcome: Verdict | str | None) -> str:
    """What stands in a cell of the table."""
    if outcome is None:
        return ""
    if isinstance(outcome, str):
        return "[yellow]missing"
    return "[red]FAILED" if outcome.wrong else f"[green]ok[/] {outcome.seconds:.1f} s"


def table(outcomes: Outcomes) -> Table:
    """A row for each disk, a column for each machine; impossible cells have a dash."""
    made = Table(title="the guest's self-test")
    for head in ("format", "served by", "aio", *(name.replace("-", "\n") for name in MACHINES)):
        made.add_column(head, no_wrap=True)
    for format in FORMATS:
        for served in SERVED:
            for engine in ENGINES:
                cells = [Cell(machine, format, served, engine) for machine in MACHINES]
                words = ["-" if why_not_at_all(c) else word(outcomes.get(c)) for c in cells]
                made.add_row(format, served, engine, *words)
    return made


def main(words: list[str]) -> int:
    """Runs what was asked for; the exit status."""
    cells = possible(every())
    if "--pairwise" in words:
        cells = pairwise(cells)
    wanted = [word for word in words if not word.startswith("-")]
    cells = [cell for cell in cells if all(word in str(cell).split() for word in wanted)]
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    outcomes = run(cells, console)
    console.print(table(outcomes))
    for reason in sorted({reason for cell in every() if (reason := why_not_at_all(cell))}):
        console.print(f"-: {reason}")
    for cell, outcome in outcomes.items():
        if isinstance(outcome, str) or outcome.wrong:
            console.print(f"{cell}: {outcome if isinstance(outcome, str) else outcome.wrong}")
    passed = [o for o in outcomes.values() if isinstance(o, Verdict) and not o.wrong]
    tests = sum(o.tests for o in passed)
    console.print(f"{len(passed)} of {len(cells)} cells passed, {tests} tests of the guest in them")
    return len(passed) != len(cells)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
