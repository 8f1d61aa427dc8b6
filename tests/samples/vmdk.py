# SPDX-License-Identifier: GPL-2.0-only
"""vmdk in several files: extents are the driver's own children, which it moves itself.

The disk has two sparse extents and a flat one. A variant has all in one file, `file`, which the
core moves.
"""

from __future__ import annotations

import os
from pathlib import Path

import block

SIZE = 1 << 20
PIECES = (("SPARSE", 384 << 10), ("FLAT", 256 << 10), ("SPARSE", 384 << 10))

DESCRIPTOR = """\
# Disk DescriptorFile
version=1
CID=00000001
parentCID=ffffffff
createType="twoGbMaxExtentSparse"
"""


def several_files(folder: Path) -> Path:
    """Makes a disk of three extents; returns the descriptor."""
    text = DESCRIPTOR
    for number, (kind, size) in enumerate(PIECES):
        name = f"disk-{number}.vmdk"
        if kind == "FLAT":
            (folder / name).write_bytes(bytes(size))
        else:
            block.create(os.fspath(folder / name), "vmdk", size, zeroed_grain=True)
        text += f'RW {size // 512} {kind} "{name}"{" 0" if kind == "FLAT" else ""}\n'
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
