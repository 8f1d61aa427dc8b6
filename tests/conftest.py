# SPDX-License-Identifier: GPL-2.0-only
"""What every test may ask for, and a last word about what was skipped.

guest_elf        the toy kernel, built if its sources are newer
leaves_nothing   the test must leave no open descriptor and no thread behind
"""

from __future__ import annotations

import gc
import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

PATIENCE = 5.0


@pytest.fixture(scope="session")
def guest_elf() -> Path:
    """The path of guest/guest.elf, up to date."""
    from tests.support.boot import built_elf

    return built_elf()


def open_descriptors() -> dict[int, str]:
    """Every open descriptor of this process, and what it is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            pass  # the one that listed the directory
    return found


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    """Fails a test that leaves descriptors open or threads running."""
    gc.collect()
    descriptors, threads = open_descriptors(), set(threading.enumerate())
    yield
    gc.collect()
    left = set(threading.enumerate()) - threads
    for thread in left:
        thread.join(PATIENCE)
    assert not [thread.name for thread in left if thread.is_alive()]
    assert {fd: what for fd, what in open_descriptors().items() if fd not in descriptors} == {}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what was skipped and how to get what it needs."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple):
            reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1
    if reasons:
        terminalreporter.section("skipped, and what would run it")
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count:5} {reason}")
