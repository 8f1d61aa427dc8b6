# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of qcow2 share: nothing left behind, and a small image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import block
from tests.block.core.conftest import iothread, main, nothing_left_behind, second_iothread
from tests.support.openers import Opener, openers
from tests.support.qcow2_tables import state_of

__all__ = ["Opener", "iothread", "main", "nothing_left_behind", "second_iothread", "state_of"]

SIZE = 8 << 20
CLUSTER = 65536


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An empty image of 8 MiB."""
    path = tmp_path / "a.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE)
    return path


@pytest.fixture
def opener(image: Path) -> Iterator[Opener]:
    """Opens the image, or another one; closes all of them after the test."""
    with openers("qcow2", image, discard="unmap") as open_it:
        yield open_it
