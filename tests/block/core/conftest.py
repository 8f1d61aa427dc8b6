# SPDX-License-Identifier: GPL-2.0-only
"""What every test of the tree gets: a world that is empty before and after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.aio.world import the_world
from block.core import graph


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No node, backend or registration may outlive the test."""
    before = set(graph.all_states), set(graph.backends)
    yield
    assert set(graph.all_states) == before[0], "the test left nodes behind"
    assert set(graph.backends) == before[1], "the test left backends behind"
    main = the_world().main_context
    while main.poll(False):
        pass
    assert not main.external_disabled
    left = [r for r in main.registrations() if r.kind != "bh"]
    assert [r for r in left if r.owner is not None and r.kind in ("timer", "aio")] == []


@pytest.fixture
def main() -> AioContext:
    """The main loop's context."""
    return the_world().main_context


@pytest.fixture
def iothread() -> Iterator[IOThread]:
    """An IOThread, closed afterwards."""
    with IOThread("iothread0") as thread:
        yield thread


@pytest.fixture
def second_iothread() -> Iterator[IOThread]:
    """Another one."""
    with IOThread("iothread1") as thread:
        yield thread
