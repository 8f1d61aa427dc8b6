# SPDX-License-Identifier: GPL-2.0-only
"""Bitmaps in a qcow2 file, read by nothing but the specification: a second opinion.

stored(path)["b0"].areas      [(offset, bytes), ...] that are dirty
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

IN_USE, AUTO, EXTRA_COMPATIBLE = 1, 2, 4
Areas = list[tuple[int, int]]


class Stored(NamedTuple):
    """What the file says of one bitmap; `at` is where its entry stands."""

    flags: int
    granularity: int
    areas: Areas
    extra: bytes
    at: int


def place_of(data: bytes) -> tuple[int, int, int]:
    """(bitmaps, size, offset) of the directory, as the header's extension has it; zeroes: none."""
    at = struct.unpack_from(">I", data, 100)[0]
    while True:
        kind, length = struct.unpack_from(">II", data, at)
        if kind == 0x23852875:
            count, _, size, offset = struct.unpack_from(">IIQQ", data, at + 8)
            return count, size, offset
        if kind == 0:
            return 0, 0, 0
        at += 8 + length + -length % 8


def stored(path: Path) -> dict[str, Stored]:
    """All bitmaps of an image, if it says that they can be believed."""
    data = path.read_bytes()
    count, size, at = place_of(data)
    assert bool(count) == bool(struct.unpack_from(">Q", data, 88)[0] & 1)
    end, found = at + size, {}
    for _ in range(count):
        start = at
        table, entries, flags, kind, bits, name_size, extra_size = struct.unpack_from(
            ">QIIBBHI", data, at
        )
        assert kind == 1
        at += 24
        extra, name = data[at : at + extra_size], data[at + extra_size :][:name_size]
        at += extra_size + name_size
        at += -at % 8
        areas = _areas(data, table, entries, 1 << bits)
        found[name.decode()] = Stored(flags, 1 << bits, areas, extra, start)
    assert at == end
    return found


def _areas(data: bytes, table: int, entries: int, granularity: int) -> Areas:
    """Bit after bit, as dirty ranges; the last may reach over the end of the disk."""
    (size,) = struct.unpack_from(">Q", data, 24)
    cluster = 1 << struct.unpack_from(">I", data, 20)[0]
    bits = b""
    for entry in struct.unpack_from(f">{entries}Q", data, table):
        bits += data[entry : entry + cluster] if entry > 1 else bytes([255 * entry]) * cluster
    dirty = (n for n in range(-(-size // granularity)) if bits[n // 8] >> n % 8 & 1)
    return areas_of(dirty, granularity, size)


def areas_of(parts: Iterable[int], granularity: int, size: int) -> Areas:
    """Ascending parts of a disk, of a bitmap's granularity each, as dirty ranges."""
    areas: Areas = []
    for part in parts:
        start = part * granularity
        end = min(start + granularity, size)
        if areas and sum(areas[-1]) == start:
            start = areas.pop()[0]
        areas.append((start, end - start))
    return areas
