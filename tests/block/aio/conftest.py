# SPDX-License-Identifier: GPL-2.0-only
"""Contexts for the tests of the event loop; whatever a test leaves open, its fixture reports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from block.aio.context import AioContext
from block.aio.world import World
from tests.support.descriptors import open_fds
from tests.support.plain_world import PlainWorld
from tests.support.virtual_world import VirtualWorld

REAL_TIME = {"asyncio", "threading", "time"}
own_world = pytest.mark.real_world("its context is in a world of the test's own")
own_clock = pytest.mark.real_world("threads, asyncio or clocks of the test's own")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every kind of world that a test can run in; fake threads are for those without real ones."""
    if "world" in metafunc.fixturenames:
        worlds = [pytest.param(name, marks=own_world) for name in ("linux", "plain")]
        if not REAL_TIME & vars(metafunc.module).keys():
            worlds.append(pytest.param("deterministic"))
        metafunc.parametrize("world", worlds, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is not in the world of the process has no use for a deterministic one (--seed)."""
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        if {"virtual_world", "virtual_ctx"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(own_world)
        elif REAL_TIME & vars(getattr(item, "module", None)).keys():
            item.add_marker(own_clock)


@pytest.fixture
def world(request: pytest.FixtureRequest) -> World:
    """The real world, with and without epoll and eventfd, or the one of fake threads."""
    if request.param == "deterministic":
        made: World = request.getfixturevalue("deterministic_world")
        return made
    return World() if request.param == "linux" else PlainWorld()


@pytest.fixture
def ctx(world: World) -> Iterator[AioContext]:
    """A context in the real world; after the test nothing of it is left."""
    yield from _context(world)


@pytest.fixture
def virtual_world() -> VirtualWorld:
    return VirtualWorld()


@pytest.fixture
def virtual_ctx(virtual_world: VirtualWorld) -> Iterator[AioContext]:
    """A context in virtual time."""
    yield from _context(virtual_world)


def _context(world: World) -> Iterator[AioContext]:
    before = open_fds()
    context = AioContext("tested", world)
    yield context
    context.close()
    assert open_fds() == before, "the test or the context left descriptors open"
