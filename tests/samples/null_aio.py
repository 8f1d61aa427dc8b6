# SPDX-License-Identifier: GPL-2.0-only
"""null-aio with a latency: each request in flight is a timer of the node's context."""

from __future__ import annotations

from pathlib import Path

KEEPS_DATA = False


def options(folder: Path) -> dict[str, object]:
    return {"driver": "null-aio", "size": 1 << 20, "latency-ns": 1000, "read-zeroes": True}
