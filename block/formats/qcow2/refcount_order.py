# SPDX-License-Identifier: GPL-2.0-only
"""Refcounts of another width (qcow2_change_refcount_order).

    1. the new blocks and the new table are allocated, as any clusters: the old blocks count them
    2. new blocks and table are written; nobody refers to them
    3. one write of the header: other width, other table
    4. the old blocks and the old table are freed, in the new ones

R1  The new blocks count all that the old ones count: the new ones, the new table, the old ones.
    To allocate a block may make another one necessary; so that is done until none is missing.
R2  Nothing is changed where a refcount does not fit into the new width.
R3  A crash before 3 leaks the new tables, a crash behind it the old ones. So does a failure of 3
    where nobody knows what the header says then (switch.py).
Who may call it: coroutines in the node's context; it takes the image's lock.
"""

from __future__ import annotations

import errno
from array import array

from block.formats.qcow2.alloc import alloc_clusters
from block.formats.qcow2.cache import to_disk
from block.formats.qcow2.corrupt import write_checked
from block.formats.qcow2.dirty import flush_caches
from block.formats.qcow2.free import free_clusters, free_table
from block.formats.qcow2.header_update import co_update_header
from block.formats.qcow2.layout import ENTRY_SIZE, MAX_REFTABLE_SIZE, REFTABLE_OFFSET_MASK
from block.formats.qcow2.refcount import TYPECODES, load_block
from block.formats.qcow2.refmap import pack, unpack
from block.formats.qcow2.reopen import make_refcount_cache
from block.formats.qcow2.state import refuse
from block.formats.qcow2.switch import HeaderUnknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from block.formats.qcow2.state import Qcow2State


async def change_refcount_order(
    s: Qcow2State, order: int, progress: Callable[[int, int], None]
) -> None:
    """Gives every refcount 2^order bits. Raises BlockError; then all is as before."""
    async with s.lock:
        await flush_caches(s)
        new = NewTables(s, order, progress)
        try:
            await new.allocate()
            await new.write()
            await new.switch()
        except HeaderUnknown:
            raise
        except OSError:
            await new.give_up()
            raise


class NewTables:
    """The tables to be: where they are, and what they count."""

    def __init__(self, s: Qcow2State, order: int, progress: Callable[[int, int], None]) -> None:
        self.s = s
        self.order = order
        self.block_bits = s.cluster_bits + 3 - order
        self.maximum = (1 << (1 << order)) - 1
        self.places: dict[int, int] = {}  # by the index of a new block
        self.table_offset = 0
        self.table_clusters = 0
        self._progress = progress
        self._walks = 0

    # -- 1

    async def allocate(self) -> None:
        """Finds places for all of them (R1)."""
        missing = True
        while missing:
            missing = await self._allocate_blocks(max(self._walks + 2, 3))
            needed = self._table_size()
            if needed > self.table_clusters:
                await self._free_table()
                self.table_offset = await alloc_clusters(self.s, needed, "refcount table")
                self.table_clusters = needed

    async def _allocate_blocks(self, walks: int) -> bool:
        """Allocates the blocks that something is counted in. False: all were there."""
        missing = False
        for index in self._old_blocks(walks):
            counts = await self._counts(index)
            self._check(counts, index)
            for number, start, stop in self._pieces(index):
                if number not in self.places and counts[start:stop].tobytes().strip(b"\0"):
                    self.places[number] = await alloc_clusters(self.s, 1, "refcount block")
                    missing = True
        return missing

    def _old_blocks(self, walks: int) -> Iterator[int]:
        """The indices of the blocks that there are; tells how far this walk of several is."""
        size = len(self.s.reftable)
        for index in range(size):
            self._progress(self._walks * size + index, walks * size)
            if self.s.reftable[index] & REFTABLE_OFFSET_MASK:
                yield index
        self._walks += 1
        self._progress(self._walks * size, walks * size)

    def _pieces(self, index: int) -> Iterator[tuple[int, int, int]]:
        """Divides an old block by new ones: (index of the new one, start in the old one, stop)."""
        base, end = index << self.s.refblock_bits, index + 1 << self.s.refblock_bits
        at = base
        while at < end:
            number = at >> self.block_bits
            stop = min(end, number + 1 << self.block_bits)
            yield number, at - base, stop - base
            at = stop

    async def _counts(self, index: int) -> array[int]:
        """The refcounts of an old block, one to a cell."""
        block = await load_block(self.s, index << self.s.refblock_bits)
        assert block is not None, "the table has an entry for it"
        order = self.s.refcount_order
        return block.cells if order >= 3 else unpack(order, block.cells)

    def _check(self, counts: array[int], index: int) -> None:
        """Raises where one does not fit (R2)."""
        if self.maximum >= self.s.refcount_max or max(counts) <= self.maximum:
            return
        at = next(at for at, value in enumerate(counts) if value > self.maximum)
        offset = (index << self.s.refblock_bits) + at << self.s.cluster_bits
        message = (
            f"Cannot decrease refcount entry width to {1 << self.order} bits: Cluster at offset "
            f"{offset:#x} has a refcount of {counts[at]}"
        )
        raise refuse(self.s, message)

    def _table_size(self) -> int:
        """In clusters; for the highest block."""
        size = self.s.clusters((max(self.places) + 1) * ENTRY_SIZE)
        if size << self.s.cluster_bits > MAX_REFTABLE_SIZE:
            message = (
                "This operation would make the refcount table grow beyond the maximum size "
                "supported by QEMU, aborting"
            )
            raise refuse(self.s, message, errno.ENOTSUP)
        return size

    # -- 2

    async def write(self) -> None:
        """Writes blocks and table."""
        number, cells = 0, self._empty()
        for index in self._old_blocks(self._walks + 1):
            counts = await self._counts(index)
            for piece, start, stop in self._pieces(index):
                if piece != number:
                    await self._write_block(number, cells)
                    number, cells = piece, self._empty()
                at = (index << self.s.refblock_bits) + start & len(cells) - 1
                cells[at : at + stop - start] = array(cells.typecode, counts[start:stop])
        await self._write_block(number, cells)
        await write_checked(self.s, self.table_offset, to_disk(self._table()))
        await self.s.file.co_flush()

    def _empty(self) -> array[int]:
        return array(TYPECODES[self.order], [0]) * (1 << self.block_bits)

    def _table(self) -> array[int]:
        table = array("Q", bytes(self.table_clusters << self.s.cluster_bits))
        for number, place in self.places.items():
            table[number] = place
        return table

    async def _write_block(self, number: int, cells: array[int]) -> None:
        if number in self.places:
            await write_checked(self.s, self.places[number], pack(self.order, cells))

    # -- 3 and 4

    async def switch(self) -> None:
        """Lets the header point to them; then the old ones are freed."""
        s = self.s
        old = s.refcount_order, s.reftable_offset, s.reftable
        self._take_over(self.order, self.table_offset, self._table())
        try:
            await co_update_header(s)
        except OSError:
            self._take_over(*old)
            raise
        s.refcount_cache.drop_all()  # what it had not written is in the new blocks
        s.l2_cache.depends = None
        make_refcount_cache(s, s.refcount_cache.capacity)
        _, old_offset, old_table = old
        for entry in old_table:
            if entry & REFTABLE_OFFSET_MASK:
                await free_table(s, entry & REFTABLE_OFFSET_MASK, s.cluster_size)
        await free_table(s, old_offset, len(old_table) * ENTRY_SIZE)

    def _take_over(self, order: int, table_offset: int, table: array[int]) -> None:
        s = self.s
        s.set_refcount_width(order)
        s.reftable_offset, s.reftable = table_offset, table
        s.refblock_places = s.suspects = None

    async def give_up(self) -> None:
        """Frees what was allocated, after a failure."""
        for place in self.places.values():
            await free_clusters(self.s, place, self.s.cluster_size)
        await self._free_table()

    async def _free_table(self) -> None:
        if self.table_clusters:
            nbytes = self.table_clusters << self.s.cluster_bits
            await free_clusters(self.s, self.table_offset, nbytes)
