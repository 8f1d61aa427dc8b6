# SPDX-License-Identifier: GPL-2.0-only
"""preallocate over a file, in small steps."""

from __future__ import annotations

from pathlib import Path


def options(folder: Path) -> dict[str, object]:
    image = folder / "disk.img"
    image.write_bytes(bytes(1 << 20))
    below = {"driver": "file", "filename": str(image)}
    sizes = {"prealloc-size": "256k", "prealloc-align": "64k"}
    return {"driver": "preallocate", "file": below, **sizes}
