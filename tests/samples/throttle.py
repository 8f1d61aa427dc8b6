# SPDX-License-Identifier: GPL-2.0-only
"""throttle over a file: limits that are in force, but let a test's requests through."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from block.objects.throttle_group import ThrottleGroup, throttle_group_create
from block.objects.throttle_options import config_of

_made: list[ThrottleGroup] = []
_numbers = count()


def options(folder: Path) -> dict[str, object]:
    """Returns nested options of a writable node; the group is gone with `close`."""
    image = folder / "disk.img"
    image.write_bytes(bytes(1 << 20))
    name = f"sample{next(_numbers)}"
    _made.append(throttle_group_create(name, config_of({"iops-total": 1_000_000})))
    below = {"driver": "file", "filename": str(image)}
    return {"driver": "throttle", "throttle-group": name, "file": below}


def close() -> None:
    """Lets go of the groups; those of nodes that are open still live on."""
    while _made:
        _made.pop().unref()
