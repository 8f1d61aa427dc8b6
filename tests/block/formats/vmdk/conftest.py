# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of vmdk share: nothing left behind, a small image, and a disk of many files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import block
from block.core.backend import BlockBackend
from block.formats.vmdk.state import VmdkState
from tests.block.core.conftest import iothread, main, nothing_left_behind

__all__ = ["iothread", "main", "nothing_left_behind"]

SIZE = 8 << 20
GRAIN = 65536


def state_of(disk: BlockBackend) -> VmdkState:
    """What the driver knows of an open image."""
    assert disk.bs is not None
    s: VmdkState = disk.bs.opaque
    return s


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An empty image of 8 MiB in one file."""
    path = tmp_path / "a.vmdk"
    block.create(os.fspath(path), "vmdk", SIZE)
    return path
