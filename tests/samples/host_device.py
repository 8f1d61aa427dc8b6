# SPDX-License-Identifier: GPL-2.0-only
"""host_device: on a file that passes for a disk, as real ones need root."""

from __future__ import annotations

from pathlib import Path

from tests.support.fake_device import FakeDisk

_disks: list[FakeDisk] = []


def options(folder: Path) -> dict[str, object]:
    if not _disks:
        _disks.append(FakeDisk())
        _disks[0].install()
    image = folder / "disk.img"
    image.write_bytes(bytes(1 << 20))
    return {"driver": "host_device", "filename": str(image)}


def close() -> None:
    while _disks:
        _disks.pop().remove()
