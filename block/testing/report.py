# SPDX-License-Identifier: GPL-2.0-only
"""A run as a table: a column for each thread, a row for each line that matters.

     main                                   | iothread io0
     ---------------------------------------+--------------------------------------
     bh.py:79  self.state = SCHEDULED       |
  =>                                        | context.py:143  bh.state = 0
                                            | ...
  =>  is where a thread was left although it could have gone on.

R1  A line matters if it touches something that another thread touches too, one of the two changes
    it, and nothing else orders them; so does the last line of each thread, and both sides of a
    switch by force; and each line of the modules that the caller wants to have shown.
R2  Rows are data first (Row), text second: docs/tools draw pictures from the same rows.
"""

from __future__ import annotations

import linecache
import os
import sys
from pathlib import Path

from block.testing.scheduler import MAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from types import FrameType
    from typing import Any

    from block.testing.scheduler import FakeThread

WIDTH = 62
HERE = os.path.dirname(__file__)


class Row:
    """One line that one thread runs."""

    __slots__ = ("file", "forced", "in_race", "label", "line", "text", "thread")

    def __init__(self, thread: int, file: str, line: int, label: str, forced: bool) -> None:
        self.thread = thread
        self.file = file
        self.line = line
        self.text = linecache.getline(file, line).partition("  #")[0].strip()
        self.label = label or ("" if file else "start")  # the door that it comes to in this line
        self.forced = forced
        self.in_race = False

    @property
    def where(self) -> str:
        """The file's name and the line."""
        return f"{Path(self.file).name}:{self.line}" if self.file else ""

    def data(self) -> dict[str, Any]:
        """Returns the row for JSON and for pictures."""
        return {"thread": self.thread, "where": self.where, "text": self.text,
                "label": self.label, "forced": self.forced}  # fmt: skip


def place(thread: FakeThread, here: bool) -> tuple[str, int]:
    """Returns the file and the line that a thread is at, outside of this package."""
    frame: FrameType | None = sys._getframe(1) if here else thread.greenlet.gr_frame
    while frame is not None and os.path.dirname(frame.f_code.co_filename) == HERE:
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("", 0)


def rows_that_matter(rows: list[Row], shown: Collection[str] = ()) -> list[Row]:
    """Leaves out what no other thread sees, and joins the parts of one line (R1).

    shown  the files of which nothing is left out
    """
    last = {row.thread: row for row in rows}
    made: list[Row] = []
    for number, row in enumerate(rows):
        next_forced = number + 1 < len(rows) and rows[number + 1].forced
        matters = row.in_race or row.forced or next_forced or last[row.thread] is row
        if not matters and row.file not in shown:
            continue
        before = made[-1] if made else None
        if before is not None and _same_line(before, row) and not row.forced:
            before.label = before.label or row.label
            continue
        made.append(row)
    return made


def until(rows: list[Row], error: BaseException) -> list[Row]:
    """Leaves out what came after the error: the threads only cleared up, or went on in vain."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        places.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    for place_of_error in reversed(places):
        there = [n for n, row in enumerate(rows) if (row.file, row.line) == place_of_error]
        if there:
            of_main = [number for number in there if rows[number].thread == MAIN]
            return rows[: (of_main or there)[-1] + 1]
    return rows


def _same_line(a: Row, b: Row) -> bool:
    return (a.thread, a.file, a.line) == (b.thread, b.file, b.line)


def table(threads: list[str], rows: list[Row], width: int = WIDTH) -> str:
    """Returns rows as text; `threads` are the names, by number from 1 on."""
    used = [number for number in range(1, len(threads) + 1)
            if any(row.thread == number for row in rows)]  # fmt: skip
    lines = ["   " + " | ".join(threads[number - 1].ljust(width) for number in used).rstrip()]
    lines.append("   " + "-+-".join("-" * width for _ in used))
    for row in rows:
        text = f"{row.where:<18} {row.text}".strip()
        door = f"  <{row.label}>" if row.label else ""
        if len(text) + len(door) > width:
            text = text[: width - len(door) - 1] + "…"
        text += door
        cells = [(text if number == row.thread else "").ljust(width) for number in used]
        lines.append((("=> " if row.forced else "   ") + " | ".join(cells)).rstrip())
    return "\n".join(lines)
