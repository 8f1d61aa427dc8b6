# SPDX-License-Identifier: GPL-2.0-only
"""What a repair writes (rebuild_refcount_structure, qcow2_mark_clean, qcow2_mark_consistent).

New refcount tables, all in one place that nobody refers to:

    [ refcount block ] ... [ refcount block ] [ refcount table ]

R1  The old tables stay as they are until the new ones are in the file and flushed; then the
    header is switched by one write (switch.py). A crash before leaves the old image, after it the
    new one.
R2  The place is a gap that no entry points to; without one, behind the end of the file and
    behind what entries claim to have there.
R3  The bits for dirty and corrupt are cleared last.
Who may call it: check.py, with the image's lock held.
"""

from __future__ import annotations

import errno
from array import array
from operator import not_

from block.formats.qcow2.cache import to_disk
from block.formats.qcow2.dirty import write_incompatible
from block.formats.qcow2.layout import (
    ENTRY_SIZE,
    INCOMPAT_CORRUPT,
    INCOMPAT_DIRTY,
    MAX_REFTABLE_SIZE,
    REFCOUNT_PLACE,
    REFCOUNT_TABLE_AT,
)
from block.formats.qcow2.state import refuse
from block.formats.qcow2.switch import switch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.formats.qcow2.state import Qcow2State
    from block.formats.qcow2.walk import Walk


def forget_tables(s: Qcow2State) -> None:
    """What is in memory may be old: tables are read again."""
    s.l2_cache.drop_all()
    s.refcount_cache.drop_all()
    s.free_cluster = s.free_byte = 0
    s.l2_places = s.refblock_places = s.suspects = None


async def mark_clean(s: Qcow2State) -> None:
    """Clears the dirty bit and the corrupt bit, once all else is on the disk (R3)."""
    await s.file.co_flush()
    bits = s.incompatible_features & ~(INCOMPAT_DIRTY | INCOMPAT_CORRUPT)
    if bits != s.incompatible_features:
        await write_incompatible(s, bits)


# -- new refcount tables


async def rebuild(walk: Walk) -> None:
    """Writes new refcount blocks and a new table from what was counted.

    The old ones are leaked then. Raises BlockError(EFBIG) where the table would be too large.
    """
    s, found = walk.s, walk.found
    first, count = find_room(walk)
    found.add(first, count)
    indices = sorted(index for index, cells in found.blocks.items() if any(cells))
    table = array("Q", bytes((count - len(indices)) * s.cluster_size))
    for number, index in enumerate(indices):
        table[index] = first + number << s.cluster_bits
        block = found.pack(found.blocks[index])
        await s.file.co_pwritev(table[index], len(block), [block])
    offset = first + len(indices) << s.cluster_bits
    await s.file.co_pwritev(offset, len(table) * ENTRY_SIZE, [to_disk(table)])
    await s.file.co_flush()
    where = {"refcount_table_offset": offset, "refcount_table_clusters": count - len(indices)}
    head = memoryview(REFCOUNT_PLACE.build(where))
    await switch(s, REFCOUNT_TABLE_AT, head)
    s.reftable, s.reftable_offset = table, offset
    forget_tables(s)


def find_room(walk: Walk) -> tuple[int, int]:
    """(first cluster, number of clusters) for the new tables (R2)."""
    s, found = walk.s, walk.found
    used = {index for index, cells in found.blocks.items() if any(cells)}
    count = len(used) + _table_clusters(s, max(used))
    for index in sorted(used):
        base = index << found.block_bits
        free = bytes(map(not_, found.blocks[index][: walk.nb_clusters - base]))
        at = free.find(b"\1" * count)
        if at >= 0:
            return base + at, count
    reach = len(s.reftable) << found.block_bits  # an entry far behind that is a mere lie
    first = max(walk.nb_clusters, walk.claimed if walk.claimed <= reach else 0)
    return first, _count_at(s, used, first)


def _table_clusters(s: Qcow2State, last: int) -> int:
    """How many clusters a refcount table has whose last block has that index."""
    clusters = s.clusters((last + 1) * ENTRY_SIZE)
    if clusters << s.cluster_bits > MAX_REFTABLE_SIZE:
        message = "qcow2: the refcount table would become too large"
        raise refuse(s, message, errno.EFBIG)
    return clusters


def _count_at(s: Qcow2State, used: set[int], first: int) -> int:
    """How many clusters the new tables take there: they must be counted themselves, too."""
    count = 0
    while True:
        own = range(first >> s.refblock_bits, (first + max(count, 1) - 1 >> s.refblock_bits) + 1)
        needed = used.union(own)
        total = len(needed) + _table_clusters(s, max(needed))
        if total == count:
            return count
        count = total
