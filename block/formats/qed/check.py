# SPDX-License-Identifier: GPL-2.0-only
"""Consistency check and repair (block/qed-check.c).

    found                                      is                with `fix`
    an entry that points to no place           corruption        becomes 0
    a cluster that two entries point to        corruption        stays: whose is it?
    a cluster that no entry points to          leak              stays: nothing is ever freed
    a table that cannot be read                check error       -

R1  What reads as "unallocated" after a repair was never safe: an entry points beyond the end of the
    file where a crash lost the end (need_check.py).
R2  The bit NEED_CHECK goes only where nothing but leaks is left.
R3  The check reads the file, not what is in memory, piece by piece: its memory depends on what the
    image holds, not on how large its header says that it is.
R4  Requests that change tables wait meanwhile; reads and writes in place go on.
Who may call it: coroutines in the node's context; opening, before anybody else has the node.

What once went wrong: QEMU divides by the cluster size less one where it counts clusters. From
cluster 4095 on, with clusters of 4 KiB, its check counts leaks that are none.
"""

from __future__ import annotations

from block.core.debug import L1_UPDATE, L2_UPDATE, debug_event
from block.formats.qed.header import co_read_l1_table
from block.formats.qed.layout import ENTRY_SIZE, ENTRY_ZERO
from block.formats.qed.need_check import clear_need_check
from block.formats.qed.table import read_table, write_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

    from block.core.check import BdrvCheckResult
    from block.formats.qed.state import QedState

CHUNK_BITS = 16
"""A chunk of the map of used clusters is for 2^16 of them: 8 KiB."""


class UsedClusters:
    """Which clusters something points to: bits, in chunks where there are any."""

    __slots__ = ("chunks", "count")

    def __init__(self) -> None:
        self.chunks: dict[int, bytearray] = {}
        self.count = 0

    def add(self, cluster: int) -> bool:
        """Notes one; False if it was there already (qed_set_used_clusters)."""
        chunk = self.chunks.get(cluster >> CHUNK_BITS)
        if chunk is None:
            chunk = self.chunks[cluster >> CHUNK_BITS] = bytearray(1 << CHUNK_BITS - 3)
        at, bit = cluster >> 3 & len(chunk) - 1, 1 << (cluster & 7)
        if chunk[at] & bit:
            return False
        chunk[at] |= bit
        self.count += 1
        return True


class Check:
    """One run over an image (QEDCheck)."""

    def __init__(self, s: QedState, result: BdrvCheckResult, fix: bool) -> None:
        self.s = s
        self.result = result
        self.fix = fix
        self.used = UsedClusters()
        self.last_data = 0  # the data cluster before, in the same L2 table
        self.failure: OSError | None = None

    async def run(self) -> None:
        """Walks over all tables; raises what kept it from reading one."""
        s = self.s
        self.result.bfi.total_clusters = s.clusters(s.header.image_size)
        self._use_table(s.header.l1_table_offset)
        for start in range(0, s.table_entries, s.slice_entries):
            await self._check_l1_piece(s.header.l1_table_offset + start * ENTRY_SIZE)
        if self.failure is not None:
            raise self.failure
        n_clusters = (s.file_size >> s.cluster_bits) - s.header.header_size
        self.result.leaks += n_clusters - self.used.count

    def _use_table(self, offset: int) -> bool:
        """Notes the clusters of a table; False if something else uses one of them."""
        first = offset >> self.s.cluster_bits
        clusters = range(first, first + self.s.header.table_size)
        again = sum(not self.used.add(cluster) for cluster in clusters)
        self.result.corruptions += again
        return not again

    async def _check_l1_piece(self, place: int) -> None:
        """Checks what L1 entries point to (qed_check_l1_table)."""
        cells = await self._read(place)
        if cells is None or not any(cells):
            return
        invalid = []
        for index, l2_offset in enumerate(cells):
            if not l2_offset:
                continue
            if not self.s.is_table(l2_offset):
                invalid.append(index)
            elif self._use_table(l2_offset):
                await self._check_l2_table(l2_offset)
        await self._repair(place, cells, invalid, L1_UPDATE)

    async def _check_l2_table(self, l2_offset: int) -> None:
        self.last_data = 0
        for place in range(l2_offset, l2_offset + self.s.table_bytes, self.s.slice_bytes):
            cells = await self._read(place)
            if cells is None:
                return
            if any(cells):
                await self._repair(place, cells, self._check_entries(cells), L2_UPDATE)

    def _check_entries(self, cells: array[int]) -> list[int]:
        """Checks data clusters; returns the indices of entries that cannot be
        (qed_check_l2_table)."""
        s, bfi, last = self.s, self.result.bfi, self.last_data
        invalid = []
        for index, offset in enumerate(cells):
            if offset <= ENTRY_ZERO:
                continue
            bfi.allocated_clusters += 1
            if last and last + s.cluster_size != offset:
                bfi.fragmented_clusters += 1
            last = offset
            if not s.is_cluster(offset):
                invalid.append(index)
            elif not self.used.add(offset >> s.cluster_bits):
                self.result.corruptions += 1
        self.last_data = last
        return invalid

    async def _read(self, place: int) -> array[int] | None:
        try:
            return await read_table(self.s, place, self.s.slice_entries)
        except OSError as error:
            self._failed(error)
            return None

    def _failed(self, error: OSError) -> None:
        self.result.check_errors += 1
        self.failure = error

    async def _repair(self, place: int, cells: array[int], invalid: list[int], event: str) -> None:
        """Counts entries that cannot be; with `fix` they become 0."""
        if not self.fix:
            self.result.corruptions += len(invalid)
            return
        if not invalid:
            return
        for index in invalid:
            cells[index] = 0
        try:
            await debug_event(self.s.file.bs, event)
            await write_table(self.s, place, cells)
        except OSError as error:
            self._failed(error)
            self.result.corruptions += len(invalid)
        else:
            self.result.corruptions_fixed += len(invalid)


async def co_check(s: QedState, result: BdrvCheckResult, fix: bool) -> None:
    """Checks an image, and repairs it with `fix` (qed_check)."""
    async with s.allocating, s.lock:
        try:
            await Check(s, result, fix).run()
        finally:
            if result.corruptions_fixed:
                s.l2_cache.drop_all()
                await co_read_l1_table(s, s.header.image_size)
        if result.corruptions_fixed:
            await s.file.co_flush()
        if fix and not result.corruptions:
            s.sound = True
            await clear_need_check(s)
            await s.file.co_flush()
