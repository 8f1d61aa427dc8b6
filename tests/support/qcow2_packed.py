# SPDX-License-Identifier: GPL-2.0-only
"""Compressed clusters of qcow2: data for them, and where they lie."""

from __future__ import annotations

import random
from pathlib import Path

from block.core import flags as f
from block.core.backend import BlockBackend
from block.formats.qcow2.compressed_entry import compressed_place
from block.formats.qcow2.layout import OFLAG_COMPRESSED
from tests.support.qcow2_tables import state_of

COMPRESSED = f.REQ_WRITE_COMPRESSED
CLUSTER = 65536


def text(number: int, nbytes: int = CLUSTER, random_bytes: int = 20_000) -> bytes:
    """Data of which about `random_bytes` are left when they are packed."""
    noise = random.Random(number).randbytes(min(random_bytes, nbytes))
    return noise.ljust(nbytes, bytes([number + 1]))


def entries(disk: BlockBackend, count: int) -> list[int]:
    """The first L2 entries."""
    s = state_of(disk)
    table = s.cached_slice(0)
    assert table is not None
    return list(table.cells[:count])


def places(disk: BlockBackend, count: int) -> list[tuple[int, int]]:
    """(offset, bytes to the end of the last sector) of the first clusters, all compressed."""
    found = entries(disk, count)
    assert all(entry & OFLAG_COMPRESSED for entry in found)
    return [compressed_place(state_of(disk), entry) for entry in found]


def poke(path: Path, place: int, data: bytes) -> None:
    """Writes into the file of an image."""
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)
