# SPDX-License-Identifier: GPL-2.0-only
"""A small image whose clusters have subclusters, of 2 KiB."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import block
from block.formats.qcow2.layout import OFLAG_COPIED
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE

SUB = CLUSTER // 32
PLACE = 5 * CLUSTER | OFLAG_COPIED
ONE, TOP = 1, 1 << 32


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An empty image with subclusters of 2 KiB."""
    path = tmp_path / "a.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, extended_l2=True)
    return path
