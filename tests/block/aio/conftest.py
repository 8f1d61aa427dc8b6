# SPDX-License-Identifier: GPL-2.0-only
"""Contexts for the tests of the event loop; whatever a test leaves open, its fixture reports."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from block.aio.context import AioContext
from block.aio.world import World
from tests.support.descriptors import open_fds
from tests.support.plain_world import PlainWorld
from tests.support.virtual_world import VirtualWorld


@pytest.fixture(params=[World, PlainWorld], ids=["linux", "plain"])
def world(request: pytest.FixtureRequest) -> World:
    """The real world, with and without epoll and eventfd."""
    made: World = request.param()
    return made


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
