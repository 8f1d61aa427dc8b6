# SPDX-License-Identifier: GPL-2.0-only
"""What tests of several rooms of the machine start from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from block.aio.context import AioContext


@pytest.fixture
def ctx() -> Iterator[AioContext]:
    """A context of the test's own, in which nothing may be left behind."""
    ctx = AioContext("test")
    yield ctx
    assert ctx.registrations() == []
    ctx.close()
