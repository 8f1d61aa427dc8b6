# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures: images of which the guest's data lie in a file of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import block
from tests.block.formats.qcow2.conftest import SIZE


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Where the guest's data are."""
    return tmp_path / "data.raw"


@pytest.fixture
def image(tmp_path: Path, data: Path) -> Path:
    """An empty image with a data file."""
    path = tmp_path / "a.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, data_file=os.fspath(data))
    return path


@pytest.fixture
def raw_image(tmp_path: Path, data: Path) -> Path:
    """An empty image whose data file is the whole disk."""
    path = tmp_path / "raw.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, data_file=os.fspath(data), data_file_raw=True)
    return path
