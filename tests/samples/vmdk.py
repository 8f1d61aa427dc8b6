# SPDX-License-Identifier: GPL-2.0-only
"""vmdk in several files: extents are the driver's own children, which it moves itself.

The disk has two sparse extents and a flat one, none of them a whole number of grains. The flat
one stands in the middle of its file. A variant has all in one file, `file`, which the
core moves.
"""

from __future__ import annotations

import os
from pathlib import Path

import block

SIZE = 1 << 20
PIECES = (
    ("SPARSE", (384 << 10) + 1536),
    ("FLAT", (256 << 10) + 512),
    ("SPARSE", (384 << 10) - 2048),
)
BEFORE = 7  # sectors of the flat one's file that are not the disk's

DESCRIPTOR = """\
# Disk DescriptorFile
version=1
CID=00000001
parentCID=ffffffff
createType="twoGbMaxExtentSparse"
"""


def several_files(folder: Path, pieces: tuple[tuple[str, int], ...] = PIECES) -> Path:
    """Makes a disk of several extents; returns the descriptor."""
    text = DESCRIPTOR
    for number, (kind, size) in enumerate(pieces):
        name = f"disk-{number}.vmdk"
        if kind == "FLAT":
            others = b"not the disk's!\n" * 32 * BEFORE
            (folder / name).write_bytes(others + bytes(size) + others)
        else:
            block.create(os.fspath(folder / name), "vmdk", size, zeroed_grain=True)
        text += f'RW {size // 512} {kind} "{name}"{f" {BEFORE}" if kind == "FLAT" else ""}\n'
    path = folder / "disk.vmdk"
    path.write_text(text)
    return path


def options(folder: Path) -> dict[str, object]:
    """Returns nested options of a writable node over new files in `folder`."""
    return _of(several_files(folder))


def one_file(folder: Path) -> dict[str, object]:
    path = folder / "disk.vmdk"
    block.create(os.fspath(path), "vmdk", SIZE)
    return _of(path)


def _of(path: Path) -> dict[str, object]:
    return {"driver": "vmdk", "file": {"driver": "file", "filename": os.fspath(path)}}


VARIANTS = {"monolithicSparse": one_file}
