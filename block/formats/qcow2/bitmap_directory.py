# SPDX-License-Identifier: GPL-2.0-only
"""Where bitmaps are in the file (the specification's "Bitmaps" chapter).

    header extension -> directory -> a table for each bitmap -> clusters full of bits

    entry of a table   0: no bit is set   1: all are   else the offset of a cluster

R1  Autoclear bit 0 says that the extension is right: a program that does not know bitmaps has
    cleared it when it wrote to the disk. Without it the extension is dropped.
R2  Nothing is believed: each number is capped as QEMU caps it, before memory is asked for.
R3  A table or a cluster that lies outside the file, or belongs to two, is refused: read as zeroes,
    it would say that nothing was written. So what is loaded is no larger than the file.
R4  Extra data are kept. Where the entry does not say that one may ignore them (flag 2), the bitmap
    is kept too, and not used.
Coroutines hold the image's lock, or are alone with the image.
"""

from __future__ import annotations

from block.core.report import warn_report
from block.formats.qcow2.cache import from_disk
from block.formats.qcow2.layout import (
    AUTOCLEAR_BITMAPS,
    ENTRY_SIZE,
    EXT_BITMAPS,
    OFFSET_MASK,
)
from block.formats.qcow2.state import refuse
from block.lean import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

    from block.formats.qcow2.state import Qcow2State

EXTENSION = Struct(">IIQQ")
"""nb_bitmaps, reserved, bitmap_directory_size, bitmap_directory_offset."""
ENTRY = Struct(">QIIBBHI")
"""bitmap_table_offset, bitmap_table_size, flags, type, granularity_bits, name_size,
extra_data_size; then the extra data and the name, padded to 8 bytes."""
DIRTY_TRACKING = 1

MAX_BITMAPS = 65535
MAX_DIRECTORY = 1024 * MAX_BITMAPS
MAX_TABLE = 0x8000000  # entries
MAX_BYTES = 0x20000000  # of the bits of one bitmap
MAX_NAME = 1023
MIN_GRANULARITY_BITS, MAX_GRANULARITY_BITS = 9, 31

IN_USE = 1 << 0
"""The bits in the file are out of date: somebody has the image open, or did not close it."""
AUTO = 1 << 1
"""It notes writes as soon as the image is open."""
EXTRA_COMPATIBLE = 1 << 2
"""One need not understand the extra data."""
KNOWN_FLAGS = IN_USE | AUTO | EXTRA_COMPATIBLE
FLAG_NAMES = ((IN_USE, "in-use"), (AUTO, "auto"))

ALL_ONES = 1
TABLE_RESERVED = 0xFF00_0000_0000_01FE


# -- the header extension


def take_extension(s: Qcow2State) -> bool:
    """Takes the extension from those of the header (in qcow2_read_extensions).

    True: it was dropped (R1), so the header should be written anew.
    """
    found = [data for kind, data in s.extensions if kind == EXT_BITMAPS]
    s.extensions = [pair for pair in s.extensions if pair[0] != EXT_BITMAPS]
    for data in found:
        if len(data) != EXTENSION.size:
            raise refuse(s, "bitmaps_ext: Invalid extension length")
        if not s.autoclear_features & AUTOCLEAR_BITMAPS:
            _say_lost(s)
            return True
        _take_fields(s, *EXTENSION.unpack(data))
    return False


def _say_lost(s: Qcow2State) -> None:
    if s.version < 3:
        why = (
            "This qcow2 v2 image contains bitmaps, but they may have been modified by a program "
            "without persistent bitmap support; so now they must all be considered inconsistent"
        )
    else:
        why = (
            "a program lacking bitmap support modified this file, so all bitmaps are now "
            "considered inconsistent"
        )
    warn_report(f"{why}\nSome clusters may be leaked, run 'qemu-img check -r' on the image file")


def _take_fields(s: Qcow2State, count: int, reserved: int, size: int, offset: int) -> None:
    if reserved:
        raise refuse(s, "bitmaps_ext: Reserved field is not zero")
    if count > MAX_BITMAPS:
        raise refuse(
            s,
            f"bitmaps_ext: Image has {count} bitmaps, exceeding the QEMU supported maximum of "
            f"{MAX_BITMAPS}",
        )
    if not count:
        raise refuse(s, "found bitmaps extension with zero bitmaps")
    if offset & s.cluster_mask:
        raise refuse(s, "bitmaps_ext: invalid bitmap directory offset")
    if size > MAX_DIRECTORY:
        raise refuse(
            s,
            f"bitmaps_ext: bitmap directory size ({size}) exceeds the maximum supported size "
            f"({MAX_DIRECTORY})",
        )
    s.nb_bitmaps = count
    s.bitmap_directory_size = size
    s.bitmap_directory_offset = offset


def extension(s: Qcow2State) -> bytes:
    """The extension as it belongs into the header; b'' where there are no bitmaps."""
    if not s.nb_bitmaps:
        return b""
    return EXTENSION.pack(s.nb_bitmaps, 0, s.bitmap_directory_size, s.bitmap_directory_offset)


# -- the directory


class BitmapEntry:
    """What the directory says of one bitmap (Qcow2Bitmap)."""

    __slots__ = ("extra", "flags", "granularity_bits", "name", "table_offset", "table_size")

    def __init__(self, name: str) -> None:
        self.name = name
        self.table_offset = 0
        self.table_size = 0  # entries
        self.flags = 0
        self.granularity_bits = 0
        self.extra = b""

    @property
    def is_understood(self) -> bool:
        """Whether the bitmap may be used (R4)."""
        return not self.extra or bool(self.flags & EXTRA_COMPATIBLE)

    def pack(self) -> bytes:
        """The bytes of the entry."""
        name = self.name.encode(errors="surrogateescape")
        head = ENTRY.pack(
            self.table_offset, self.table_size, self.flags, DIRTY_TRACKING,
            self.granularity_bits, len(name), len(self.extra),
        )  # fmt: skip
        data = head + self.extra + name
        return data + bytes(-len(data) % 8)

    def info(self) -> dict[str, object]:
        """Qcow2BitmapInfo of QEMU's schema."""
        flags = [name for flag, name in FLAG_NAMES if self.flags & flag]
        return {"flags": flags, "name": self.name, "granularity": 1 << self.granularity_bits}


def entry_size(name: str) -> int:
    """How many bytes the entry of a new bitmap takes (calc_dir_entry_size)."""
    return len(BitmapEntry(name).pack())


def bits_size(nbytes: int, granularity: int) -> int:
    """How many bytes the bits for a disk take (get_bitmap_bytes_needed)."""
    bits = -(-nbytes // granularity)
    return -(-bits // 8)


def covered(s: Qcow2State, granularity: int) -> int:
    """How many bytes of the disk one cluster of bits is for (bytes_covered_by_bitmap_cluster)."""
    return s.cluster_size * 8 * granularity


def check_entry(s: Qcow2State, entry: BitmapEntry) -> None:
    """Raises unless the entry could be true (check_dir_entry)."""
    nbytes = entry.table_size << s.cluster_bits
    reach = nbytes * 8 << min(entry.granularity_bits, MAX_GRANULARITY_BITS)
    possible = (
        0 < entry.table_size <= MAX_TABLE
        and entry.table_offset
        and not entry.table_offset & s.cluster_mask
        and MIN_GRANULARITY_BITS <= entry.granularity_bits <= MAX_GRANULARITY_BITS
        and not entry.flags & ~KNOWN_FLAGS
        and nbytes <= MAX_BYTES
        # One that was not saved may be for a disk of another length.
        and (entry.flags & IN_USE or s.bs.total_sectors << 9 <= reach)
        and "\0" not in entry.name
    )
    if not possible:
        shown = entry.name.encode(errors="surrogateescape").decode(errors="backslashreplace")
        raise refuse(s, f"Bitmap '{shown}' doesn't satisfy the constraints")


def parse(s: Qcow2State, data: bytes) -> list[BitmapEntry]:
    """Takes a directory apart (bitmap_list_load). Raises BlockError (R2)."""
    entries: list[BitmapEntry] = []
    at = 0
    while at < len(data):
        if at + ENTRY.size > len(data):
            raise refuse(s, "Broken bitmap directory")
        if len(entries) == s.nb_bitmaps:
            raise refuse(s, "More bitmaps found than specified in header extension")
        offset, size, flags, kind, granularity, name_size, extra = ENTRY.unpack_from(data, at)
        end = at + ENTRY.size + extra + name_size
        end += -end % 8
        if end > len(data):
            raise refuse(s, "Broken bitmap directory")
        at += ENTRY.size
        name = data[at + extra : at + extra + name_size]
        entry = BitmapEntry(name.decode(errors="surrogateescape"))
        entry.table_offset, entry.table_size, entry.flags = offset, size, flags
        entry.granularity_bits, entry.extra = granularity, data[at : at + extra]
        if kind != DIRTY_TRACKING or name_size > MAX_NAME:
            entry.table_size = 0  # which cannot be
        check_entry(s, entry)
        entries.append(entry)
        at = end
    if len(entries) != s.nb_bitmaps:
        raise refuse(s, "Less bitmaps found than specified in header extension")
    return entries


async def read_directory(s: Qcow2State) -> list[BitmapEntry]:
    """Reads the directory, if there is one. Raises BlockError."""
    if not s.nb_bitmaps:
        return []
    size = s.bitmap_directory_size
    if not size:
        raise refuse(s, "Requested bitmap directory size is zero")
    return parse(s, bytes(await read_inside(s, s.bitmap_directory_offset, size)))


async def read_inside(s: Qcow2State, offset: int, nbytes: int) -> bytearray:
    """Reads what must be in the file (R3)."""
    if offset + nbytes > s.file_length():
        raise refuse(s, f"Bitmap data at {offset:#x} lie beyond the end of the file")
    data = bytearray(nbytes)
    await s.file.co_preadv(offset, nbytes, [memoryview(data)])
    return data


# -- a table


async def read_table(s: Qcow2State, entry: BitmapEntry) -> array[int]:
    """Reads the table of a bitmap (bitmap_table_load). Raises BlockError."""
    data = await read_inside(s, entry.table_offset, entry.table_size * ENTRY_SIZE)
    table = from_disk("Q", data)
    for value in filter(None, table):
        offset = value & OFFSET_MASK
        if value & TABLE_RESERVED or offset & s.cluster_mask or (offset and value & ALL_ONES):
            raise refuse(s, f"Broken bitmap table entry {value:#x}")
    return table


def table_clusters(table: array[int]) -> list[int]:
    """The offsets of the clusters that a table points to."""
    return [value for value in table if value & OFFSET_MASK]
