# SPDX-License-Identifier: GPL-2.0-only
"""From version 3 back to version 2 (qcow2_downgrade, qcow2_expand_zero_clusters).

Version 2 has no zero entries. So each of them becomes

    no backing file                 unallocated
    backing file                    a cluster full of zeroes
    its own cluster, kept           that cluster, filled with zeroes

R1  What version 2 cannot say is refused before anything is changed: other widths of refcounts, a
    data file, subclusters, zstd, bitmaps. (QEMU leaks bitmaps, and takes zstd for zlib.)
R2  Zeroes are in the file, flushed, before an entry says that they are data.
R3  Only a cluster that no one else has is filled. A snapshot may need the others. (QEMU fills them:
    `write -z` over a cluster of a snapshot, then a downgrade, and the snapshot reads zeroes.)
Who may call it: coroutines in the node's context; `expand_zero_clusters` takes the image's lock.
"""

from __future__ import annotations

import errno

from block.core.error import BlockError
from block.formats.qcow2 import layout as lay
from block.formats.qcow2.cluster import writable_slice
from block.formats.qcow2.corrupt import check_overlap
from block.formats.qcow2.refcount import alloc_clusters, free_entry
from block.formats.qcow2.state import ZERO_ALLOC, ZERO_PLAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.formats.qcow2.state import Qcow2State


def check(s: Qcow2State, refcount_bits: int) -> None:
    """Raises where the image has what version 2 has not (R1). The dirty bit, if it is ours, will
    be gone before."""
    incompatible = s.incompatible_features
    if s.owns_dirty_bit:
        incompatible &= ~lay.INCOMPAT_DIRTY
    if refcount_bits != 16:
        raise _refuse(s, "compat=0.10 requires refcount_bits=16")
    if s.external:
        raise _refuse(s, "Cannot downgrade an image with a data file")
    if s.nb_snapshots:
        raise _refuse(s, "Internal snapshots prevent downgrade of image")
    if incompatible:
        what = f"incompatible features {incompatible:#x} set"
        raise _refuse(s, f"Cannot downgrade an image with {what}")
    if s.nb_bitmaps:
        raise _refuse(s, "Cannot downgrade an image with persistent bitmaps")


def _refuse(s: Qcow2State, message: str) -> BlockError:
    return BlockError(errno.ENOTSUP, message, s.bs.node_name, "qcow2")


async def expand_zero_clusters(s: Qcow2State, progress: Callable[[int, int], None]) -> None:
    """Writes zeroes where entries say zero, as far as that is needed."""
    size = len(s.l1_table)
    for index in range(size):
        if s.l1_table[index] & lay.OFFSET_MASK:
            start = index << s.l1_shift
            for offset in range(start, start + (1 << s.l1_shift), 1 << s.slice_shift):
                async with s.lock:
                    await _expand_slice(s, offset)
        progress(index + 1, size)
    async with s.lock:
        await s.l2_cache.flush()


async def _expand_slice(s: Qcow2State, offset: int) -> None:
    table = await writable_slice(s, offset)
    kinds = map(s.cluster_type, table.cells)
    for at in [at for at, kind in enumerate(kinds) if kind in (ZERO_PLAIN, ZERO_ALLOC)]:
        table = await writable_slice(s, offset)
        await _expand(s, offset, at, table.cells[at])


async def _expand(s: Qcow2State, offset: int, at: int, old: int) -> None:
    """Replaces one entry (R2, R3)."""
    new = 0
    owned = old & lay.OFFSET_MASK and old & lay.OFLAG_COPIED
    if owned:
        new = old & ~lay.OFLAG_ZERO
    elif s.bs.backing is not None:
        new = await alloc_clusters(s, 1, "data cluster") | lay.OFLAG_COPIED
        await s.l2_cache.set_dependency(s.refcount_cache)
    if new:
        place = new & lay.OFFSET_MASK
        await check_overlap(s, place, s.cluster_size)
        await s.data.co_pwrite_zeroes(place, s.cluster_size)
        s.l2_cache.depends_on_flush = True
    table = await writable_slice(s, offset)
    table.cells[at] = new
    s.l2_cache.mark_dirty(table)
    if not owned:
        await free_entry(s, old & ~lay.OFLAG_ZERO)
