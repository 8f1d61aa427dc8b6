# SPDX-License-Identifier: GPL-2.0-only
"""Counts of all explorations, in the summary; with --keep-spaces, in spaces.json for the docs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.exploring import spaces

FILE = Path(__file__).parent / "spaces.json"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each has more time than the search gives itself."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(400))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how large the spaces were that have been searched."""
    if not spaces:
        return
    terminalreporter.section("explored")
    for name, space in spaces.items():
        terminalreporter.line(
            f"{space['orders']:6} orders, {space['beginnings']:6} beginnings, "
            f"{space['preemptions']} preemptions, {space['seconds']:5.1f} s  {name}"
        )
    seconds = sum(float(space["seconds"]) for space in spaces.values())
    terminalreporter.line(f"{len(spaces)} explorations in {seconds:.0f} s")
    if terminalreporter.config.getoption("--keep-spaces", False):
        FILE.write_text(json.dumps(spaces, indent=1) + "\n")
