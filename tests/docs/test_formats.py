# SPDX-License-Identifier: GPL-2.0-only
"""Each format has a page that shows its file, tells its hooks and its limits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from block.core.driver import BlockDriver
from block.core.registry import find_format

DOCS = Path(__file__).parents[2] / "docs"
FORMATS = ("raw", "qcow2", "qed", "vmdk", "luks")
LIMITS = {
    "raw": "Limits",
    "qcow2": "What is there, and what is not",
    "qed": "What is not there",
    "vmdk": "What is there, and what is not",
    "luks": "Limits",
}
each_format = pytest.mark.parametrize("name", FORMATS)


def section(page: str, title: str) -> str:
    """What stands under a heading."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    assert found, f"no section {title!r}"
    return found[1]


@each_format
def test_the_page_shows_what_the_file_looks_like(name: str) -> None:
    assert f"docs/images/{name}-file" in (DOCS / f"{name}.md").read_text()


@each_format
def test_the_page_tells_what_each_hook_of_the_driver_does(name: str) -> None:
    table = section((DOCS / f"{name}.md").read_text(), "The hooks")
    rows = re.findall(r"^\| (`.*?`) \| \S", table, re.M)
    told = [hook for row in rows for hook in re.findall(r"`(\w+)`", row)]
    own = vars(type(find_format(name)))
    hooks = [hook for hook in own if callable(own[hook]) and hasattr(BlockDriver, hook)]
    assert sorted(told) == sorted(hook for hook in hooks if not hook.startswith("_"))


@each_format
def test_the_page_tells_the_limits(name: str) -> None:
    assert section((DOCS / f"{name}.md").read_text(), LIMITS[name]).strip()
