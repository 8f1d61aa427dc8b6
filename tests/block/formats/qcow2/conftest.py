# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of qcow2 share: nothing left behind, and a small image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import block
from block.core.backend import BlockBackend
from tests.block.core.conftest import iothread, main, nothing_left_behind, second_iothread
from tests.support.qcow2_packed import state_of

__all__ = ["iothread", "main", "nothing_left_behind", "second_iothread", "state_of"]

SIZE = 8 << 20
CLUSTER = 65536
Opener = Callable[..., BlockBackend]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An empty image of 8 MiB."""
    path = tmp_path / "a.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE)
    return path


@pytest.fixture
def opener(image: Path) -> Iterator[Opener]:
    """Opens the image, or another one; closes all of them after the test."""
    opened: list[BlockBackend] = []

    def open_it(path: Path = image, **how: Any) -> BlockBackend:
        how = {"format": "qcow2", "cache": "unsafe", **how}
        how["options"] = {"discard": "unmap", **how.get("options", {})}
        disk = block.open(os.fspath(path), **how)
        opened.append(disk)
        return disk

    yield open_it
    for disk in opened:
        if disk.refcnt:
            disk.close()
