# SPDX-License-Identifier: GPL-2.0-only
"""An order of threads that goes wrong, as a picture: a column for each thread, time downwards.

It is drawn from what the explorer has found (block.testing.explore.Failure), so it is never out of
date. Such pictures are not committed: the pages of the bug museum have them drawn when the site
is built.

R1  What a thread does without anybody in between is one box, a *turn*, with a number.
R2  A turn that was taken away by force is marked; where a thread blocked or ended, somebody
    else goes on in any case, and the arrow is dashed.
"""

from __future__ import annotations

import ast
import functools
import re
import textwrap
from pathlib import Path

from block.testing.explore import Failure
from block.testing.failures import Deadlock
from block.testing.report import Row
from docs.tools.draw import Box, Picture

MARGIN = 40.0  # left of the columns: the turns' numbers
GAP = 18.0  # between two columns
HEAD = 34.0
CODE_WIDTH = 7.3  # of one character of code
KINDS = ("blue", "green", "violet", "plain")

# What a thread does at a door, for a person.
DOORS = {
    "acquire": "takes a lock",
    "wait": "waits",
    "notify": "wakes who waits",
    "wait at the gate": "waits at a gate",
    "open the gate": "opens a gate",
    "set the notifier": "rings",
    "clear the notifier": "clears the notifier",
    "look": "looks, does not sleep",
    "sleep": "sleeps",
    "join": "waits for a thread's end",
    "start a thread": "starts a thread",
    "start": "starts",
    "end": "has ended",
}
BLOCKING = {"acquire", "wait", "wait at the gate", "sleep", "join"}


class Words:
    """One line in a turn: code after a backtick, a place after ~; and what happens there."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.note = ""

    @property
    def height(self) -> float:
        """A place stands a little apart from the line above it."""
        return 20.0 if self.text.startswith("~") else 16.0


def picture(name: str, failure: Failure) -> Picture:
    """Draws a failing order."""
    turns = turns_of(failure.rows)
    columns = sorted({rows[0].thread for rows in turns})
    width = max(400.0 if len(columns) < 3 else 320.0, (860 - MARGIN) / max(len(columns), 1))
    texts = [words(rows, failure, width) for rows in turns]
    tops, foot = places(turns, texts)
    error = textwrap.wrap(f"{type(failure.error).__name__}: {failure.error}", 96)
    whole = int(MARGIN + width * len(columns))
    height = int(foot + 34 + 18 * len(error))
    made = Picture(name, whole, height, f"The order of threads that shows {name}")
    for number, thread in enumerate(columns):
        x = MARGIN + width * number
        made.box(x, 4, width - GAP, HEAD, failure.threads[thread - 1], kind="plain")
        made.rule((x + width / 2 - GAP / 2, 4 + HEAD), (x + width / 2 - GAP / 2, foot))
    before: Box | None = None
    for number, (rows, lines, top) in enumerate(zip(turns, texts, tops, strict=True), start=1):
        column = columns.index(rows[0].thread)
        x = MARGIN + width * column
        box = turn(made, x, top, width - GAP, lines, KINDS[column % len(KINDS)])
        made.number(18, top + 15, number)
        if before is not None:
            switch(made, before, box, rows[0].forced)
        before = box
    made.box(MARGIN, foot, whole - MARGIN - GAP, 20 + 18 * len(error), *error, kind="amber")
    return made


def turns_of(rows: list[Row]) -> list[list[Row]]:
    """Puts together what one thread does with nobody in between (R1)."""
    turns: list[list[Row]] = []
    for row in rows:
        if turns and turns[-1][0].thread == row.thread:
            turns[-1].append(row)
        else:
            turns.append([row])
    return turns


def words(rows: list[Row], failure: Failure, width: float) -> list[Words]:
    """Returns the lines of a turn, each under the name of its function."""
    room = int((width - GAP - 22) / CODE_WIDTH)
    last = {row.thread: row for row in failure.rows}
    made: list[Words] = []
    place = ""
    for row in rows:
        if row.file and function_at(row.file, row.line) != place:
            place = function_at(row.file, row.line)
            made.append(Words(f"~{place}, in {Path(row.file).name}"))
        code = wrapped(row.text, room)
        made += [Words("`" + each.replace(" ", "\xa0")) for each in code]
        if row.label:
            stuck = last[row.thread] is row and row.label in BLOCKING
            ever = " for ever" if stuck and isinstance(failure.error, Deadlock) else ""
            note = f"→ {DOORS.get(row.label, row.label)}{ever}"
            if not code or len(code[-1]) + len(note) + 2 > room:
                made.append(Words(""))
            made[-1].note = note
    return made


def wrapped(code: str, room: int) -> list[str]:
    """Breaks a line of code where a person would: behind a space, a bracket or a full stop."""
    lines = [""]
    for part in re.split(r"(?<=[ (\[,.])(?! )", code):
        if len(lines[-1]) + len(part.rstrip()) > room and lines[-1].strip():
            lines.append("    ")
        lines[-1] += part
    return [line.rstrip() for line in lines if line.strip()]


def places(turns: list[list[Row]], texts: list[list[Words]]) -> tuple[list[float], float]:
    """Returns where each turn begins, and where the last one is over."""
    tops, y = [], 4 + HEAD + 18
    for rows, lines in zip(turns, texts, strict=True):
        y += 26 if rows[0].forced else 0
        tops.append(y)
        y += height_of(lines) + 28
    return tops, y


def height_of(lines: list[Words]) -> float:
    """Returns the height of a turn."""
    return 12 + sum(line.height for line in lines)


def turn(made: Picture, x: float, y: float, width: float, lines: list[Words], kind: str) -> Box:
    """Draws one turn."""
    box = made.box(x, y, width, height_of(lines), kind=kind)
    y += 2
    for line in lines:
        y += line.height
        if line.text:
            made.text(x + 10, y, line.text)
        if line.note:
            at, anchor = (x + width - 10, "end") if line.text else (x + 10, "start")
            made.text(at, y, line.note, anchor=anchor)
    return box


def switch(made: Picture, before: Box, after: Box, forced: bool) -> None:
    """Draws how the next turn comes about (R2)."""
    (x1, y1), (x2, y2) = before.bottom(), after.top()
    middle = y2 - (26 if forced else 13)
    made.arrow((x1, y1), (x1, middle), (x2, middle), (x2, y2), dashed=not forced)
    if forced:
        made.box((x1 + x2) / 2 - 92, middle - 11, 184, 22, "the turn is taken away", kind="amber")


@functools.cache
def functions_in(file: str) -> list[tuple[int, int, str]]:
    """Returns the functions of a file: first line, last line, name with its class."""
    found: list[tuple[int, int, str]] = []
    pending: list[tuple[ast.AST, str]] = [(ast.parse(Path(file).read_text()), "")]
    while pending:
        node, outer = pending.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.append((child.lineno, child.end_lineno or 0, outer + child.name))
                inner = f"{outer}{child.name}." if isinstance(child, ast.ClassDef) else ""
                pending.append((child, inner))
            else:
                pending.append((child, outer))
    return found


def function_at(file: str, line: int) -> str:
    """Returns the name of the innermost function that a line is in."""
    around = [each for each in functions_in(file) if each[0] <= line <= each[1]]
    return max(around)[2] if around else Path(file).stem
