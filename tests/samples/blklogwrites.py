# SPDX-License-Identifier: GPL-2.0-only
"""A sample of blklogwrites: a raw file, and its log beside it."""

from __future__ import annotations

import os
from pathlib import Path

SIZE = 1 << 20


def options(folder: Path) -> dict[str, object]:
    """Returns nested options of a writable node over two new files in `folder`."""
    children: dict[str, object] = {}
    for name, size in (("file", SIZE), ("log", 0)):
        path = folder / f"{name}.img"
        path.write_bytes(bytes(size))
        children[name] = {"driver": "file", "filename": os.fspath(path)}
    return {"driver": "blklogwrites", **children}
