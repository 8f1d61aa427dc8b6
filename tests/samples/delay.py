# SPDX-License-Identifier: GPL-2.0-only
"""delay over a file: each request in flight begins as a timer of the node's context."""

from __future__ import annotations

from pathlib import Path


def options(folder: Path) -> dict[str, object]:
    image = folder / "disk.img"
    image.write_bytes(bytes(1 << 20))
    below = {"driver": "file", "filename": str(image)}
    return {"driver": "delay", "latency-ns": 1000, "file": below}
