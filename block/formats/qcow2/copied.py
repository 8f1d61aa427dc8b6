# SPDX-License-Identifier: GPL-2.0-only
"""The flag COPIED in L1 and L2 entries (check_oflag_copied).

It says that nobody else refers to the cluster, so it may be written in place. It must be set if
and only if the refcount is 1:

    set, but shared      a write would change a snapshot, too
    not set, not shared  the cluster would be copied for nothing, and then freed once too often

R1  It is compared after refcounts were repaired, with refcounts as they stand in the file.
R2  Where only leaks may be repaired, flags are set right only if nothing else is wrong: else
    the refcounts they follow may be wrong themselves.
Who may call it: check.py.
"""

from __future__ import annotations

from functools import reduce
from operator import and_, or_

from block.core import check as core
from block.formats.qcow2 import corrupt
from block.formats.qcow2.cache import from_disk, join, split, to_disk
from block.formats.qcow2.layout import ENTRY_SIZE, OFFSET_MASK, OFLAG_COMPRESSED, OFLAG_COPIED
from block.formats.qcow2.runs import l2_runs, scattered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

    from block.formats.qcow2.check import Stored
    from block.formats.qcow2.walk import Walk


async def check_copied(walk: Walk, stored: Stored, fix: int) -> None:
    """Compares all flags of the active tables with refcounts; sets them right where `fix` allows.

    Raises BlockError where an L2 table can be neither read nor written.
    """
    result = walk.result
    clean = not (result.check_errors or result.corruptions or result.leaks)
    repair = bool(fix & core.FIX_ERRORS or (fix & core.FIX_LEAKS and clean))
    check = CopiedCheck(walk, stored, repair)
    for index, entry in enumerate(walk.s.l1_table):
        if entry & OFFSET_MASK:
            await check.l2_table(index, entry)


class CopiedCheck:
    """One pass over the flags."""

    def __init__(self, walk: Walk, stored: Stored, repair: bool) -> None:
        self._walk = walk
        self._s = walk.s
        self._result = walk.result
        self._stored = stored
        self._repair = repair

    async def l2_table(self, index: int, l1_entry: int) -> None:
        """The flag in an L1 entry, then those in its L2 table."""
        s = self._s
        place = l1_entry & OFFSET_MASK
        refcount = self._refcount(place >> s.cluster_bits)
        if refcount is None:
            return
        if self._wrong(l1_entry, refcount):
            self._say(f"L2 cluster: l1_index={index} l1_entry={l1_entry:x} refcount={refcount}")
            if self._repair:
                await self._write_l1(index, l1_entry ^ OFLAG_COPIED)
        try:
            numbers = from_disk("Q", await self._walk.read(place, s.cluster_size))
        except OSError as error:
            self._result.check_errors += 1
            self._result.say(f"ERROR: Could not read L2 table: {error}")
            raise
        table, bitmaps = split(numbers, s.extended)
        if self._all_right(table):
            return
        changed = sum(self._run(table, at, count) for at, count in l2_runs(table, s.cluster_bits))
        if changed and self._repair:
            await self._write_l2(place, join(table, bitmaps), changed)

    def _all_right(self, table: array[int]) -> bool:
        """A quick yes for a table of scattered clusters: all flags are set, or all are clear."""
        used = scattered(self._s, table, self._walk.file_length)
        if used is None or self._stored.unreadable:
            return False
        bits = self._s.cluster_bits
        clusters = [(entry & OFFSET_MASK) >> bits for entry in used]
        single = self._stored.refcounts.are_single(clusters)
        if single is None:
            return False
        flags = reduce(and_ if single else or_, used) & OFLAG_COPIED
        return bool(flags) == single

    def _refcount(self, cluster: int) -> int | None:
        """None: the block with that refcount cannot be read, which has been said."""
        refcounts = self._stored.refcounts
        if cluster >> refcounts.block_bits in self._stored.unreadable:
            return None
        return refcounts.get(cluster)

    def _refcount_of(self, entry: int) -> int | None:
        """Of a data cluster; in a data file it is always 1."""
        if self._s.external:
            return 1
        return self._refcount((entry & OFFSET_MASK) >> self._s.cluster_bits)

    @staticmethod
    def _wrong(entry: int, refcount: int) -> bool:
        return (refcount == 1) != bool(entry & OFLAG_COPIED)

    def _say(self, what: str) -> None:
        self._result.corruptions += 1
        self._result.say(f"{'Repairing' if self._repair else 'ERROR'} OFLAG_COPIED {what}")

    def _run(self, table: array[int], at: int, count: int) -> int:
        """The flags of a run; they are all the same. Returns how many were changed in `table`."""
        entry = table[at]
        if entry & OFLAG_COMPRESSED or not entry & self._s.place_flags:
            return 0
        if self._s.external:
            return 0 if entry & OFLAG_COPIED else self._piece(table, range(at, at + count))
        first = (entry & OFFSET_MASK) >> self._s.cluster_bits
        refcounts = self._stored.refcounts
        if count == 1:
            wrong = self._wrong(entry, refcounts.get(first))
            return self._piece(table, range(at, at + 1)) if wrong else 0
        changed = 0
        for index, start, stop in refcounts.pieces(first, count):
            expected = stop - start if entry & OFLAG_COPIED else 0
            if refcounts.ones(index, start, stop) != expected:
                base = (index << refcounts.block_bits) - first + at
                changed += self._piece(table, range(base + start, base + stop))
        return changed

    def _piece(self, table: array[int], where: range) -> int:
        changed = 0
        for at in where:
            entry = table[at]
            refcount = self._refcount_of(entry)
            if refcount is not None and self._wrong(entry, refcount):
                self._say(f"data cluster: l2_entry={entry:x} refcount={refcount}")
                table[at] = entry ^ OFLAG_COPIED
                changed += 1
        return changed

    # -- writing

    async def _write_l1(self, index: int, entry: int) -> None:
        s = self._s
        where = s.l1_offset + index * ENTRY_SIZE
        try:
            data = entry.to_bytes(ENTRY_SIZE, "big")
            await corrupt.write_checked(s, where, data, corrupt.OL_ACTIVE_L1)
        except OSError:
            self._result.check_errors += 1
            raise
        s.l1_table[index] = entry
        self._fixed(1)

    async def _write_l2(self, place: int, table: array[int], changed: int) -> None:
        s = self._s
        try:
            await corrupt.write_checked(s, place, to_disk(table), corrupt.OL_ACTIVE_L2)
        except OSError as error:
            self._result.check_errors += 1
            self._result.say(f"ERROR: Could not write L2 table: {error}")
            raise
        self._fixed(changed)

    def _fixed(self, count: int) -> None:
        self._result.corruptions -= count
        self._result.corruptions_fixed += count
