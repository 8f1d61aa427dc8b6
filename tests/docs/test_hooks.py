# SPDX-License-Identifier: GPL-2.0-only
"""What the build puts into the pages: figures, quoted source, the navigation."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from docs.hooks import figures, hostile, nav, source

ROWS = [
    {
        "name": "read | C",
        "ours": 250.0,
        "other": 100.0,
        "unit": "thousand/s",
        "ratio": 2.5,
        "spread": [2.0, 3.0],
        "goal": 1.5,
        "better": "higher",
    },
    {
        "name": "memory",
        "ours": 70.0,
        "other": None,
        "unit": "MB",
        "ratio": None,
        "spread": [69.0, 71.0],
        "goal": 60.0,
        "better": "lower",
    },
]


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts two results in the place of those that were really measured."""
    (tmp_path / "results.json").write_text(json.dumps(ROWS))
    monkeypatch.setattr(figures, "BENCHMARKS", tmp_path)


@pytest.mark.usefixtures("measured")
def test_a_page_gets_its_figures_from_the_measurement() -> None:
    page = "[[bench:read | C|ratio]] times: [[bench:read | C|us]], not [[bench:read | C|us other]]"
    assert figures.on_page_markdown(page) == "2.5 times: 4, not 10"


@pytest.mark.usefixtures("measured")
def test_the_table_says_which_goal_was_missed() -> None:
    *_, read, memory = figures.on_page_markdown("[[bench:table]]").splitlines()
    assert read.endswith("| 2.5 | 2..3 | ≥&nbsp;1.5 | reached |")
    assert memory.endswith("|  | 69..71 | ≤&nbsp;60 | **missed** |")


@pytest.mark.usefixtures("measured")
def test_the_stages_of_a_start_are_shown_with_their_sum(tmp_path: Path) -> None:
    stages = [{"name": "one", "ms": 1.25, "modules": 1}, {"name": "two", "ms": 2, "modules": 0.5}]
    (tmp_path / "start.json").write_text(json.dumps(stages))
    *_, two, together = figures.on_page_markdown("[[bench:start]]").splitlines()
    assert two == "| two | 2.0 | 0.5 |"
    assert together == "| **together** | **3.2** | **1.5** |"


@pytest.mark.usefixtures("measured")
def test_a_figure_that_was_never_measured_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert figures.on_page_markdown("[[bench:write|ours]]") == "?"
    assert "no result is named 'write'" in caplog.text


def test_a_quoted_function_is_the_one_in_the_file() -> None:
    page = source.on_page_markdown("a\n\n[[source:docs/hooks/nav.py:on_config]]\n\nb")
    assert '```python title="docs/hooks/nav.py"\ndef on_config(' in page
    assert page.rstrip().endswith("b")
    assert "def existing" not in page


def test_a_quoted_method_loses_its_indentation() -> None:
    page = source.on_page_markdown("[[source:docs/tools/draw.py:Box.top]]")
    assert "\ndef top(self" in page


def test_a_function_that_is_gone_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert source.on_page_markdown("[[source:docs/hooks/nav.py:gone]]") == ""
    assert "no gone there" in caplog.text


def test_a_quoted_c_function_comes_with_its_comment() -> None:
    page = source.on_page_markdown("[[source:guest/disk.c:kick]]")
    assert page.startswith('```c title="guest/disk.c"\n// Let the device see')
    assert page.endswith("\n}\n```")
    assert page.count("\n}\n") == 1


def test_a_c_function_that_is_gone_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert source.on_page_markdown("[[source:guest/disk.c:gone]]") == ""
    assert "no gone there" in caplog.text


def test_lines_are_counted_not_typed(caplog: pytest.LogCaptureFixture) -> None:
    count = len((source.ROOT / "guest/disk.c").read_text().splitlines())
    assert source.on_page_markdown("has [[lines:guest/disk.c]] lines") == f"has {count} lines"
    assert source.lines("guest/disk.c guest/*.S") > count
    with caplog.at_level(logging.WARNING):
        assert source.on_page_markdown("[[lines:guest/*.gone]]") == "0"
    assert "no file to count" in caplog.text


def test_pages_that_are_not_written_yet_stay_out_of_the_navigation(tmp_path: Path) -> None:
    (tmp_path / "here.md").touch()
    entries = [{"Here": "here.md"}, {"Part": [{"No": "no.md"}]}, {"Both": [{"Here": "here.md"}]}]
    assert nav.existing(entries, tmp_path) == [{"Here": "here.md"}, {"Both": [{"Here": "here.md"}]}]


def test_the_hostile_table_comes_from_the_tests() -> None:
    page = hostile.on_page_markdown("[[hostile:table]]")
    assert "| next is 65535 | 2.7.5: next is in the table | NEEDS_RESET |" in page
    rows = page.count(" |\n") - page.count("### ")  # less the heads
    assert hostile.on_page_markdown("[[hostile:count]] deeds") == f"{rows} deeds"
    assert 0 < int(hostile.on_page_markdown("[[hostile:count UNSUPP]]")) < rows
