# SPDX-License-Identifier: GPL-2.0-only
"""Contexts to move among."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.aio.world import the_world


@pytest.fixture
def main() -> AioContext:
    """The main loop's context."""
    return the_world().main_context


@pytest.fixture
def iothread() -> Iterator[IOThread]:
    """An IOThread, closed afterwards."""
    with IOThread("iothread0") as thread:
        yield thread
