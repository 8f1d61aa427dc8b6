# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of the file driver share: an image, and nothing left behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.open import open_backend
from tests.block.core.conftest import iothread, main, nothing_left_behind, second_iothread
from tests.support.descriptors import open_fds

__all__ = ["iothread", "main", "nothing_left_behind", "second_iothread"]

SIZE = 1 << 20
Opener = Callable[..., BlockBackend]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file of 1 MiB in which every 4 KiB differ."""
    path = tmp_path / "a.img"
    path.write_bytes(b"".join(bytes([n % 251]) * 4096 for n in range(SIZE // 4096)))
    return path


@pytest.fixture
def opener(image: Path) -> Iterator[Opener]:
    """Opens the image as a `file` node; closes all of them after the test."""
    opened: list[BlockBackend] = []

    def open_it(flags: int = f.BDRV_O_RDWR | f.BDRV_O_RESIZE, **options: Any) -> BlockBackend:
        shared = options.pop("shared_perm", f.BLK_PERM_ALL)
        names = {name.replace("_", "-"): value for name, value in options.items()}
        named = {"driver": "file", **names}
        blk = open_backend(os.fspath(image), options=named, flags=flags, shared_perm=shared)
        opened.append(blk)
        return blk

    before = len(open_fds())
    yield open_it
    for blk in opened:
        if blk.refcnt:
            blk.unref()
    assert len(open_fds()) <= before + 4, "descriptors of images are left"
