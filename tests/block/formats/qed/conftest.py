# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of qed share: nothing left behind, and a small image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import block
from tests.block.core.conftest import main, nothing_left_behind
from tests.support.openers import Opener, openers

__all__ = ["Opener", "main", "nothing_left_behind"]

SIZE = 8 << 20
CLUSTER = 65536
L1_TABLE = CLUSTER
FIRST_DATA = 5 * CLUSTER
FIRST_L2 = 6 * CLUSTER


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An empty image of 8 MiB: header, then an L1 table of 4 clusters."""
    path = tmp_path / "a.qed"
    block.create(os.fspath(path), "qed", SIZE)
    return path


@pytest.fixture
def opener(image: Path) -> Iterator[Opener]:
    """Opens the image, or another one; closes all of them after the test."""
    with openers("qed", image) as open_it:
        yield open_it
