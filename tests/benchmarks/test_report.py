# SPDX-License-Identifier: GPL-2.0-only
"""The table, the picture and the JSON of the benchmarks."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason='pip install -e ".[bench]"')
pytest.importorskip("rich", reason='pip install -e ".[bench]"')

from rich.console import Console

from benchmarks import picture, report, words
from benchmarks.harness import Better, Result


def row(name: str, ratio: float | None, better: Better = "higher") -> Result:
    """Returns a result whose pairs lay between half and twice its ratio."""
    return Result(
        name=name,
        ours=251.7,
        other=None if ratio is None else 119.0,
        unit="thousand/s",
        ratio=ratio,
        spread=[0.9, 1.1] if ratio is None else [ratio / 2, ratio * 2],
        goal=1.5,
        better=better,
    )


def test_in_a_pipe_the_names_are_whole() -> None:
    out = io.StringIO()
    name = "io_uring, O_DIRECT: 4 KiB random read, depth 32, beside qemu-img bench -i io_uring"
    report.print_table([row(name, 1.5)], Console(file=out, width=80))
    assert name in out.getvalue()


def test_figures_have_three_digits() -> None:
    assert [words.figure(x) for x in (1234.5, 99.94, 2.114, 0.01234, None)] == [
        "1234",
        "99.9",
        "2.11",
        "0.0123",
        "",
    ]


def test_the_table_says_which_goal_was_reached() -> None:
    screen = Console(file=io.StringIO(), width=140)
    screen.print(report.table([row("fast", 2.115), row("slow", 1.0)]))
    assert isinstance(screen.file, io.StringIO)
    fast, slow = (line for line in screen.file.getvalue().splitlines() if "thousand/s" in line)
    assert fast.split() == [
        *("fast", "252", "119", "thousand/s", "2.12", "1.06..4.23", "≥", "1.5", "reached"),
    ]
    assert "missed" in slow


def test_fresh_results_take_the_places_of_the_old_ones() -> None:
    old = [row("a", 1.0), row("b", 1.0)]
    merged = report.merge(old, [row("c", 3.0), row("b", 2.0)])
    assert [(r["name"], r["ratio"]) for r in merged] == [("a", 1.0), ("b", 2.0), ("c", 3.0)]


def test_the_json_is_the_list_of_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(report, "CONDITIONS", tmp_path / "conditions.json")
    report.write_results([row("a", 2.0), row("memory", None)], pairs=7)
    assert report.read_results() == [row("a", 2.0), row("memory", None)]
    assert json.loads(report.CONDITIONS.read_text())["pairs"] == 7


def test_a_bar_points_to_the_right_when_less_time_is_better() -> None:
    assert report.bar(row("start", 0.5, "lower")) == (2.0, 1.0, 4.0)


def test_the_picture_shows_every_case_that_has_a_ratio(tmp_path: Path) -> None:
    picture.draw([row("the first", 2.0), row("the memory", None)], tmp_path)
    for name in ("bench.svg", "bench-dark.svg"):
        drawn = (tmp_path / name).read_text()
        assert "the first" in drawn
        assert "the memory" not in drawn
