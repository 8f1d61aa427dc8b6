# SPDX-License-Identifier: GPL-2.0-only
"""blkdebug without rules, over a file."""

from __future__ import annotations

import os
from pathlib import Path


def options(folder: Path) -> dict[str, object]:
    """A node of two mebibytes."""
    image = folder / "blkdebug.img"
    image.write_bytes(bytes(2 << 20))
    return {"driver": "blkdebug", "image": {"driver": "file", "filename": os.fspath(image)}}
