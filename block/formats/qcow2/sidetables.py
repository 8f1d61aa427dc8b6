# SPDX-License-Identifier: GPL-2.0-only
"""The snapshot table and the bitmap directory, as far as a check must know them.

Their clusters are in use. A check that did not read these tables would call them leaked, and a
repair would give them away.

R1  Each number is capped as QEMU caps it, before memory is asked for.
R2  Bitmaps count only where the image says that nobody has changed it behind their back
    (autoclear bit 0); else their clusters are leaked indeed.
Who may call it: walk.py.
"""

from __future__ import annotations

import errno
import struct

from block.core.error import BlockError
from block.formats.qcow2.cache import from_disk
from block.formats.qcow2.layout import (
    AUTOCLEAR_BITMAPS,
    ENTRY_SIZE,
    EXT_BITMAPS,
    MAX_SNAPSHOTS,
    OFFSET_MASK,
    SNAPSHOT_HEADER_LENGTH,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from block.formats.qcow2.walk import Walk

SNAPSHOT = struct.Struct(">QIHHIIQII")
"""l1_table_offset, l1_size, id_str_size, name_size, date_sec, date_nsec, vm_clock_nsec,
vm_state_size, extra_data_size."""
MAX_EXTRA = 1024
MAX_SNAPSHOTS_SIZE = 1024 * MAX_SNAPSHOTS

BITMAPS = struct.Struct(">IIQQ")
"""nb_bitmaps, reserved, bitmap_directory_size, bitmap_directory_offset."""
BITMAP = struct.Struct(">QIIBBHI")
"""bitmap_table_offset, bitmap_table_size, flags, type, granularity_bits, name_size,
extra_data_size."""
MAX_BITMAPS = 65535
MAX_DIRECTORY = 1024 * MAX_BITMAPS
MAX_BITMAP_TABLE = 0x8000000
MAX_BITMAP_BYTES = 0x20000000
MAX_BITMAP_NAME = 1023
BITMAP_FLAGS = 3
BITMAP_ENTRY_RESERVED = 0xFF00_0000_0000_01FE
DIRTY_TRACKING = 1


class Snapshot:
    """One internal snapshot: where its L1 table is."""

    __slots__ = ("extra_size", "id", "l1_offset", "l1_size", "name")

    def __init__(self, l1_offset: int, l1_size: int, extra_size: int, who: tuple[str, str]) -> None:
        self.l1_offset = l1_offset
        self.l1_size = l1_size
        self.extra_size = extra_size
        self.id, self.name = who


def _refuse(walk: Walk, message: str, number: int = errno.EINVAL) -> BlockError:
    return BlockError(number, message, walk.s.bs.node_name, "qcow2")


async def read_snapshots(walk: Walk) -> tuple[list[Snapshot], int]:
    """The snapshots, and how many bytes their table has (qcow2_do_read_snapshots).

    Raises BlockError where the table is too large or cut off.
    """
    s = walk.s
    if s.nb_snapshots > MAX_SNAPSHOTS:
        raise _refuse(walk, f"Snapshot table too large ({s.nb_snapshots})", errno.EFBIG)
    most = s.nb_snapshots * (SNAPSHOT_HEADER_LENGTH + MAX_EXTRA + 2 * 65536)
    most = min(most, MAX_SNAPSHOTS_SIZE, max(0, walk.file_length - s.snapshots_offset))
    data = await walk.read(s.snapshots_offset, most)
    snapshots = []
    at = 0
    for number in range(s.nb_snapshots):
        at += -at % 8
        if at + SNAPSHOT_HEADER_LENGTH > most:
            raise _refuse(walk, "Snapshot table is too big", errno.EFBIG)
        l1_offset, l1_size, id_size, name_size, *_, extra = SNAPSHOT.unpack_from(data, at)
        if extra > MAX_EXTRA:
            message = f"Too much extra metadata in snapshot table entry {number}"
            raise _refuse(walk, message, errno.EFBIG)
        at += SNAPSHOT_HEADER_LENGTH + extra
        who = _text(data[at : at + id_size]), _text(data[at + id_size : at + id_size + name_size])
        at += id_size + name_size
        if at > most:
            raise _refuse(walk, "Snapshot table is too big", errno.EFBIG)
        snapshots.append(Snapshot(l1_offset, l1_size, extra, who))
    return snapshots, at


def _text(data: bytes | bytearray) -> str:
    return data.decode(errors="backslashreplace")


async def read_bitmaps(walk: Walk) -> AsyncIterator[tuple[int, int]]:
    """(offset, bytes) of all that bitmaps have in the file (R2).

    Raises BlockError where the directory or a table contradicts itself.
    """
    s = walk.s
    if not s.autoclear_features & AUTOCLEAR_BITMAPS:
        return
    for kind, data in s.extensions:
        if kind != EXT_BITMAPS:
            continue
        if len(data) != BITMAPS.size:
            raise _refuse(walk, "bitmaps_ext: Invalid extension length")
        count, _, size, offset = BITMAPS.unpack(data)
        if not 0 < count <= MAX_BITMAPS or not 0 < size <= MAX_DIRECTORY:
            raise _refuse(walk, "Requested bitmap directory size is too big")
        yield offset, size
        directory = await walk.read(offset, min(size, max(0, walk.file_length - offset)))
        for place, entries in _directory(walk, bytes(directory), count):
            yield place, entries * ENTRY_SIZE
            async for cluster in _bitmap_clusters(walk, place, entries):
                yield cluster, s.cluster_size


def _directory(walk: Walk, data: bytes, count: int) -> Iterator[tuple[int, int]]:
    """(offset, entries) of each bitmap's table (bitmap_list_load)."""
    at = 0
    for _ in range(count):
        if at + BITMAP.size > len(data):
            raise _refuse(walk, "Broken bitmap directory")
        place, entries, flags, kind, granularity, name_size, extra = BITMAP.unpack_from(data, at)
        impossible = (
            not entries
            or not place
            or place & walk.s.cluster_mask
            or entries > MAX_BITMAP_TABLE
            or entries << walk.s.cluster_bits > MAX_BITMAP_BYTES
            or not 9 <= granularity <= 31
            or flags & ~BITMAP_FLAGS
            or name_size > MAX_BITMAP_NAME
            or extra
            or kind != DIRTY_TRACKING
        )
        if impossible:
            name = _text(data[at + BITMAP.size : at + BITMAP.size + name_size])
            raise _refuse(walk, f"Bitmap '{name}' doesn't satisfy the constraints")
        yield place, entries
        at += BITMAP.size + name_size
        at += -at % 8


async def _bitmap_clusters(walk: Walk, place: int, entries: int) -> AsyncIterator[int]:
    """The clusters that a bitmap's table points to (bitmap_table_load)."""
    nbytes = min(entries * ENTRY_SIZE, max(0, walk.file_length - place)) // ENTRY_SIZE * ENTRY_SIZE
    for entry in filter(None, from_disk("Q", await walk.read(place, nbytes))):
        offset = entry & OFFSET_MASK
        if entry & BITMAP_ENTRY_RESERVED or offset & walk.s.cluster_mask or (offset and entry & 1):
            raise _refuse(walk, f"Broken bitmap table entry {entry:#x}")
        if offset:
            yield offset
