# SPDX-License-Identifier: GPL-2.0-only
"""Counting who refers to which cluster (calculate_refcounts).

    header, refcount table, refcount blocks
    L1 table -> L2 tables -> data             of the disk, and of each internal snapshot
    snapshot table, bitmap directory -> bitmap tables -> bitmaps

R1  What is counted is runs of entries (runs.py), not clusters. Where a table has too many of them,
    the usual entries are counted in one short loop, if there are no odd ones.
R2  Nothing is believed. What lies beyond the end of the file is reported, and neither counted
    nor read.
R3  What is found is said as QEMU says it, and counted in the result.
Who may call it: check.py, with the image's lock held.
"""

from __future__ import annotations

from array import array

from block.core import check as core
from block.formats.qcow2 import bitmap_directory, corrupt, crypto
from block.formats.qcow2.cache import from_disk, split, to_disk
from block.formats.qcow2.compressed_entry import compressed_place
from block.formats.qcow2.layout import (
    ENTRY_SIZE,
    L1_RESERVED,
    L2_RESERVED,
    MAX_L1_SIZE,
    OFFSET_MASK,
    OFLAG_COMPRESSED,
    OFLAG_COPIED,
    OFLAG_ZERO,
    REFTABLE_RESERVED,
)
from block.formats.qcow2.refmap import RefcountMap
from block.formats.qcow2.runs import count_runs, l2_runs, scattered
from block.formats.qcow2.subcluster import ALL_ALLOC, is_invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.formats.qcow2.state import Qcow2State


class Walk:
    """One count over the whole image; `rebuild`: only new refcount tables can mend it."""

    def __init__(self, s: Qcow2State, result: core.BdrvCheckResult, fix: int) -> None:
        self.s = s
        self.result = result
        self.fix = fix
        self.rebuild = False
        self.found = RefcountMap(s)
        self.file_length = s.file_length()
        self.nb_clusters = s.clusters(self.file_length)
        self.claimed = 0  # where the last reference beyond the end of the file ends, in clusters
        self._next = 0  # where the next cluster would lie if the disk were in one piece

    def corruption(self, message: str) -> None:
        """Counts one contradiction and says what it is."""
        self.result.corruptions += 1
        self.result.say(message)

    async def read(self, offset: int, nbytes: int) -> bytearray:
        """Bytes of the file; zeroes where it has ended (R2)."""
        data = bytearray(nbytes)
        if offset < self.file_length:
            await self.s.file.co_preadv(offset, nbytes, [memoryview(data)])
        return data

    def add(self, offset: int, nbytes: int) -> None:
        """Counts the clusters of a range of bytes (qcow2_inc_refcounts_imrt)."""
        if nbytes <= 0:
            return
        if offset + nbytes - self.file_length >= self.s.cluster_size:
            self.claimed = max(self.claimed, self.s.clusters(offset + nbytes))
            self.corruption(
                "ERROR: counting reference for region exceeding the end of the file by one "
                f"cluster or more: offset {offset:#x} size {nbytes:#x}"
            )
            return
        bits = self.s.cluster_bits
        first = offset >> bits
        count = (offset + nbytes - 1 >> bits) - first + 1
        self.nb_clusters = max(self.nb_clusters, first + count)
        for cluster in self.found.add(first, count):
            self._overflow(cluster)

    def _overflow(self, cluster: int) -> None:
        """More references than a refcount can count."""
        self.corruption(f"ERROR: overflow cluster offset={cluster << self.s.cluster_bits:#x}")
        self.result.say(
            "Use qemu-img amend to increase the refcount entry width or qemu-img convert to "
            "create a clean copy if the image cannot be opened for writing"
        )

    # -- everything there is

    async def run(self) -> None:
        """Counts all references (calculate_refcounts).

        Raises BlockError where a table cannot be read: then nothing can be said about refcounts.
        """
        s = self.s
        self.add(0, s.cluster_size)
        await self._l1(s.l1_offset, len(s.l1_table), active=True)
        await self._snapshots()
        self.add(s.reftable_offset, ENTRY_SIZE * len(s.reftable))
        self.add(*crypto.header_clusters(s))
        await self._bitmaps()
        self._refblocks()

    async def _l1(self, l1_offset: int, entries: int, active: bool) -> None:
        """An L1 table and what it leads to (check_refcounts_l1)."""
        self.add(l1_offset, entries * ENTRY_SIZE)
        try:
            data = await self.read(l1_offset, entries * ENTRY_SIZE) if entries else b""
        except OSError:
            self._read_error("ERROR: I/O error in check_refcounts_l1")
            raise
        for entry in filter(None, from_disk("Q", data)):
            if entry & L1_RESERVED:
                self.corruption(f"ERROR found L1 entry with reserved bits set: {entry:x}")
            place = entry & OFFSET_MASK
            self.add(place, self.s.cluster_size)
            if place & self.s.cluster_mask:
                self.corruption(
                    f"ERROR l2_offset={place:x}: Table is not cluster aligned; L1 entry corrupted"
                )
            await self._l2(place, active)

    def _read_error(self, message: str) -> None:
        self.result.check_errors += 1
        self.result.say(message)

    async def _l2(self, place: int, active: bool) -> None:
        """The clusters of an L2 table (check_refcounts_l2)."""
        s = self.s
        try:
            table = from_disk("Q", await self.read(place, s.cluster_size))
        except OSError:
            self._read_error("ERROR: I/O error in check_refcounts_l2")
            raise
        self._next = 0
        table, bitmaps = split(table, s.extended)
        self._check_bitmaps(table, bitmaps)
        used = scattered(s, table, self.file_length)
        if used is not None:
            self._scattered(used, active)
            return
        for at, count in l2_runs(table, s.cluster_bits):
            entry = table[at]
            if entry & OFLAG_COMPRESSED:
                for index in range(at, at + count):
                    bitmap = bitmaps[index] if bitmaps is not None else 0
                    self._compressed(index, table[index], bitmap, active)
            elif entry & (L2_RESERVED | s.cluster_mask & OFFSET_MASK):
                for index in range(at, at + count):
                    zero = entry & OFLAG_ZERO if bitmaps is None else not bitmaps[index] & ALL_ALLOC
                    where = place + (index << s.entry_bits)
                    await self._odd(where, table[index], bool(zero), active)
            else:
                self._data(entry, count, active)

    def _scattered(self, used: list[int], active: bool) -> None:
        """Many data clusters that lie anywhere in the file."""
        s = self.s
        offsets = list(map(OFFSET_MASK.__and__, used))
        if active:
            bfi = self.result.bfi
            bfi.allocated_clusters += len(used)
            bfi.fragmented_clusters += count_runs(offsets, s.cluster_size) - 1
        bits = s.cluster_bits
        for cluster in self.found.add_each([offset >> bits for offset in offsets]):
            self._overflow(cluster)

    def _check_bitmaps(self, table: array[int], bitmaps: array[int] | None) -> None:
        """Says which bitmaps of subclusters contradict themselves, or their entries."""
        for entry, bitmap in zip(table, bitmaps or (), strict=bitmaps is not None):
            if not bitmap or not is_invalid(self.s, entry, bitmap):
                continue
            if entry & self.s.place_flags:
                self.corruption(
                    f"ERROR offset={entry & OFFSET_MASK:x}: Allocated cluster has corrupted "
                    "subcluster allocation bitmap"
                )
            else:
                self.corruption("ERROR: Unallocated cluster has non-zero subcluster allocation map")

    def _compressed(self, index: int, entry: int, bitmap: int, active: bool) -> None:
        """A compressed cluster, which has no subclusters and is in no data file."""
        if entry & OFLAG_COPIED:
            mask = (1 << 62 - (self.s.cluster_bits - 8)) - 1
            self.corruption(
                f"ERROR: coffset={entry & mask:#x}: copied flag must never be set for "
                "compressed clusters"
            )
            entry &= ~OFLAG_COPIED
        if self.s.external or bitmap:
            what = "data file" if self.s.external else "non-zero subcluster allocation bitmap"
            self.corruption(f"ERROR compressed cluster {index} with {what}, entry={entry:#x}")
            return
        self.add(*compressed_place(self.s, entry))
        if active:
            bfi = self.result.bfi
            bfi.allocated_clusters += 1
            bfi.compressed_clusters += 1
            bfi.fragmented_clusters += 1  # they lie at bytes, and are read by sectors

    def _data(self, entry: int, count: int, active: bool) -> None:
        """A run of clusters with their places in the file."""
        if not entry & self.s.place_flags:
            return  # flags without a place
        offset = entry & OFFSET_MASK
        size = self.s.cluster_size
        if active:
            bfi = self.result.bfi
            bfi.allocated_clusters += count
            bfi.fragmented_clusters += bool(self._next) and offset != self._next
            self._next = offset + count * size
        if self.s.external:
            return
        inside = min(count, max(0, -(-(self.file_length - offset) // size)))
        if inside:
            self.add(offset, inside * size)
        for number in range(inside, count):
            self.add(offset + number * size, size)

    async def _odd(self, where: int, entry: int, zero: bool, active: bool) -> None:
        """An entry with bits that must be 0, or with a place in the middle of a cluster."""
        if entry & L2_RESERVED:
            self.corruption(f"ERROR found l2 entry with reserved bits set: {entry:x}")
        offset = entry & OFFSET_MASK
        if not offset & self.s.cluster_mask:
            self._data(entry, 1, active)
        elif not zero:
            self.corruption(
                f"ERROR offset={offset:x}: Data cluster is not properly aligned; "
                "L2 entry corrupted."
            )
            self._data(entry, 1, active)
        elif not await self._unlink(where, offset, active):
            self._data(entry, 1, active)

    async def _unlink(self, where: int, offset: int, active: bool) -> bool:
        """An entry that says zeroes: its impossible place can be dropped (fix_l2_entry_by_zero)."""
        repair = self.fix & core.FIX_ERRORS
        self.corruption(
            f"{'Repairing' if repair else 'ERROR'} offset={offset:x}: Preallocated cluster is "
            "not properly aligned; L2 entry corrupted."
        )
        if not repair:
            return False
        # Which subclusters are zeroes stands behind the entry, and stays.
        data = to_disk(array("Q", [0 if self.s.extended else OFLAG_ZERO]))
        ignored = corrupt.OL_ACTIVE_L2 if active else 0
        await corrupt.check_overlap(self.s, where, len(data), ignored)
        try:
            await self.s.file.co_pwritev(where, len(data), [data])
            await self.s.file.co_flush()
        except OSError as error:
            self._read_error(f"ERROR: Failed to overwrite L2 table entry: {error}")
            return False
        self.result.corruptions -= 1
        self.result.corruptions_fixed += 1
        return True

    # -- what belongs to no disk

    async def _snapshots(self) -> None:
        """L1 tables of snapshots, if they can be ones, and the table that names them."""
        s = self.s
        if s.external and s.snapshots:
            self.corruption(f"ERROR {s.nb_snapshots} snapshots in image with data file")
        for snapshot in s.snapshots:
            info = snapshot.info()
            who = f"ERROR snapshot {info.id} ({info.name})"
            if snapshot.l1_offset & s.cluster_mask:
                self.corruption(
                    f"{who} l1_offset={snapshot.l1_offset:#x}: L1 table is not cluster "
                    "aligned; snapshot table entry corrupted"
                )
            elif snapshot.l1_size > MAX_L1_SIZE // ENTRY_SIZE:
                self.corruption(
                    f"{who} l1_size={snapshot.l1_size:#x}: L1 table is too large; snapshot "
                    "table entry corrupted"
                )
            else:
                await self._l1(snapshot.l1_offset, snapshot.l1_size, active=False)
        self.add(s.snapshots_offset, s.snapshots_size)

    async def _bitmaps(self) -> None:
        """The bitmap directory, tables and bitmaps (qcow2_check_bitmaps_refcounts)."""
        s = self.s
        try:
            if s.nb_bitmaps:
                self.add(s.bitmap_directory_offset, s.bitmap_directory_size)
            for entry in await bitmap_directory.read_directory(s):
                self.add(entry.table_offset, entry.table_size * ENTRY_SIZE)
                table = await bitmap_directory.read_table(s, entry)
                for place in bitmap_directory.table_clusters(table):
                    self.add(place, s.cluster_size)
        except OSError as error:
            self.corruption(f"ERROR failed to read the bitmaps: {error}")
            raise

    def _refblocks(self) -> None:
        """Refcount blocks, of which none may be in use twice (check_refblocks)."""
        s = self.s
        for index, entry in enumerate(s.reftable):
            if not entry:
                continue
            if entry & REFTABLE_RESERVED:
                self._spoilt(f"ERROR refcount table entry {index} has reserved bits set")
            elif entry & s.cluster_mask:
                self._spoilt(
                    f"ERROR refcount block {index} is not cluster aligned; "
                    "refcount table entry corrupted"
                )
            elif entry >> s.cluster_bits >= self.nb_clusters:
                self._spoilt(f"ERROR refcount block {index} is outside image")
            else:
                self.add(entry, s.cluster_size)
                refcount = self.found.get(entry >> s.cluster_bits)
                if refcount != 1:
                    self._spoilt(f"ERROR refcount block {index} refcount={refcount}")

    def _spoilt(self, message: str) -> None:
        self.corruption(message)
        self.rebuild = True
