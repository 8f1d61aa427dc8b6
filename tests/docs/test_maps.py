# SPDX-License-Identifier: GPL-2.0-only
"""The map at the head of a room names every module in it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = 3  # a room with no more modules needs no map
OF_DRIVERS = ("formats", "filters")  # the table of drivers is their map: core/registry.py


def modules(room: Path) -> set[str]:
    """What is in a room: modules, and rooms of their own."""
    found = {path.stem for path in room.glob("*.py")} - {"__init__", "__main__"}
    return found | {path.parent.name for path in room.glob("*/__init__.py")}


def rooms() -> list[Path]:
    found = (
        path.parent
        for house in ("block", "miniqemu")
        for path in sorted((ROOT / house).glob("*/**/__init__.py"))
    )
    return [room for room in found if room.name not in OF_DRIVERS and len(modules(room)) > SMALL]


@pytest.mark.parametrize("room", rooms(), ids=lambda room: str(room.relative_to(ROOT)))
def test_a_map_names_every_module(room: Path) -> None:
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
    assert modules(room) - set(re.findall(r"\w+", text)) == set()
