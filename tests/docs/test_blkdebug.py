# SPDX-License-Identifier: GPL-2.0-only
"""The page on blkdebug: its programs print what it says, and its tables are complete."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from block.core import debug
from block.core.options import flatten
from block.filters.blkdebug import config, limits
from tests.docs.test_block_api import run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "filters" / "blkdebug.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", [0, 1], ids=["rules", "break points"])
def test_a_program_prints_what_the_page_says(number: int, tmp_path: Path) -> None:
    (rules,) = blocks("ini")
    (tmp_path / "rules.conf").write_text(rules)
    assert run(blocks("python")[number], tmp_path) == blocks("text")[number]


def test_the_rules_in_json_are_rules() -> None:
    (text,) = blocks("json")
    flat = flatten(json.loads(text))
    assert len(config.rules_from(config.take_sections(flat))) == 2


def first_cells(title: str) -> str:
    """The table under a title."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_table_of_rules_has_all_of_their_options() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", first_cells("Rules"), re.MULTILINE))
    assert named == {name for names in config.GROUPS.values() for name in names}


def test_the_table_of_events_is_what_the_sources_raise() -> None:
    named = set(re.findall(r"`(\w+)`", "".join(
        line.partition("| ")[2] for line in first_cells("Events").splitlines()
        if line.startswith("|")
    )))  # fmt: skip
    raised = set()
    for module in (ROOT / "block").rglob("*.py"):
        if module.name != "debug.py":
            raised |= set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", module.read_text()))
    constants = {name: value for name, value in vars(debug).items() if value in debug.EVENTS}
    assert named & set(debug.EVENTS) == {v for name, v in constants.items() if name in raised}


def test_the_page_names_all_limits() -> None:
    assert [name for name in limits.FIELDS if f"`{name}`" not in PAGE] == []
