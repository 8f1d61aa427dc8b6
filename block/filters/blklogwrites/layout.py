# SPDX-License-Identifier: GPL-2.0-only
"""The log on the disk, in the format of Linux's dm-log-writes (drivers/md/dm-log-writes.c).

    sector 0       the superblock: how many entries there are
    sector 1 ...   entries one after the other: a sector that describes, then the sectors written

R1  All numbers are little-endian. A sector is the log's: 512 bytes, or what the superblock says.
R2  An entry of a discard has no data behind it, however many sectors it names; a flush and a mark
    name none.
R3  A log is untrusted: whatever it promises must lie within its own length.
Who may call it: the driver, and block.ops.replay_log.
"""

from __future__ import annotations

import errno
import struct

from block.core.error import BlockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAGIC = 0x6A736677736872
VERSION = 1

FLUSH = 1 << 0
"""Everything above was safe on the disk here."""
FUA = 1 << 1
"""This write was safe when it ended."""
DISCARD = 1 << 2
"""These sectors were given up: no data follow."""
MARK = 1 << 3
"""Somebody left a note here; its text follows the fields, within the sector."""
FLAG_MASK = FLUSH | FUA | DISCARD | MARK

SUPER = struct.Struct("<QQQI")
"""magic, version, nr_entries, sectorsize (struct log_write_super)."""
ENTRY = struct.Struct("<QQQQ")
"""sector, nr_sectors, flags, data_len (struct log_write_entry)."""

DEFAULT_SECTOR_SIZE = 512


class Superblock:
    """How many entries a log has, and the size of its sectors in bytes."""

    __slots__ = ("nr_entries", "sector_size")

    def __init__(self, nr_entries: int = 0, sector_size: int = DEFAULT_SECTOR_SIZE) -> None:
        self.nr_entries = nr_entries
        self.sector_size = sector_size

    def pack(self) -> bytes:
        """Returns the whole sector 0."""
        fields = SUPER.pack(MAGIC, VERSION, self.nr_entries, self.sector_size)
        return fields.ljust(self.sector_size, b"\0")

    @classmethod
    def unpack(cls, sector: bytes) -> Superblock:
        """Reads one. Raises BlockError(EINVAL) for anything else, with QEMU's message."""
        magic, version, nr_entries, sector_size = SUPER.unpack_from(sector.ljust(SUPER.size, b"\0"))
        if magic != MAGIC:
            raise _invalid("Invalid log superblock magic")
        if version != VERSION:
            raise _invalid(f"Unsupported log version {version}")
        return cls(nr_entries, valid_sector_size(sector_size))


class LogEntry:
    """One entry: `offset` and `nbytes` of the disk, flags, and where its data are in the log."""

    __slots__ = ("data_offset", "flags", "nbytes", "offset")

    def __init__(self, offset: int, nbytes: int, flags: int, data_offset: int) -> None:
        self.offset = offset
        self.nbytes = nbytes
        self.flags = flags
        self.data_offset = data_offset

    def __repr__(self) -> str:
        return f"LogEntry(offset={self.offset}, nbytes={self.nbytes}, flags={self.flags:#x})"


def valid_sector_size(sector_size: int) -> int:
    """Returns a size that a log's sectors may have; BlockError(EINVAL) for others."""
    power_of_two = sector_size & (sector_size - 1) == 0
    if not power_of_two or not ENTRY.size <= sector_size < 1 << 24:
        raise _invalid(f"Invalid log sector size {sector_size}")
    return sector_size


def pack_entry(offset: int, nbytes: int, flags: int, sector_size: int) -> bytes:
    """Returns the sector that describes a change of `nbytes` at `offset` of the disk."""
    fields = ENTRY.pack(offset // sector_size, nbytes // sector_size, flags, 0)
    return fields.ljust(sector_size, b"\0")


def read_entries(
    read: Callable[[int, int], bytes], length: int, head: Superblock
) -> Iterator[LogEntry]:
    """Yields the entries of a log of `length` bytes, of which `read(offset, nbytes)` reads some.

    Raises BlockError(EINVAL) where an entry is not one, or does not lie within the log (R3).
    """
    size = head.sector_size
    end = size
    for number in range(head.nr_entries):
        if end + ENTRY.size > length:
            raise _invalid(f"Failed to read log entry {number}")
        sector, nr_sectors, flags, _ = ENTRY.unpack(read(end, ENTRY.size))
        if flags & ~FLAG_MASK:
            raise _invalid(f"Invalid flags {flags:#x} in log entry {number}")
        entry = LogEntry(sector * size, nr_sectors * size, flags, end + size)
        end = entry_end(entry)
        if end > length:
            raise _invalid(f"Failed to read log entry {number}")
        yield entry


def entry_end(entry: LogEntry) -> int:
    """Where the next entry of the log begins (R2)."""
    return entry.data_offset + (0 if entry.flags & DISCARD else entry.nbytes)


def _invalid(message: str) -> BlockError:
    return BlockError(errno.EINVAL, message, driver="blklogwrites")
