# SPDX-License-Identifier: GPL-2.0-only
"""Draws the ratios as bars, with a mark for each goal (docs/images/bench*.svg).

Two files with the same content, for a light and for a dark page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.harness import Result, reached, times_better
from benchmarks.report import IMAGES, bar, compared
from benchmarks.words import figure

TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20)


@dataclass(frozen=True)
class Palette:
    """The colours of one scheme of the documentation."""

    file: str
    ink: str
    grid: str
    good: str
    bad: str
    plain: str
    mark: str


LIGHT = Palette("bench.svg", "#24292f", "#d5d9e0", "#3f7fbf", "#c9683f", "#9aa5b1", "#111111")
DARK = Palette("bench-dark.svg", "#d7dae0", "#454a56", "#5a9bd8", "#d98457", "#7b8594", "#ffffff")


def draw(results: Sequence[Result], folder: Path = IMAGES) -> None:
    """Writes the picture in both schemes; nothing where no result has a ratio."""
    rows = compared(results)
    if not rows:
        return
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "miniqemu"})
    for palette in (LIGHT, DARK):
        drawn = one(rows, palette)
        drawn.savefig(folder / palette.file, transparent=True, metadata={"Date": None})


def one(rows: Sequence[Result], palette: Palette) -> Figure:
    """Returns the picture in one scheme."""
    made = Figure(figsize=(9, 0.9 + 0.34 * len(rows)), layout="constrained")
    axes = made.subplots()
    for place, row in enumerate(rows):
        one_bar(axes, place, row, palette)
    axis(axes, rows, palette)
    return made


def colour(row: Result, palette: Palette) -> str:
    """Returns a bar's colour: its goal was reached, missed, or it has none."""
    return {True: palette.good, False: palette.bad, None: palette.plain}[reached(row)]


def one_bar(axes: Axes, place: int, row: Result, palette: Palette) -> None:
    """Draws one bar from 1 to its ratio, the range of the pairs, the goal, the number."""
    value, low, high = bar(row)
    axes.barh(place, value - 1, left=1, height=0.62, color=colour(row, palette))
    axes.plot([low, high], [place, place], color=palette.ink, linewidth=1.2)
    where = 1.0
    if row["goal"] is not None:
        where = times_better(row, row["goal"])
        axes.plot([where, where], [place - 0.42, place + 0.42], color=palette.mark, linewidth=2.2)
    axes.annotate(
        figure(value),
        (max(high, value, where, 1), place),
        xytext=(6, 0),
        textcoords="offset points",
        verticalalignment="center",
        fontsize=9,
        color=palette.ink,
    )


def axis(axes: Axes, rows: Sequence[Result], palette: Palette) -> None:
    """Sets up the logarithmic axis, its names and its colours."""
    ends = [end for row in rows for end in bar(row)]
    axes.set_xscale("log")
    axes.set_xlim(min(0.45, *ends) * 0.9, max(4.0, *ends) * 1.4)
    axes.set_xticks(TICKS)
    axes.set_xlim(min(0.45, *ends) * 0.9, max(4.0, *ends) * 1.4)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}x"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=9)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.axvline(1, color=palette.ink, linewidth=1)
    axes.grid(axis="x", color=palette.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=palette.ink, which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("times as good as the other (thick mark: the goal)", color=palette.ink)
