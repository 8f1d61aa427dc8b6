# SPDX-License-Identifier: GPL-2.0-only
"""From version 3 back to version 2 (qcow2_downgrade, qcow2_expand_zero_clusters).

Version 2 has no zero entries. So each of them becomes

    no backing file                 unallocated
    backing file                    a cluster full of zeroes
    its own cluster, kept           that cluster, filled with zeroes

R1  What version 2 cannot say is refused before anything is changed: other widths of refcounts, a
    data file, subclusters, clusters compressed by zstd, snapshots of a disk of another length.
    Bitmaps are not refused, they go (amend.py); one that somebody works with cannot.
R2  Zeroes are in the file, flushed, before an entry says that they are data.
    Where the guest's data are encrypted, zeroes in the file are none: they are written as the guest
    would write them, or the cluster is let go.
R3  Only a cluster that no one else has is filled. A snapshot may need the others. (QEMU fills them:
    `write -z` over a cluster of a snapshot, then a downgrade, and the snapshot reads zeroes.)
Who may call it: coroutines in the node's context; they take the image's lock.
"""

from __future__ import annotations

import errno

from block.core.dirty_bitmap import BUSY
from block.core.iov import zero_iov
from block.formats.qcow2 import layout as lay
from block.formats.qcow2.alloc import alloc_clusters
from block.formats.qcow2.cache import to_disk
from block.formats.qcow2.cluster import load_slice, writable_slice
from block.formats.qcow2.corrupt import (
    OL_ACTIVE_L2,
    OL_INACTIVE_L2,
    check_overlap,
    write_checked,
)
from block.formats.qcow2.free import free_clusters, free_entry
from block.formats.qcow2.refcount import change_refcounts, get_refcount
from block.formats.qcow2.shared import read_l2
from block.formats.qcow2.snapshots import read_l1
from block.formats.qcow2.state import COMPRESSED, ZERO_ALLOC, ZERO_PLAIN, refuse
from block.formats.qcow2.write import co_pwritev

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.formats.qcow2.snapshot_table import Snapshot
    from block.formats.qcow2.state import Qcow2State


async def co_check(s: Qcow2State, refcount_bits: int, size: int) -> None:
    """Raises where the image has what version 2 has not (R1), once the disk has the length `size`.
    The dirty bit will be gone before, if it is ours, and so will zstd, if no cluster needs it."""
    incompatible = s.incompatible_features & ~lay.INCOMPAT_COMPRESSION
    if s.owns_dirty_bit:
        incompatible &= ~lay.INCOMPAT_DIRTY
    if refcount_bits != 16:
        raise refuse(s, "compat=0.10 requires refcount_bits=16", errno.ENOTSUP)
    if s.external:
        raise refuse(s, "Cannot downgrade an image with a data file", errno.ENOTSUP)
    if not all(_fits(s, snapshot, size) for snapshot in s.snapshots):
        raise refuse(s, "Internal snapshots prevent downgrade of image", errno.ENOTSUP)
    if incompatible:
        what = f"incompatible features {incompatible:#x} set"
        raise refuse(s, f"Cannot downgrade an image with {what}", errno.ENOTSUP)
    for bitmap in s.bs.dirty_bitmaps:
        if bitmap.persistent:
            bitmap.check(BUSY)
    if s.compression_type != lay.COMPRESSION_ZLIB and await _has_compressed(s):
        what = "zstd compression type and existing compressed clusters"
        raise refuse(s, f"Cannot downgrade an image with {what}", errno.ENOTSUP)


def _fits(s: Qcow2State, snapshot: Snapshot, size: int) -> bool:
    """Whether a snapshot can do without the fields that only version 3 promises."""
    same_size = snapshot.disk_size == size
    can_expand = not s.crypt_method or s.bs.backing is None
    return same_size and snapshot.vm_state_size < 1 << 32 and can_expand


async def _has_compressed(s: Qcow2State) -> bool:
    if s.snapshots:
        return True  # theirs are not looked at
    async with s.lock:
        for index in range(len(s.l1_table)):
            for offset in _slices(s, index):
                table = await load_slice(s, offset)
                assert table is not None, "the L1 table has an entry for it"
                if COMPRESSED in map(s.cluster_type, table.cells):
                    return True
    return False


async def expand_zero_clusters(s: Qcow2State, progress: Callable[[int, int], None]) -> None:
    """Writes zeroes where entries say zero, as far as that is needed."""
    size = len(s.l1_table)
    total = size + sum(snapshot.l1_size for snapshot in s.snapshots)
    for index in range(size):
        for offset in _slices(s, index):
            await _expand_slice(s, offset)
        progress(index + 1, total)
    async with s.lock:
        await s.l2_cache.flush()
        s.l2_cache.drop_all()
        for snapshot in s.snapshots:
            for entry in await read_l1(s, snapshot):
                if entry & lay.OFFSET_MASK:
                    await _expand_shared(s, entry & lay.OFFSET_MASK)
                size += 1
                progress(size, total)


def _slices(s: Qcow2State, index: int) -> range:
    """The guest offsets at which the slices of an L2 table begin; none where there is no table."""
    start = index << s.l1_shift
    there = s.l1_table[index] & lay.OFFSET_MASK
    return range(start, start + (1 << s.l1_shift) if there else start, 1 << s.slice_shift)


async def _expand_shared(s: Qcow2State, place: int) -> None:
    """As _expand_slice, for an L2 table of snapshots. It is changed where it stands: so each
    cluster that it points to counts as often as the table itself (R2, R3)."""
    users = await get_refcount(s, place >> s.cluster_bits)
    table, _ = await read_l2(s, place, 0)
    kinds = map(s.cluster_type, table)
    found = [at for at, kind in enumerate(kinds) if kind in (ZERO_PLAIN, ZERO_ALLOC)]
    if not found:
        return
    dropped = []
    for at in found:
        old = table[at] & lay.OFFSET_MASK
        owned = old and await get_refcount(s, old >> s.cluster_bits) == users
        if owned and not s.crypt_method:
            table[at] &= ~lay.OFLAG_ZERO
        else:
            dropped += [old] if old else []
            table[at] = await _shared_cluster(s, users) if s.bs.backing is not None else 0
        if table[at]:
            await s.data.co_pwrite_zeroes(table[at] & lay.OFFSET_MASK, s.cluster_size)
    await s.refcount_cache.flush()
    await write_checked(s, place, to_disk(table), OL_ACTIVE_L2 | OL_INACTIVE_L2)
    await s.file.co_flush()
    for old in dropped:
        for _ in range(users):
            await free_clusters(s, old, s.cluster_size)


async def _shared_cluster(s: Qcow2State, users: int) -> int:
    """The entry for a new cluster of so many snapshots."""
    place = await alloc_clusters(s, 1, "data cluster")
    for _ in range(users - 1):
        await change_refcounts(s, place >> s.cluster_bits, 1, 1)
    return place | lay.OFLAG_COPIED * (users == 1)


async def _expand_slice(s: Qcow2State, offset: int) -> None:
    encrypts = bool(s.crypt_method) and s.bs.backing is not None
    async with s.lock:
        table = await writable_slice(s, offset)
        kinds = map(s.cluster_type, table.cells)
        found = [at for at, kind in enumerate(kinds) if kind in (ZERO_PLAIN, ZERO_ALLOC)]
        for at in found if not encrypts else ():
            table = await writable_slice(s, offset)
            await _expand(s, offset, at, table.cells[at])
    for at in found if encrypts else ():
        start = offset + (at << s.cluster_bits)
        nbytes = min(s.cluster_size, (s.bs.total_sectors << 9) - start)
        await co_pwritev(s, start, nbytes, zero_iov(nbytes))


async def _expand(s: Qcow2State, offset: int, at: int, old: int) -> None:
    """Replaces one entry (R2, R3)."""
    new = 0
    owned = old & lay.OFFSET_MASK and old & lay.OFLAG_COPIED and not s.crypt_method
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
