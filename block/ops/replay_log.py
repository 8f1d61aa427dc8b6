# SPDX-License-Identifier: GPL-2.0-only
"""Replays the log of a blklogwrites node: the disk as it was at any moment, or after a power cut.

    log = ReplayLog.open("disk.log")
    log.replay(log.entries[:7], image)                    the first seven changes, in order
    log.replay(log.power_cut(7, random.Random(1)), image) what may be left of them

`image` is a file that holds what the disk held before the log began.

R1  A flush in the log promises that every change above it is on the disk. Of what stands behind the
    last flush anything may be missing, and the rest may have reached the disk in any order.
R2  A sector of the log is written whole or not at all; a longer change may be torn between two.
R3  A replay never makes the image shorter; behind its end are zeroes.
Who may call it: tools and tests; nothing here needs an event loop.
"""

from __future__ import annotations

from block.filters.blklogwrites.layout import (
    DISCARD,
    FLUSH,
    LogEntry,
    Superblock,
    read_entries,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import random
    from collections.abc import Iterable
    from typing import BinaryIO


class ReplayLog:
    """A log that has been read: `entries` in order, `data` the whole file."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)
        self.head = Superblock.unpack(data[:512])
        self.entries = list(read_entries(self._read, len(data), self.head))

    @classmethod
    def open(cls, path: str) -> ReplayLog:
        """Reads a log file. Raises OSError, and BlockError for what is no log."""
        with open(path, "rb") as file:
            return cls(file.read())

    def _read(self, offset: int, nbytes: int) -> bytes:
        return bytes(self.data[offset : offset + nbytes])

    def data_of(self, entry: LogEntry) -> bytes:
        """What an entry wrote; a discard left zeroes."""
        if entry.flags & DISCARD:
            return bytes(entry.nbytes)
        return self._read(entry.data_offset, entry.nbytes)

    def replay(self, entries: Iterable[LogEntry], image: BinaryIO) -> None:
        """Does these changes to an image, in this order (R3)."""
        for entry in entries:
            if entry.nbytes:
                image.seek(entry.offset)
                image.write(self.data_of(entry))

    def last_flush(self, at: int) -> int:
        """How many of the first `at` entries are safe: up to the last flush, and with it."""
        safe = (number for number in range(at, 0, -1) if self.entries[number - 1].flags & FLUSH)
        return next(safe, 0)

    def power_cut(self, at: int, pick: random.Random) -> list[LogEntry]:
        """What a power cut behind the first `at` entries may leave, by `pick` (R1, R2)."""
        safe = self.last_flush(at)
        late = [entry for entry in self.entries[safe:at] if pick.random() < 0.6]
        pick.shuffle(late)
        return self.entries[:safe] + [self._torn(entry, pick) for entry in late]

    def _torn(self, entry: LogEntry, pick: random.Random) -> LogEntry:
        """An entry, one in four cut to some of its sectors."""
        count = entry.nbytes // self.head.sector_size
        if count < 2 or pick.random() < 0.75:
            return entry
        first = pick.randrange(count)
        skipped, kept = (
            number * self.head.sector_size for number in (first, pick.randint(1, count - first))
        )
        data_offset = entry.data_offset + skipped
        return LogEntry(entry.offset + skipped, kept, entry.flags, data_offset)
