# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of qed share: nothing left behind, and a small image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import block
from block.core.backend import BlockBackend
from tests.block.core.conftest import main, nothing_left_behind

__all__ = ["main", "nothing_left_behind"]

SIZE = 8 << 20
CLUSTER = 65536
L1_TABLE = CLUSTER
FIRST_DATA = 5 * CLUSTER
FIRST_L2 = 6 * CLUSTER
Opener = Callable[..., BlockBackend]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An empty image of 8 MiB: header, then an L1 table of 4 clusters."""
    path = tmp_path / "a.qed"
    block.create(os.fspath(path), "qed", SIZE)
    return path


@pytest.fixture
def opener(image: Path) -> Iterator[Opener]:
    """Opens the image, or another one; closes all of them after the test."""
    disks: list[BlockBackend] = []

    def open_it(path: Path = image, **how: Any) -> BlockBackend:
        disk = block.open(os.fspath(path), **{"format": "qed", "cache": "unsafe", **how})
        disks.append(disk)
        return disk

    yield open_it
    for disk in disks:
        if disk.refcnt:
            disk.close()
