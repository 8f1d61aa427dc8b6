# SPDX-License-Identifier: GPL-2.0-only
"""A log while it grows.

R1  Entries are written one after the other, so the superblock never counts one that is not there.
R2  A change is written down when it has been done: a request that fails leaves no entry, and two
    that run side by side stand in the order in which they ended.
R3  A flush keeps the log to itself from its beginning to its end: what ends meanwhile stands behind
    it, for nobody knows whether that flush made it safe.
R4  The superblock is written after each flush, and after every `interval` entries.
Who may call it: the driver, in coroutines of the node's context.

QEMU gives every entry its place first and then writes all at once; its superblock may count, for
a moment, an entry that is still on its way.
"""

from __future__ import annotations

from block.aio.co_lock import CoMutex
from block.filters.blklogwrites.layout import (
    FLUSH,
    LogEntry,
    Superblock,
    entry_end,
    pack_entry,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from block.core.edge import BdrvChild
    from block.core.iov import Iov


class WriteLog:
    """The log of a node: `child` holds it, `end` is where the next entry goes, in bytes."""

    __slots__ = ("_lock", "child", "end", "head", "interval")

    def __init__(
        self, child: BdrvChild, head: Superblock, interval: int, entries: Iterable[LogEntry] = ()
    ) -> None:
        self.child = child
        self.head = head
        self.interval = interval
        self.end = head.sector_size
        for entry in entries:
            self.end = entry_end(entry)
        self._lock = CoMutex()

    async def append(self, offset: int, nbytes: int, flags: int, data: Iov | None) -> None:
        """Adds a change that has been done; `data` None: that many zeroes (R2)."""
        async with self._lock:
            await self._append(offset, nbytes, flags, data)

    async def around_flush(self, flush: Callable[[], Awaitable[None]]) -> None:
        """Flushes, and says so in the log (R3)."""
        async with self._lock:
            await flush()
            await self._append(0, 0, FLUSH, [])

    async def _append(self, offset: int, nbytes: int, flags: int, data: Iov | None) -> None:
        size = self.head.sector_size
        sector = memoryview(pack_entry(offset, nbytes, flags, size))
        behind = self.end + size
        iov = [sector, *(data or ())]
        written = size + (nbytes if data else 0)
        await self.child.co_pwritev(self.end, written, iov)
        if data is None and nbytes:
            await self.child.co_pwrite_zeroes(behind, nbytes)
        self.end = entry_end(LogEntry(offset, nbytes, flags, behind))
        self.head.nr_entries += 1
        if flags & FLUSH or self.head.nr_entries % self.interval == 0:
            await self.child.co_pwritev(0, size, [memoryview(self.head.pack())])
            await self.child.co_flush()
