# SPDX-License-Identifier: GPL-2.0-only
"""Checking an image (qcow2_co_check, qcow2_check_refcounts).

    1. snapshot_check.py    reads the snapshot table, and cuts it short if need be
    2. walk.py              counts who refers to which cluster
    3. compare              with what the refcount blocks say
    4. repair               where that was asked for: single refcounts, or all tables anew
                            (repair.py)
    5. copied.py            the flags that follow from refcounts
    6. snapshot_check.py    writes the snapshot table anew

    stored > counted    a leak: room is lost, nothing else
    stored < counted    corruption: the cluster will be given to somebody else
    stored 0, but used  corruption that only new tables can mend: to write the number down, a
                        refcount block might be needed, and who knows which clusters are free?

R1  What cannot be read ends the check: no repair is made from half a count.
R2  Blocks are compared as a whole. Only where two differ are their clusters looked at.
Who may call it: coroutines in the node's context; `check_locked` with the image's lock held.
"""

from __future__ import annotations

import errno
from itertools import compress
from operator import ne

from block.core import check as core
from block.core import flags as f
from block.formats.qcow2 import corrupt, repair
from block.formats.qcow2.copied import check_copied
from block.formats.qcow2.dirty import flush_caches
from block.formats.qcow2.free import pass_down
from block.formats.qcow2.layout import REFTABLE_OFFSET_MASK
from block.formats.qcow2.refcount import last_used
from block.formats.qcow2.refmap import RefcountMap
from block.formats.qcow2.snapshot_check import read_snapshots, rewrite_snapshots
from block.formats.qcow2.state import refuse
from block.formats.qcow2.walk import Walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

    from block.core.node import BlockDriverState
    from block.formats.qcow2.state import Qcow2State


async def co_check(bs: BlockDriverState, result: core.BdrvCheckResult, fix: int) -> None:
    """Checks an image, and repairs what `fix` allows (qcow2_co_check)."""
    s: Qcow2State = bs.opaque
    async with s.lock:
        corrupt.check_usable(s)
        await flush_caches(s)
        await check_locked(s, result, fix)


async def check_locked(s: Qcow2State, result: core.BdrvCheckResult, fix: int) -> None:
    """As co_check, with nothing in the caches that waits to be written (qcow2_co_check_locked).

    A repair that has left no corruption clears the dirty bit and the corrupt bit.
    """
    if s.clusters(s.file_length()) > f.INT_MAX:
        result.check_errors += 1
        raise refuse(s, "qcow2: the image file is too large", errno.EFBIG)
    result.bfi.total_clusters = s.clusters(s.bs.total_sectors << 9)
    of_snapshots = core.BdrvCheckResult(result.say)
    try:
        await read_snapshots(s, of_snapshots, fix)
        try:
            await _check_refcounts(s, result, fix)
        finally:
            if fix:
                repair.forget_tables(s)
        await rewrite_snapshots(s, of_snapshots, fix)
    finally:
        result.corruptions += of_snapshots.corruptions
        result.corruptions_fixed += of_snapshots.corruptions_fixed
        result.check_errors += of_snapshots.check_errors
    if fix and not result.check_errors and not result.corruptions:
        await repair.mark_clean(s)


async def _check_refcounts(s: Qcow2State, result: core.BdrvCheckResult, fix: int) -> None:
    walk = Walk(s, result, fix)
    await walk.run()
    before = (result.corruptions, result.check_errors)
    stored = await Stored.compare(walk, result, core.FIX_NOTHING)
    if walk.rebuild and fix & core.FIX_ERRORS:
        result.check_errors = before[1]  # blocks that cannot be read are gone then
        stored = await _rebuild(walk, fix)
    elif fix and walk.rebuild:
        result.check_errors += 1
        result.say("ERROR need to rebuild refcount structures")
        message = "qcow2: the refcount structures must be rebuilt: repair 'all'"
        raise refuse(s, message, errno.EIO)
    elif fix and (result.leaks or result.corruptions):
        result.corruptions, result.check_errors = before
        result.leaks = 0
        stored = await Stored.compare(walk, result, fix)
    await check_copied(walk, stored, fix)
    result.image_end_offset = (stored.highest + 1) * s.cluster_size


async def _rebuild(walk: Walk, fix: int) -> Stored:
    """New refcount tables, a new count with them, and the old ones given back."""
    s, result = walk.s, walk.result
    old_corruptions, old_leaks = result.corruptions, result.leaks
    result.say("Rebuilding refcount structure")
    await repair.rebuild(walk)
    recount = core.BdrvCheckResult(result.say)
    again = Walk(s, recount, core.FIX_NOTHING)
    await again.run()
    result.corruptions, result.leaks = recount.corruptions, 0
    result.corruptions_fixed += max(0, old_corruptions - recount.corruptions)
    result.leaks_fixed += old_leaks
    fresh = core.BdrvCheckResult(result.say)
    stored = await Stored.compare(again, fresh, fix & core.FIX_LEAKS)
    if again.rebuild:
        result.say("ERROR rebuilt refcount structure is still broken")
    result.corruptions += fresh.corruptions
    result.leaks += fresh.leaks
    result.check_errors += recount.check_errors + fresh.check_errors
    return stored


class Stored:
    """What the refcount blocks say, once they were compared with a walk.

    refcounts   the numbers; where a block agrees with the walk's, it is the same object
    unreadable  indices of blocks that cannot be read
    highest     the last cluster that is in use by either count
    """

    def __init__(self, walk: Walk, result: core.BdrvCheckResult, fix: int) -> None:
        self.refcounts = RefcountMap(walk.s)
        self.unreadable: set[int] = set()
        self.highest = 0
        self._walk = walk
        self._result = result
        self._fix = fix
        self._nothing = self.refcounts.empty()

    @classmethod
    async def compare(cls, walk: Walk, result: core.BdrvCheckResult, fix: int) -> Stored:
        """Compares all blocks with a walk, and repairs single refcounts (compare_refcounts)."""
        self = cls(walk, result, fix)
        reftable = walk.s.reftable
        there = {index for index, entry in enumerate(reftable) if entry}
        for index in sorted(there | walk.found.blocks.keys()):
            limit = walk.nb_clusters - (index << self.refcounts.block_bits)
            if limit > 0:
                await self._compare_block(index, min(limit, self.refcounts.per_block))
        return self

    def place(self, index: int) -> int:
        """Where a refcount block is in the file; 0: there is none."""
        reftable = self._walk.s.reftable
        return reftable[index] & REFTABLE_OFFSET_MASK if index < len(reftable) else 0

    async def _load(self, index: int) -> array[int]:
        s, place = self._walk.s, self.place(index)
        if not place:
            return self.refcounts.empty()
        if place & s.cluster_mask or place > f.INT64_MAX - s.cluster_size:
            raise corrupt.error(s, "Input/output error")
        return self.refcounts.unpack(await self._walk.read(place, s.cluster_size))

    async def _compare_block(self, index: int, limit: int) -> None:
        base = index << self.refcounts.block_bits
        try:
            stored = await self._load(index)
        except OSError:
            self.unreadable.add(index)
            self._result.check_errors += limit
            self._result.say(
                f"Can't get refcount for clusters {base} to {base + limit - 1}: Input/output error"
            )
            return
        counted = self._walk.found.blocks.get(index, self._nothing)
        last = max(last_used(stored[:limit]), last_used(counted[:limit]))
        if last >= 0:
            self.highest = max(self.highest, base + last)
        if stored == counted:
            self.refcounts.blocks[index] = counted
            return
        self.refcounts.blocks[index] = stored
        wrong = list(compress(range(limit), map(ne, stored[:limit], counted)))
        mendable = [at for at in wrong if self._judge(base + at, stored[at], counted[at])]
        if mendable:
            await self._mend(index, stored, counted, mendable)

    def _judge(self, cluster: int, stored: int, counted: int) -> bool:
        """Says what is wrong with a cluster. True: it shall be mended; else it was counted."""
        if stored == 0:
            self._walk.rebuild = True
        allowed = core.FIX_LEAKS if stored > counted else core.FIX_ERRORS
        mend = bool(stored and self._fix & allowed)
        verdict = "Repairing" if mend else "ERROR" if stored < counted else "Leaked"
        self._result.say(f"{verdict} cluster {cluster} refcount={stored} reference={counted}")
        if not mend:
            self._count(stored > counted)
        return mend

    def _count(self, leak: bool) -> None:
        if leak:
            self._result.leaks += 1
        else:
            self._result.corruptions += 1

    async def _mend(
        self, index: int, stored: array[int], counted: array[int], wrong: list[int]
    ) -> None:
        """Writes a block with some refcounts set right."""
        leaks = [at for at in wrong if stored[at] > counted[at]]
        mended = stored[:]
        for at in wrong:
            mended[at] = counted[at]
        s = self._walk.s
        try:
            data = self.refcounts.pack(mended)
            await corrupt.write_checked(s, self.place(index), data, corrupt.OL_REFBLOCK)
        except OSError as error:
            self._result.say(f"ERROR writing refblock: {error}")
            for at in wrong:
                self._count(stored[at] > counted[at])
            return
        self.refcounts.blocks[index] = mended
        self._result.leaks_fixed += len(leaks)
        self._result.corruptions_fixed += len(wrong) - len(leaks)
        base = index << self.refcounts.block_bits
        await pass_down(s, [base + at << s.cluster_bits for at in leaks if not mended[at]])
