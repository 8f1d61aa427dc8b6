# SPDX-License-Identifier: GPL-2.0-only
"""An image that holds nothing any more (qcow2_make_empty, make_completely_empty).

Most images start over: they become what a new image is, and as short.

    header | refcount table | refcount block | L1 table, all zero

    1. the dirty bit is set                          4. the header points there
    2. the L1 table becomes zero: nothing is held    5. block and table count these clusters
    3. zeroes where the new tables will be           6. the dirty bit is cleared, the file cut

R1  From 2 on refcounts are wrong, so the bit is there before. Whoever finds the image in between
    counts anew. The L1 table is zero all the time, wherever the header says it is.
R2  Where something else has clusters (snapshots, bitmaps, keys), where data have a file of their
    own, and in version 2, which has no dirty bit, every cluster is let go instead.
R3  A failure in between leaves a node that is not used any more.
Who may call it: the main thread, with the node drained; it blocks.
"""

from __future__ import annotations

from array import array

from block.core import debug
from block.core.wait import run_sync
from block.formats.qcow2.cache import to_disk
from block.formats.qcow2.dirty import flush_caches, mark_clean, write_incompatible
from block.formats.qcow2.layout import ENTRY_SIZE, INCOMPAT_DIRTY, TABLES_AT, TABLES_PLACE
from block.formats.qcow2.refcount import TYPECODES, set_cell
from block.formats.qcow2.zero import forget
from block.lean import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.node import BlockDriverState
    from block.formats.qcow2.state import Qcow2State


def make_empty(bs: BlockDriverState) -> None:
    """Lets go of all data. Raises OSError."""
    s: Qcow2State = bs.opaque
    work = _start_over if _can_start_over(s) else _forget_all
    run_sync(bs.aio_context, partial(work, s))


def _can_start_over(s: Qcow2State) -> bool:
    fits = _clusters(s) <= 1 << s.refblock_bits
    others = s.nb_snapshots or s.nb_bitmaps or s.crypt_method or s.external
    return s.version >= 3 and fits and not others


def _clusters(s: Qcow2State) -> int:
    """How many clusters an empty image has."""
    return 3 + s.clusters(ENTRY_SIZE * len(s.l1_table))


async def _forget_all(s: Qcow2State) -> None:
    async with s.lock:
        await forget(s, 0, s.bs.total_sectors << 9)
        await flush_caches(s)


async def _start_over(s: Qcow2State) -> None:
    async with s.lock:
        await flush_caches(s)
        await write_incompatible(s, s.incompatible_features | INCOMPAT_DIRTY)
        s.owns_dirty_bit = True
        try:
            await _zero_tables(s)
            await _switch(s)
            await _count(s)
        except OSError:
            s.broken = "Image is half empty"
            raise
        await mark_clean(s)
        await s.file.co_truncate(_clusters(s) << s.cluster_bits)


async def _zero_tables(s: Qcow2State) -> None:
    s.l2_cache.drop_all()
    s.refcount_cache.drop_all()
    await debug.debug_event(s.file.bs, debug.L1_UPDATE)
    nbytes = s.clusters(ENTRY_SIZE * len(s.l1_table)) << s.cluster_bits
    await s.file.co_pwrite_zeroes(s.l1_offset, nbytes)
    await s.file.co_flush()
    s.l1_table = array("Q", bytes(ENTRY_SIZE * len(s.l1_table)))
    await debug.debug_event(s.file.bs, debug.EMPTY_IMAGE_PREPARE)
    await s.file.co_pwrite_zeroes(s.cluster_size, (_clusters(s) - 1) << s.cluster_bits)
    await s.file.co_flush()


async def _switch(s: Qcow2State) -> None:
    s.reftable_offset, s.l1_offset = s.cluster_size, 3 * s.cluster_size
    s.reftable = array("Q", bytes(s.cluster_size))
    s.l2_places = s.refblock_places = s.suspects = s.looks_hollow = None
    s.free_cluster = s.free_byte = 0
    place = {
        "l1_table_offset": s.l1_offset,
        "refcount_table_offset": s.reftable_offset,
        "refcount_table_clusters": 1,
    }
    data = memoryview(TABLES_PLACE.build(place))
    await debug.debug_event(s.file.bs, debug.L1_UPDATE)
    await debug.debug_event(s.file.bs, debug.REFTABLE_UPDATE)
    await s.file.co_pwritev(TABLES_AT, len(data), [data])
    await s.file.co_flush()


async def _count(s: Qcow2State) -> None:
    """The only block counts all clusters that there are, itself too."""
    place = 2 * s.cluster_size
    cells = array(TYPECODES[s.refcount_order], bytes(s.cluster_size))
    for cluster in range(_clusters(s)):
        set_cell(s, cells, cluster, 1)
    await debug.debug_event(s.file.bs, debug.REFBLOCK_ALLOC)
    block = to_disk(cells)
    await s.file.co_pwritev(place, len(block), [block])
    await s.file.co_flush()
    entry = to_disk(array("Q", [place]))
    await s.file.co_pwritev(s.reftable_offset, len(entry), [entry])
    await s.file.co_flush()
    s.reftable[0] = place
