# SPDX-License-Identifier: GPL-2.0-only
"""Measures two things in turns, and says how sure the answer is.

One figure says little on a machine that other people use too. So every case is measured
in pairs: ours, the other, ours, the other. What slows the machine down for a second then
hits both halves of a pair alike, and the pair's ratio hardly moves.

R1 A case's `run` functions make one measurement each and return one figure.
R2 The reported figures are medians; the ratio is the median of the pairs' ratios (not
   the ratio of the medians), and its spread runs from the smallest to the largest pair.
R3 A ratio is always ours / other. `better` says which way is the good one.
R4 Where there is nothing to compare with, the goal is a figure in the case's unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, TypedDict

Run = Callable[[], float]
Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Other:
    """One program or library that a case is compared with; the goal is for the ratio."""

    name: str
    run: Run
    goal: float | None = None


@dataclass(frozen=True)
class Case:
    """One thing that is measured: our way, and the ways of zero or more others.

    `goal` is an absolute figure in `unit`, for a case that has no others (R4).
    """

    name: str
    unit: str
    better: Better
    ours: Run
    others: tuple[Other, ...] = ()
    goal: float | None = None


class Missing(Exception):
    """What a case needs is not on this machine; the text says what, and how to get it."""


class Result(TypedDict):
    """One line of results.json."""

    name: str
    ours: float
    other: float | None
    unit: str
    ratio: float | None
    spread: list[float] | None
    goal: float | None
    better: Better


def measure(case: Case, pairs: int) -> list[Result]:
    """Runs a case `pairs` times, all its ways in turns: one result for each other."""
    ours: list[float] = []
    theirs: list[list[float]] = [[] for _ in case.others]
    for _ in range(pairs):
        ours.append(case.ours())
        for figures, other in zip(theirs, case.others, strict=True):
            figures.append(other.run())
    if not case.others:
        return [alone(case, ours)]
    rows = zip(case.others, theirs, strict=True)
    return [compare(case, other, ours, figures) for other, figures in rows]


def compare(case: Case, other: Other, ours: Sequence[float], theirs: Sequence[float]) -> Result:
    """Makes the result of one case against one other from the pairs' figures (R2, R3)."""
    ratios = [mine / its for mine, its in zip(ours, theirs, strict=True)]
    return Result(
        name=f"{case.name} | {other.name}",
        ours=median(ours),
        other=median(theirs),
        unit=case.unit,
        ratio=median(ratios),
        spread=[min(ratios), max(ratios)],
        goal=other.goal,
        better=case.better,
    )


def alone(case: Case, ours: Sequence[float]) -> Result:
    """Makes the result of a case that is compared with its goal only (R4)."""
    return Result(
        name=case.name,
        ours=median(ours),
        other=None,
        unit=case.unit,
        ratio=None,
        spread=[min(ours), max(ours)],
        goal=case.goal,
        better=case.better,
    )


def reached(result: Result) -> bool | None:
    """Says whether the goal was reached; None where there is none."""
    if result["goal"] is None:
        return None
    figure = result["ours"] if result["ratio"] is None else result["ratio"]
    if result["better"] == "higher":
        return figure >= result["goal"]
    return figure <= result["goal"]


def times_better(result: Result, figure: float) -> float:
    """Turns a ratio into "so many times as good", whichever way `better` points."""
    return figure if result["better"] == "higher" else 1 / figure
