# SPDX-License-Identifier: GPL-2.0-only
"""A sample of quorum: three raw files, two of which must agree."""

from __future__ import annotations

import os
from pathlib import Path

SIZE = 1 << 20


def options(folder: Path) -> dict[str, object]:
    """Returns nested options of a writable node over three new files in `folder`."""
    children = []
    for n in range(3):
        path = folder / f"child{n}.img"
        path.write_bytes(bytes(SIZE))
        file = {"driver": "file", "filename": os.fspath(path)}
        children.append({"driver": "raw", "file": file})
    return {"driver": "quorum", "vote-threshold": 2, "children": children}
