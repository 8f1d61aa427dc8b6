# SPDX-License-Identifier: GPL-2.0-only
"""Opening images in a test, as often as it likes, and closing all of them after it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import block
from block.core.backend import BlockBackend

Opener = Callable[..., BlockBackend]


@contextmanager
def openers(fmt: str, image: Path, **usual: object) -> Iterator[Opener]:
    """Yields open_it(path=image, **how), which is block.open; `usual` options go with each."""
    disks: list[BlockBackend] = []

    def open_it(path: Path = image, **how: Any) -> BlockBackend:
        how = {"format": fmt, "cache": "unsafe", **how}
        how["options"] = {**usual, **how.get("options", {})}
        disks.append(block.open(os.fspath(path), **how))
        return disks[-1]

    yield open_it
    for disk in disks:
        if disk.refcnt:
            disk.close()
