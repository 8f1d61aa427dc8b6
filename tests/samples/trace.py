# SPDX-License-Identifier: GPL-2.0-only
"""trace over a file, with its log beside it."""

from __future__ import annotations

from pathlib import Path


def options(folder: Path) -> dict[str, object]:
    image = folder / "disk.img"
    image.write_bytes(bytes(1 << 20))
    below = {"driver": "file", "filename": str(image)}
    return {"driver": "trace", "log": str(folder / "log"), "file": below}
