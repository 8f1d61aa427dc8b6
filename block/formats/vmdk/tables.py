# SPDX-License-Identifier: GPL-2.0-only
"""Grain directories and grain tables: from an offset in an extent to a grain in its file.

    offset:  | index in the directory | index in the table | offset in the grain |
               1 entry = 1 grain table   1 entry = 1 grain

    entry of a table      means
    0                     not here: the backing file has it, or it reads as zeroes
    1, with zero grains   zeroes, whatever the backing file has
    n                     the grain begins at sector n of the extent's file

R1  The directory is in memory from open to close. Of the tables at most 16 are (CACHED_TABLES),
    of those that nobody has used lately the oldest goes.
R2  Tables are loaded and changed under the lock of the node's state. What finds its table in
    memory may read it without: between two awaits the tables are whole.
R3  Nothing is dirty: an entry is written to the file, to its table and then to the redundant
    one, before it changes in memory. So a table may be forgotten at any time; and it is where that
    fails: who knows what the file has?
R4  A table that is not there yet is written with zeroes, and made safe, before the directory
    tells of it.
Who may call it: coroutines in the node's context.

What goes wrong in QEMU, as its source reads: a write where the directory has no table finds
no place for a new grain, and goes to one that nobody has set. Here it makes a table (R4).

What once went wrong here: a table in memory outlived the failure to write it (R3). A grain that it
knew was zeroes in the file; what was written to that grain next was gone when the image was opened
again.
"""

from __future__ import annotations

import errno
import sys
from array import array

from block.core.debug import L1_UPDATE, L2_LOAD, L2_UPDATE, debug_event
from block.core.error import BlockError
from block.formats.vmdk.layout import (
    CACHED_TABLES,
    ENTRY_SIZE,
    GTE_ZEROED,
    MAX_FILE_SECTORS,
    SECTOR,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.formats.vmdk.extent import Extent


class GrainTable:
    """A grain table in memory; `recent` says that it was used again since somebody last looked."""

    __slots__ = ("cells", "recent")

    def __init__(self, cells: array[int]) -> None:
        self.cells = cells
        self.recent = False


def from_disk(data: bytes) -> array[int]:
    """Entries as numbers of this machine."""
    cells = array("I", data)
    if sys.byteorder == "big":
        cells.byteswap()
    return cells


def to_disk(cells: array[int]) -> bytes:
    """Entries as they stand in the file."""
    if sys.byteorder == "big":
        cells = array("I", cells)
        cells.byteswap()
    return cells.tobytes()


# -- looking up


async def table_at(extent: Extent, position: int) -> GrainTable | None:
    """The table for an offset in the extent, or None where there is none (R2: with the lock)."""
    place = extent.directory[position // extent.table_span]
    if not place:
        return None
    table = extent.tables.get(place)
    if table is not None:
        table.recent = True
        return table
    table = await _load(extent, place)
    _make_room(extent)
    extent.tables[place] = table
    return table


async def _load(extent: Extent, place: int) -> GrainTable:
    data = bytearray(extent.table_size)
    if place * SECTOR + len(data) > extent.file.bs.getlength():
        raise extent.error(f"grain table at sector {place} lies beyond the end of the file")
    await debug_event(extent.file.bs, L2_LOAD)
    await extent.file.co_preadv(place * SECTOR, len(data), [memoryview(data)])
    return GrainTable(from_disk(bytes(data)))


def _make_room(extent: Extent) -> None:
    """Forgets a table where there are too many; who was used lately gets another turn (R1)."""
    tables = extent.tables
    while len(tables) >= CACHED_TABLES:
        place = next(iter(tables))
        table = tables.pop(place)
        if table.recent:
            table.recent = False
            tables[place] = table


def run_of(extent: Extent, table: GrainTable | None, position: int, nbytes: int) -> Run:
    """What holds at `position`, and for how many of the bytes, which are the extent's: grains
    of the same kind in one table. Of grains with data those that lie side by side; of compressed
    ones, all."""
    index, inside = extent.split(position)
    left = min(nbytes, extent.table_end(position) - position)
    if table is None:
        return 0, left
    cells, limit = table.cells, -(-(inside + left) // extent.grain)
    first, count = cells[index], 1
    if extent.compressed and extent.holds_data(first):
        while count < limit and extent.holds_data(cells[index + count]):
            count += 1
    else:
        step = extent.grain_sectors if extent.holds_data(first) else 0
        while count < limit and cells[index + count] == first + count * step:
            count += 1
    return first, min(left, count * extent.grain - inside)


Run = tuple[int, int]
"""The entry of the first grain, and the bytes for which the same holds."""


# -- changing


async def set_entries(extent: Extent, position: int, entries: array[int]) -> None:
    """Writes entries of one table from `position` on (vmdk_L2update, R3; with the lock)."""
    table = await table_at(extent, position)
    assert table is not None, "R4: a table is made before its entries are"
    index, _ = extent.split(position)
    assert index + len(entries) <= len(table.cells), "entries of two tables"
    number = position // extent.table_span
    data = memoryview(to_disk(entries))
    await debug_event(extent.file.bs, L2_UPDATE)
    try:
        for directory in extent.directories():
            if directory[number]:
                at = directory[number] * SECTOR + index * ENTRY_SIZE
                await extent.file.co_pwritev(at, len(data), [data])
    except OSError:
        del extent.tables[extent.directory[number]]
        raise
    table.cells[index : index + len(entries)] = entries


async def ensure_table(extent: Extent, position: int) -> GrainTable:
    """The table for an offset; makes one where there is none (R4; with the lock)."""
    table = await table_at(extent, position)
    if table is not None:
        return table
    number = position // extent.table_span
    size = -(-extent.table_size // SECTOR) * SECTOR
    for directory, place in zip(extent.directories(), extent.directory_places(), strict=True):
        sector = allocate(extent, size)
        await extent.file.co_pwritev(sector * SECTOR, size, [memoryview(bytes(size))])
        await extent.file.co_flush()
        entry = memoryview(to_disk(array("I", [sector])))
        await debug_event(extent.file.bs, L1_UPDATE)
        await extent.file.co_pwritev(place + number * ENTRY_SIZE, ENTRY_SIZE, [entry])
        directory[number] = sector
    table = await table_at(extent, position)
    assert table is not None, "it was made just now"
    return table


def allocate(extent: Extent, nbytes: int) -> int:
    """Takes room at the end of the file, in whole grains; returns its first sector."""
    return take_sectors(extent, -(-nbytes // extent.grain) * extent.grain_sectors)


def take_sectors(extent: Extent, count: int) -> int:
    """Takes sectors at the end of the file; returns the first one."""
    sector = extent.next_sector
    if sector + count > MAX_FILE_SECTORS:
        message = f"extent file '{extent.file.bs.filename}' cannot become larger than 2 TiB"
        raise BlockError(errno.ENOSPC, message, driver="vmdk")
    extent.next_sector = sector + count
    return sector


def is_zero_entry(extent: Extent, entry: int) -> bool:
    """Whether an entry says zeroes whatever the backing file has."""
    return extent.zero_grains and entry == GTE_ZEROED
