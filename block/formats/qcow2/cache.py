# SPDX-License-Identifier: GPL-2.0-only
"""Tables in memory: slices of L2 tables, and refcount blocks (block/qcow2-cache.c).

What makes a crash harmless is the order in which tables reach the disk. A cache may therefore
depend on the other one, or on a flush of the file:

    allocating   refcounts first, then the L2 entry that points to the cluster
    freeing      the L2 entry first, then the refcount
    copying      the copied data flushed first, then the L2 entry that points to it

A crash in between leaves a cluster that nobody uses, never one that two use.

R1  All but `tables.get`, `clean_unused` and `resize` is called with the image's lock held.
R2  A table that `get` returned may be used until the next await: then it may be out again.
R3  Before a dirty table is written, what its cache depends on is written and flushed.
R4  The memory is bounded in bytes. The table that goes is one not used since the last
    search for one (second chance): a hit costs one store.
R5  A table is read only where the file has something: written back, a table from anywhere else
    would make the file as long as a lying offset says.
R6  What goes to the disk is a copy in the disk's byte order: the table may change meanwhile.
"""

from __future__ import annotations

import errno
import sys
from array import array

from block.aio.coroutine import NOTHING_TO_WAIT_FOR
from block.core.debug import debug_event
from block.core.error import BlockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from block.core.edge import BdrvChild

SWAP = sys.byteorder == "little"


def from_disk(typecode: str, data: bytes | bytearray | memoryview) -> array[int]:
    """Numbers as the machine has them, from big-endian bytes."""
    cells = array(typecode)
    cells.frombytes(data)
    if SWAP:
        cells.byteswap()
    return cells


def to_disk(cells: array[int]) -> memoryview:
    """Big-endian bytes, a copy."""
    copy = cells[:]
    if SWAP:
        copy.byteswap()
    return memoryview(copy).cast("B")


def split(numbers: array[int], with_bitmaps: bool = True) -> tuple[array[int], array[int] | None]:
    """(entries, bitmaps) of an extended L2 table, in which they take turns."""
    return (numbers[::2], numbers[1::2]) if with_bitmaps else (numbers, None)


def join(cells: array[int], bitmaps: array[int] | None) -> array[int]:
    """The reverse of split."""
    if bitmaps is None:
        return cells
    numbers = array("Q", bytes(16 * len(cells)))
    numbers[::2], numbers[1::2] = cells, bitmaps
    return numbers


class Table:
    """One table: its place in the file, its entries, and the bitmaps of extended L2 entries."""

    __slots__ = ("bitmaps", "cells", "dirty", "offset", "recent")

    def __init__(self, offset: int, cells: array[int], bitmaps: array[int] | None = None) -> None:
        self.offset = offset
        self.cells = cells
        self.bitmaps = bitmaps
        self.dirty = False
        self.recent = True


class TableCache:
    """Some tables of one kind (Qcow2Cache).

    They lie in `file`; what the entries of L2 tables point to lies in `data`, mostly the same.
    `table_size` is in bytes and `capacity` in tables. `check(offset)` raises where a table must
    not be written. `events` are raised before a table is read ('' for none) and written (debug.py).
    """

    def __init__(
        self,
        name: str,
        file: BdrvChild,
        typecode: str,
        table_size: int,
        capacity: int,
        check: Callable[[int], Awaitable[None]],
        complain: Callable[[str], Awaitable[BlockError]],
        events: tuple[str, str],
        with_bitmaps: bool = False,
    ) -> None:
        self.name = name
        self.with_bitmaps = with_bitmaps
        self.tables: dict[int, Table] = {}
        self.depends: TableCache | None = None
        self.depends_on_flush = False
        self.capacity = capacity
        self.table_size = table_size
        self._typecode = typecode
        self._file = file
        self.data = file
        self._check = check
        self._complain = complain
        self._on_read, self._on_write = events
        self._dirty: dict[Table, None] = {}

    @property
    def dirty(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._dirty)

    async def get(self, offset: int) -> Table:
        """The table at an offset of the file, read if need be (qcow2_cache_get)."""
        table = self.tables.get(offset)
        if table is not None:
            table.recent = True
            return table
        await self._check_place(offset)
        if offset >= self._file.bs.total_sectors << 9:
            raise await self._complain(
                f"Cannot get entry from {self.name} cache: Offset {offset:#x} is beyond the file"
            )
        await self._make_room()
        data = bytearray(self.table_size)
        if self._on_read:
            await debug_event(self._file.bs, self._on_read)
        await self._file.co_preadv(offset, self.table_size, [memoryview(data)])
        cells, bitmaps = split(from_disk(self._typecode, data), self.with_bitmaps)
        table = self.tables[offset] = Table(offset, cells, bitmaps)
        return table

    async def put(self, offset: int, numbers: array[int]) -> Table:
        """A new table, dirty, in place of whatever the file has there (qcow2_cache_get_empty).

        `numbers` are as they shall stand in the file, bitmaps between entries.
        """
        await self._check_place(offset)
        table = self.tables.get(offset)
        cells, bitmaps = split(numbers, self.with_bitmaps)
        if table is None:
            await self._make_room()
            table = self.tables[offset] = Table(offset, cells, bitmaps)
        table.cells, table.bitmaps = cells, bitmaps
        self.mark_dirty(table)
        return table

    async def _check_place(self, offset: int) -> None:
        if offset % self.table_size:
            raise await self._complain(
                f"Cannot get entry from {self.name} cache: Offset {offset:#x} is unaligned"
            )

    def mark_dirty(self, table: Table) -> None:
        """The table has changed (qcow2_cache_entry_mark_dirty)."""
        assert self.tables.get(table.offset) is table, "R2: a table that is out"
        table.dirty = table.recent = True
        self._dirty[table] = None

    def forget(self, offset: int, nbytes: int) -> None:
        """The clusters there are free now: what they held is written no more."""
        for place in range(offset, offset + nbytes, self.table_size):
            table = self.tables.pop(place, None)
            if table is not None:
                self._dirty.pop(table, None)

    def clean_unused(self) -> None:
        """Forgets tables that nobody asked for since the last time (qcow2_cache_clean_unused)."""
        for table in list(self.tables.values()):
            if table.recent or table.dirty:
                table.recent = False
            else:
                del self.tables[table.offset]

    def resize(self, capacity: int) -> None:
        """From now on it holds no more than so many tables; what is dirty stays for a while."""
        self.capacity = capacity
        for table in list(self.tables.values()):
            if len(self.tables) <= capacity:
                return
            if not table.dirty:
                del self.tables[table.offset]

    def drop_all(self) -> None:
        """Forgets everything, written or not."""
        for table in self._dirty:
            table.dirty = False  # whoever is about to write it (`write`) shall not
        self.tables.clear()
        self._dirty.clear()

    async def _make_room(self) -> None:
        while len(self.tables) >= self.capacity:
            table = next(iter(self.tables.values()))
            if table.recent:
                table.recent = False
                self.tables[table.offset] = self.tables.pop(table.offset)
                continue
            if table.dirty:
                await self._write(table)
            del self.tables[table.offset]

    # -- writing, in order

    async def _write(self, table: Table) -> None:
        """Writes one table, and what must be written before it (qcow2_cache_entry_flush)."""
        if self.depends_on_flush and (self.depends is None or self.data is not self._file):
            await self.data.co_flush()
            self.depends_on_flush = False
        if self.depends is not None:
            await self._flush_dependency()
        await self._check(table.offset)
        await debug_event(self._file.bs, self._on_write)
        data = to_disk(join(table.cells, table.bitmaps))
        await self._file.co_pwritev(table.offset, len(data), [data])
        table.dirty = False
        self._dirty.pop(table, None)

    async def _flush_dependency(self) -> None:
        assert self.depends is not None
        await self.depends.flush()
        self.depends = None
        self.depends_on_flush = False

    async def write(self) -> None:
        """Writes all that is dirty, even after a failure (qcow2_cache_write)."""
        failure: OSError | None = None
        for table in list(self._dirty):
            try:
                if table.dirty:  # it may have been written meanwhile, or dropped
                    await self._write(table)
            except OSError as error:
                if failure is None or failure.errno != errno.ENOSPC:
                    failure = error
        if failure is not None:
            raise failure

    async def flush(self) -> None:
        """As write, and makes it durable (qcow2_cache_flush)."""
        await self.write()
        await self._file.co_flush()

    def set_dependency(self, other: TableCache) -> Awaitable[None]:
        """From now on nothing is written here before `other` (qcow2_cache_set_dependency)."""
        if self.depends is other and other.depends is None:
            return NOTHING_TO_WAIT_FOR
        return self._depend_on(other)

    async def _depend_on(self, other: TableCache) -> None:
        if other.depends is not None:
            await other._flush_dependency()
        if self.depends is not None and self.depends is not other:
            await self._flush_dependency()
        self.depends = other
