# SPDX-License-Identifier: GPL-2.0-only
"""A sample of blkverify: two raw files that are equal."""

from __future__ import annotations

import os
from pathlib import Path

SIZE = 1 << 20


def options(folder: Path) -> dict[str, object]:
    """Returns nested options of a writable node over two new files in `folder`."""
    children: dict[str, object] = {}
    for name in ("raw", "test"):
        path = folder / f"{name}.img"
        path.write_bytes(bytes(SIZE))
        file = {"driver": "file", "filename": os.fspath(path)}
        children[name] = file if name == "raw" else {"driver": "raw", "file": file}
    return {"driver": "blkverify", **children}
