# SPDX-License-Identifier: GPL-2.0-only
"""The page about the explorer shows what it finds."""

from __future__ import annotations

import json
import re

from docs.hooks import explored


def test_each_exploration_is_in_the_table_with_its_count() -> None:
    kept = json.loads(explored.SPACES.read_text())
    lines = explored.spaces().splitlines()[2:]
    assert len(lines) == len(kept)
    for line, (name, space) in zip(lines, kept.items(), strict=True):
        assert name.removeprefix("test_").replace("_", " ") in line
        assert line.endswith(f"| {space['orders'] + space['beginnings']:,} |")


def test_each_exploration_of_the_table_is_a_test() -> None:
    sources = "".join(path.read_text() for path in explored.SPACES.parent.glob("test_*.py"))
    kept = json.loads(explored.SPACES.read_text())
    tests = set(re.findall(r"def (test_\w+)", sources))
    assert set(kept) == tests, "run: pytest tests/explore --keep-spaces"


def test_the_mistakes_are_found_sooner_than_all_orders_of_the_mended_code_are_tried() -> None:
    lines = explored.museum().splitlines()[2:]
    assert len(lines) == len(explored.COUNTED)
    for line in lines:
        found, mended = re.findall(r"\| ([\d,]+)", line)[1:3]
        assert 0 < int(found.replace(",", "")) < int(mended.replace(",", ""))


def test_the_picture_is_part_of_the_page() -> None:
    text = explored.on_page_markdown("before [[explored:picture]] after")
    assert text.startswith('before <figure class="mq"')
    assert "Deadlock" in text
