# SPDX-License-Identifier: GPL-2.0-only
"""vmdk images that no `create` makes: those of ESX and of VMware's export, and lies.

cowd          an extent of ESX: COWD, small grains, tables only where something was written
exported      streamOptimized with markers, and with its tables and its header at the end
descriptor    the text of a disk of several files
poke, peek    one field of a header
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from block.formats.vmdk import layout as lay

SECTOR = 512
GRAIN = 65536

FIELDS = {  # name -> (offset, struct code)
    "magicNumber": (0, "I"), "version": (4, "I"), "flags": (8, "I"), "capacity": (12, "Q"),
    "grainSize": (20, "Q"), "descriptorOffset": (28, "Q"), "descriptorSize": (36, "Q"),
    "numGTEsPerGT": (44, "I"), "rgdOffset": (48, "Q"), "gdOffset": (56, "Q"),
    "overHead": (64, "Q"), "compressAlgorithm": (77, "H"),
}  # fmt: skip


def poke(path: Path, field: str, value: int) -> None:
    """Changes a field of a KDMV header."""
    offset, code = FIELDS[field]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack("<" + code, value))


def peek(path: Path, field: str) -> int:
    """What a field says."""
    offset, code = FIELDS[field]
    value: int = struct.unpack_from("<" + code, path.read_bytes(), offset)[0]
    return value


def descriptor(kind: str, *lines: str) -> str:
    """A descriptor with these extents."""
    head = f'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="{kind}"\n'
    return head + "".join(f"{line}\n" for line in lines)


def cowd(sectors: int, grain: int = 1, text: str = "") -> bytes:
    """An extent of ESX without a single table; `grain` in sectors, `text` the descriptor in it."""
    entries = -(-sectors // (lay.COWD_TABLE_ENTRIES * grain))
    fields = (1, 3, sectors, grain, 4, entries, 5)
    head = lay.COWD_MAGIC + struct.pack("<7I", *fields)
    directory = bytes(-(-entries * 4 // SECTOR) * SECTOR)
    head = head.ljust(SECTOR, b"\0") + text.encode()
    return head.ljust(4 * SECTOR, b"\0") + directory


def exported(grains: dict[int, bytes], capacity: int, name: str = "a.vmdk") -> bytes:
    """An image as VMware exports it: grain number -> 64 KiB, packed one behind the other."""
    line = f'RW {capacity // SECTOR} SPARSE "{name}"'
    text = descriptor("streamOptimized", line).encode()
    image = bytearray(_header(capacity, lay.GD_AT_END) + text.ljust(20 * SECTOR, b"\0"))
    image.extend(bytes(GRAIN - len(image)))
    table = [0] * 512
    for number, data in sorted(grains.items()):
        table[number] = len(image) // SECTOR
        packed = zlib.compress(data)
        record = lay.GRAIN_MARKER.pack(number * GRAIN // SECTOR, len(packed)) + packed
        image += record + bytes(-len(record) % SECTOR)
    place = _add_metadata(image, lay.MARKER_GT, struct.pack("<512I", *table))
    place = _add_metadata(image, lay.MARKER_GD, struct.pack("<I", place).ljust(SECTOR, b"\0"))
    _add_metadata(image, lay.MARKER_FOOTER, _header(capacity, place))
    return bytes(image + bytes(SECTOR))


def _add_metadata(image: bytearray, kind: int, data: bytes) -> int:
    """Appends a marker and what it announces; returns the sector of the latter."""
    sectors = 0 if kind == lay.MARKER_FOOTER else len(data) // SECTOR
    image += struct.pack("<QII", sectors, 0, kind).ljust(SECTOR, b"\0")
    place = len(image) // SECTOR
    image += data
    return place


def _header(capacity: int, directory: int) -> bytes:
    fields = {
        "magicNumber": lay.SPARSE_MAGIC, "version": 3,
        "flags": lay.FLAG_NL_DETECT | lay.FLAG_COMPRESSED | lay.FLAG_MARKERS,
        "capacity": capacity // SECTOR, "grainSize": GRAIN // SECTOR, "descriptorOffset": 1,
        "descriptorSize": 20, "numGTEsPerGT": 512, "rgdOffset": 0, "gdOffset": directory,
        "overHead": GRAIN // SECTOR, "uncleanShutdown": b"\0", "checkBytes": lay.CHECK_BYTES,
        "compressAlgorithm": lay.COMPRESSION_DEFLATE,
    }  # fmt: skip
    return lay.SPARSE_HEADER.build(fields)
