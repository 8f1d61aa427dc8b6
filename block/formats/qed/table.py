# SPDX-License-Identifier: GPL-2.0-only
"""Reading and writing tables (block/qed-table.c). L1 and L2 tables look the same.

R1  Tables are written in whole sectors, so that a disk that writes whole sectors only needs no
    read before.
R2  What goes to the file is a copy: the array in memory is changed after that, and only after
    success. So a failed write leaves memory as the file was; or as it is not, if the file has it
    all the same. So a slice that could not be written is read again.
Who may call it: coroutines that hold the image's lock (state.py, R2).

What once went wrong: QEMU changes its array first. After a failed write of an L2 table it takes
the cluster for allocated; the next write to it succeeds in place, and is lost when the image is
closed, since no table in the file knows the cluster. And here a zero cluster was taken for one
still, though a write that failed had its entry in the file: zeroes for it were no work, and the
data of that write came to light when the image was opened again.
"""

from __future__ import annotations

import sys
from array import array

from block.core.debug import L1_UPDATE, L2_LOAD, L2_UPDATE, debug_event
from block.core.iov import zero_iov
from block.formats.qed.layout import ENTRY_SIZE, SECTOR_ENTRIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from block.core.iov import Iov
    from block.formats.qed.state import QedState

SWAP = sys.byteorder == "big"


async def read_table(s: QedState, place: int, entries: int) -> array[int]:
    """Reads entries at an offset of the file (qed_read_table)."""
    data = bytearray(entries * ENTRY_SIZE)
    if data:
        await s.file.co_preadv(place, len(data), [memoryview(data)])
    cells = array("Q", bytes(data))
    if SWAP:
        cells.byteswap()
    return cells


def _to_disk(cells: array[int]) -> memoryview:
    if SWAP:
        cells.byteswap()
    return memoryview(cells).cast("B")


async def write_table(s: QedState, place: int, cells: array[int]) -> None:
    """Writes whole sectors of entries to an offset of the file (qed_write_table)."""
    data = _to_disk(cells[:])
    await s.file.co_pwritev(place, len(data), [data])


async def _write_entries(
    s: QedState, place: int, cells: array[int], at: int, new: array[int]
) -> None:
    """Writes `new` in place of the entries from `at` on, with the rest of their sectors (R1)."""
    start = at // SECTOR_ENTRIES * SECTOR_ENTRIES
    end = -(-(at + len(new)) // SECTOR_ENTRIES) * SECTOR_ENTRIES
    part = cells[start:end]
    part[at - start : at - start + len(new)] = new
    await write_table(s, place + start * ENTRY_SIZE, part)
    cells[at : at + len(new)] = new  # in memory last (R2)


async def load_slice(s: QedState, offset: int) -> array[int]:
    """The slice for a guest offset, whose L2 table is there (qed_read_l2_table)."""
    place = s.slice_place(s.l1_table[offset >> s.l1_shift], offset)
    cells = s.l2_cache.find(place)
    if cells is None:
        await debug_event(s.file.bs, L2_LOAD)
        cells = await read_table(s, place, s.slice_entries)
        s.l2_cache.put(place, cells)
    return cells


async def update_l2_table(s: QedState, offset: int, new: Sequence[int]) -> None:
    """Changes entries from that of a guest offset on, all of one slice (qed_write_l2_table)."""
    cells = await load_slice(s, offset)
    place = s.slice_place(s.l1_table[offset >> s.l1_shift], offset)
    await debug_event(s.file.bs, L2_UPDATE)
    try:
        await _write_entries(s, place, cells, s.slice_index(offset), array("Q", new))
    except OSError:
        s.l2_cache.drop(place)
        raise


async def write_new_l2_table(s: QedState, l2_offset: int, offset: int, new: Sequence[int]) -> None:
    """Writes a table at `l2_offset`, zero but for `new` (qed_new_l2_table)."""
    index = s.slice_index(offset)
    cells = array("Q", bytes(s.slice_bytes))
    cells[index : index + len(new)] = array("Q", new)
    place = s.slice_place(l2_offset, offset)
    before = place - l2_offset
    data: Iov = [
        *zero_iov(before),
        _to_disk(cells[:]),
        *zero_iov(s.table_bytes - before - s.slice_bytes),
    ]
    await debug_event(s.file.bs, L2_UPDATE)
    await s.file.co_pwritev(l2_offset, s.table_bytes, data)
    s.l2_cache.put(place, cells)


async def update_l1_table(s: QedState, index: int, l2_offset: int) -> None:
    """Lets an L1 entry point to a new L2 table (qed_write_l1_table)."""
    await debug_event(s.file.bs, L1_UPDATE)
    place = s.header.l1_table_offset
    await _write_entries(s, place, s.l1_table, index, array("Q", [l2_offset]))
