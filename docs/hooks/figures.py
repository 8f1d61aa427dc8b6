# SPDX-License-Identifier: GPL-2.0-only
"""Puts measured figures into the pages when they are built (mkdocs hook).

R1 A page never contains a typed figure of ours. It says `[[bench:table]]`, `[[bench:where]]`,
   `[[bench:start]]` or `[[bench:NAME|FIELD]]`, and gets what the files of benchmarks/ hold.
R2 A name that is not in results.json is a warning, which ends the strict build.

FIELD is a key of results.json; or `us` or `us other`: the microseconds that one operation takes,
from `ours` or `other` in thousands a second.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))  # mkdocs does not, and benchmarks is not an installed package

from benchmarks.harness import Result, reached  # noqa: E402  # behind the path
from benchmarks.words import figure, goal, spread  # noqa: E402  # behind the path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from benchmarks.start_stages import Stage

log = logging.getLogger("mkdocs.hooks.figures")

BENCHMARKS = ROOT / "benchmarks"
MARK = re.compile(r"\[\[bench:([^\]]+)\]\]")
VERDICT = {True: "reached", False: "**missed**", None: ""}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces every mark of a page."""
    return MARK.sub(lambda found: replacement(found.group(1)), markdown)


def replacement(mark: str) -> str:
    """Returns the text for one mark."""
    if mark == "table":
        return table(load("results.json"))
    if mark == "where":
        return where(load("conditions.json"))
    if mark == "start":
        return start(load("start.json"))
    name, _, field = mark.rpartition("|")
    return one(name, field)


def load(name: str) -> Any:
    """Reads one of the files that `make bench` writes."""
    return json.loads((BENCHMARKS / name).read_text())


def one(name: str, field: str) -> str:
    """Returns one field of the result with that name (R2)."""
    for row in load("results.json"):
        if row["name"] == name:
            return figure(value_of(row, field))
    log.warning("no result is named %r in benchmarks/results.json", name)
    return "?"


def value_of(row: Result, field: str) -> float | None:
    """Returns a field, or the microseconds that follow from thousands a second."""
    fields: dict[str, Any] = dict(row)
    fields["us"] = 1000 / row["ours"]
    fields["us other"] = 1000 / row["other"] if row["other"] else None
    value: float | None = fields[field]
    return value


def table(results: list[Result]) -> str:
    """Returns the results as a table in Markdown."""
    lines = [
        "| what, against whom | ours | other | unit | ratio | range | goal | |",
        "|---|--:|--:|---|--:|--:|--:|---|",
    ]
    return "\n".join(lines + [line(row) for row in results])


def line(row: Result) -> str:
    """Returns one line of the table."""
    cells = (
        row["name"].replace(" | ", " &nbsp;·&nbsp; "),
        figure(row["ours"]),
        figure(row["other"]),
        row["unit"].replace(" ", "&nbsp;"),
        figure(row["ratio"]),
        spread(row),
        goal(row).replace(" ", "&nbsp;"),
        VERDICT[reached(row)],
    )
    return "| " + " | ".join(cells) + " |"


def start(stages: list[Stage]) -> str:
    """Returns the stages of a start as a table in Markdown, with their sum."""
    lines = ["| stage | ms | of these, importing modules |", "|---|--:|--:|"]
    lines += [f"| {row['name']} | {row['ms']:.1f} | {row['modules']:.1f} |" for row in stages]
    ms, modules = (sum(row[part] for row in stages) for part in ("ms", "modules"))
    return "\n".join([*lines, f"| **together** | **{ms:.1f}** | **{modules:.1f}** |"])


def where(conditions: dict[str, Any]) -> str:
    """Returns the sentence about the machine and the day."""
    return (
        "Measured on {day} in {pairs} pairs: {processor}, {cores} cores, Linux {kernel}, "
        "Python {python}, {qemu}."
    ).format(**conditions)
