# SPDX-License-Identifier: GPL-2.0-only
"""The images of one run of the benchmarks: where they lie, and two that several cases use.

They lie in build/, not in /tmp: that may be a tmpfs, which refuses RWF_NOWAIT on reads. Each run
has a folder of its own: image locks would keep two runs apart.
"""

from __future__ import annotations

import atexit
import functools
import os
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "build" / "bench"
SIZE = 64 << 20
CHUNK = 1 << 20


@functools.cache
def folder() -> Path:
    """Returns a folder for images, which goes at the end."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    made = tempfile.TemporaryDirectory(dir=FOLDER)
    atexit.register(made.cleanup)
    return Path(made.name)


def place(name: str) -> str:
    """Returns the path of an image there."""
    return str(folder() / name)


@functools.cache
def raw() -> str:
    """Returns the path of a raw image full of data; it is made once."""
    path = place("disk.raw")
    chunk = os.urandom(CHUNK)
    with open(path, "wb") as file:
        for _ in range(SIZE // CHUNK):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return path


@functools.cache
def qcow2() -> str:
    """Returns the path of a qcow2 image in which every cluster is there; it is made once."""
    import block

    path = place("disk.qcow2")
    block.create(path, "qcow2", SIZE)
    with block.open(path, format="qcow2") as disk:
        for offset in range(0, SIZE, CHUNK):
            disk.pwrite(offset, os.urandom(CHUNK))
    return path
