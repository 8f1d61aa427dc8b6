# SPDX-License-Identifier: GPL-2.0-only
"""The arithmetic of the benchmarks: turns, medians, ratios, goals."""

from __future__ import annotations

import pytest

from benchmarks.harness import (
    Better,
    Case,
    Other,
    Result,
    Run,
    measure,
    reached,
    times_better,
)


def figures(log: list[str], who: str, *values: float) -> Run:
    """Returns a measurement that hands out the values one by one, and logs whose it was."""
    left = list(values)

    def run() -> float:
        log.append(who)
        return left.pop(0)

    return run


def result(
    *,
    ours: float = 3.0,
    ratio: float | None = 1.6,
    goal: float | None = 1.5,
    better: Better = "higher",
) -> Result:
    """Returns a result that reached its goal of 1.5, unless told otherwise."""
    return Result(
        name="n",
        ours=ours,
        other=2.0,
        unit="u",
        ratio=ratio,
        spread=[1.0, 2.0],
        goal=goal,
        better=better,
    )


def test_the_ways_of_a_case_take_turns() -> None:
    log: list[str] = []
    case = Case(
        name="c",
        unit="u",
        better="higher",
        ours=figures(log, "ours", 1, 1, 1),
        others=(
            Other("a", figures(log, "a", 1, 1, 1)),
            Other("b", figures(log, "b", 1, 1, 1)),
        ),
    )
    measure(case, pairs=3)
    assert log == ["ours", "a", "b"] * 3


def test_the_ratio_is_the_median_of_the_pairs_and_not_the_ratio_of_the_medians() -> None:
    case = Case(
        name="read",
        unit="u",
        better="higher",
        ours=figures([], "ours", 10, 30, 20),
        others=(Other("C", figures([], "C", 10, 5, 4), goal=1.5),),
    )
    [row] = measure(case, pairs=3)
    assert row["name"] == "read | C"
    assert (row["ours"], row["other"]) == (20, 5)
    assert row["ratio"] == 5.0
    assert row["spread"] == [1.0, 6.0]
    assert row["goal"] == 1.5


def test_each_other_gets_a_line_of_its_own() -> None:
    case = Case(
        name="c",
        unit="u",
        better="higher",
        ours=figures([], "ours", 6),
        others=(Other("a", figures([], "a", 3), goal=3.0), Other("b", figures([], "b", 2))),
    )
    rows = measure(case, pairs=1)
    assert [(row["name"], row["ratio"], row["goal"]) for row in rows] == [
        ("c | a", 2.0, 3.0),
        ("c | b", 3.0, None),
    ]


def test_a_case_without_others_is_compared_with_its_goal() -> None:
    case = Case(name="mem", unit="MB", better="lower", ours=figures([], "o", 50, 70, 55), goal=60)
    [row] = measure(case, pairs=3)
    assert row == {
        "name": "mem",
        "ours": 55,
        "other": None,
        "unit": "MB",
        "ratio": None,
        "spread": [50, 70],
        "goal": 60,
        "better": "lower",
    }
    assert reached(row) is True


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (result(ratio=1.5), True),
        (result(ratio=1.49), False),
        (result(ratio=0.9, goal=1.0, better="lower"), True),
        (result(ratio=1.1, goal=1.0, better="lower"), False),
        (result(ratio=None, ours=61.0, goal=60.0, better="lower"), False),
        (result(goal=None), None),
    ],
)
def test_a_goal_is_reached_or_not(row: Result, verdict: bool | None) -> None:
    assert reached(row) is verdict


def test_half_the_time_is_twice_as_good() -> None:
    assert times_better(result(better="lower"), 0.5) == 2.0
    assert times_better(result(better="higher"), 0.5) == 0.5
