# SPDX-License-Identifier: GPL-2.0-only
"""qed images for tests: made small, changed by hand, and opened over memory.

    data = new_image(folder, 4 << 20, cluster_size=4096)
    with opened(Tape(data)) as disk: ...        every write and flush is on the tape

Fields of the header and entries of tables are changed with `poke`; `entries` reads a table.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import block
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.open import open_backend
from block.formats.qed.state import QedState
from tests.support.qcow2_disk import Tape, open_on

FIELDS = {  # name -> (offset, struct code)
    "magic": (0, "I"), "cluster_size": (4, "I"), "table_size": (8, "I"), "header_size": (12, "I"),
    "features": (16, "Q"), "compat_features": (24, "Q"), "autoclear_features": (32, "Q"),
    "l1_table_offset": (40, "Q"), "image_size": (48, "Q"), "backing_filename_offset": (56, "I"),
    "backing_filename_size": (60, "I"),
}  # fmt: skip
NEED_CHECK = 2


def new_image(folder: Path, size: int, **options: Any) -> bytes:
    """The bytes of a new image."""
    path = folder / "new.qed"
    path.unlink(missing_ok=True)
    block.create(os.fspath(path), "qed", size, **options)
    return path.read_bytes()


def opened(tape: Tape, **options: Any) -> AbstractContextManager[BlockBackend]:
    """An image over a tape."""
    return open_on(tape, driver="qed", **options)


@contextmanager
def opened_for_check(path: Path, read_only: bool = False) -> Iterator[BlockBackend]:
    """An image as a checker opens it: nothing is repaired before it asks for that."""
    flags = f.BDRV_O_CHECK | (0 if read_only else f.BDRV_O_RDWR)
    disk = open_backend(os.fspath(path), options={"driver": "qed"}, flags=flags)
    try:
        yield disk
    finally:
        disk.unref()


def state_of(disk: BlockBackend) -> QedState:
    """What the driver knows of an open image."""
    assert disk.bs is not None
    s: QedState = disk.bs.opaque
    return s


def field(data: bytes | bytearray, name: str) -> int:
    """A field of a header."""
    offset, code = FIELDS[name]
    value: int = struct.unpack_from("<" + code, data, offset)[0]
    return value


def poke(path: Path, place: str | int, value: int) -> None:
    """Changes a field of the header, or the entry at an offset of the file."""
    offset, code = FIELDS[place] if isinstance(place, str) else (place, "Q")
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack("<" + code, value))


def entry(data: bytes | bytearray, table: int, index: int) -> int:
    """An entry of the table at an offset of the file."""
    value: int = struct.unpack_from("<Q", data, table + 8 * index)[0]
    return value
