# SPDX-License-Identifier: GPL-2.0-only
"""Explorations have time, and their reports hold how large the spaces were."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.exploring import spaces


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each has more time than the search gives itself."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(400))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Puts the counts into the report, which goes to the process that prints the summary."""
    report = yield
    if call.when == "call" and (space := spaces.get(item.originalname)) is not None:
        report.user_properties.append(("explored", {"name": item.originalname, **space}))
    return report
