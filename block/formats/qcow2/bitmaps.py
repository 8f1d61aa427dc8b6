# SPDX-License-Identifier: GPL-2.0-only
"""Dirty bitmaps that stay with the image (block/qcow2-bitmap.c).

    open for writing    the bits are loaded; in the file each bitmap is marked IN_USE
    close, or reopen    the bits are written to new clusters; then a new directory, without
    read-only           IN_USE, takes the place of the old one; then that is freed
    crash               IN_USE is still there: the next one to open it calls it inconsistent
    open read-only      the bits are loaded, and read-only: so nobody can write

R1  What the file says of a bitmap is either right or marked IN_USE, at any moment.
R2  A directory is changed in place only while autoclear bit 0 is clear, so a half-written one is
    never believed. Otherwise it is written elsewhere, and the header's extension is the switch.
R3  `s.bitmaps` is the directory as it stands in the file. What is not in memory (extra data that
    nobody understands) keeps its entry, its table and its bits.
R4  While an image is only checked (BDRV_O_CHECK) nothing is loaded: no guest writes, and even a
    broken directory shall be looked at.
R5  What cannot be saved is said, and stays IN_USE in the file.
Coroutines run in the node's context, with the image's lock; the others in the main thread.
"""

from __future__ import annotations

import errno
from contextlib import suppress

from block.core import dirty_bitmap, graph
from block.core import flags as f
from block.core.error import BlockError, failed
from block.core.report import warn_report
from block.core.wait import run_sync
from block.formats.qcow2 import bitmap_directory as disk
from block.formats.qcow2 import bitmap_store
from block.formats.qcow2.bitmap_directory import AUTO, IN_USE, BitmapEntry
from block.formats.qcow2.corrupt import write_checked
from block.formats.qcow2.layout import AUTOCLEAR_AT, AUTOCLEAR_BITMAPS, ENTRY_SIZE, OFFSET_MASK
from block.formats.qcow2.state import refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.dirty_bitmap import BdrvDirtyBitmap
    from block.core.node import BlockDriverState
    from block.formats.qcow2.state import Qcow2State


def can_write(bs: BlockDriverState) -> bool:
    """Whether the file may be changed."""
    return not bs.read_only and not bs.open_flags & f.BDRV_O_INACTIVE


# -- loading


def load(bs: BlockDriverState) -> None:
    """Makes the bitmaps of a newly opened image (qcow2_load_dirty_bitmaps). Raises BlockError."""
    s: Qcow2State = bs.opaque
    if s.nb_bitmaps:
        run_sync(bs.aio_context, lambda: _co_load(s))


async def _co_load(s: Qcow2State) -> None:
    """What fails makes opening fail, and with the node go the bitmaps that were made."""
    entries = await disk.read_directory(s)
    claimed: set[int] = set()
    for entry in entries:
        if entry.is_understood:
            await _load_one(s, entry, claimed)
    s.bitmaps = entries
    if can_write(s.bs):
        await _mark_in_use(s)
        return
    for bitmap in s.bs.dirty_bitmaps:
        bitmap.readonly = True


async def _load_one(s: Qcow2State, entry: BitmapEntry, claimed: set[int]) -> None:
    """Makes one bitmap (load_bitmap)."""
    bitmap = dirty_bitmap.create(s.bs, 1 << entry.granularity_bits, entry.name)
    bitmap.persistent = True
    bitmap.disabled = not entry.flags & AUTO
    if entry.flags & IN_USE:
        bitmap.set_inconsistent()
        return
    try:
        await _load_bits(s, entry, bitmap, claimed)
    except OSError as error:
        raise failed(f"Could not read bitmap '{entry.name}' from image", error) from error


async def _load_bits(
    s: Qcow2State, entry: BitmapEntry, bitmap: BdrvDirtyBitmap, claimed: set[int]
) -> None:
    """Reads the bits (load_bitmap_data)."""
    bits = bitmap.bitmap
    if entry.table_size != s.clusters(bits.serialization_size(bits.size)):
        raise refuse(s, f"a table of {entry.table_size} entries does not fit the disk")
    covered = disk.covered(s, bitmap.granularity)
    for index, value in enumerate(await disk.read_table(s, entry)):
        start = index * covered
        nbytes = min(covered, bits.size - start)
        if place := value & OFFSET_MASK:
            if place in claimed:
                raise refuse(s, f"Cluster {place:#x} belongs to two bitmaps")
            claimed.add(place)
            bits.deserialize(await disk.read_inside(s, place, s.cluster_size), start, nbytes)
        elif value:
            bits.set(start, nbytes)


async def _mark_in_use(s: Qcow2State) -> None:
    """Says in the file that from now on the bits are in memory (update_ext_header_and_dir_in_place,
    R2)."""
    loaded = [entry for entry in s.bitmaps if entry.is_understood]
    if all(entry.flags & IN_USE for entry in loaded):
        return
    for entry in loaded:
        entry.flags |= IN_USE
    data = b"".join(entry.pack() for entry in s.bitmaps)
    try:
        if len(data) != s.bitmap_directory_size:
            raise refuse(s, "Broken bitmap directory")
        await _write_autoclear(s, s.autoclear_features & ~AUTOCLEAR_BITMAPS)
        await write_checked(s, s.bitmap_directory_offset, data)
        await s.file.co_flush()
        await _write_autoclear(s, s.autoclear_features | AUTOCLEAR_BITMAPS)
    except OSError as error:
        raise failed("Can't update bitmap directory", error) from error


async def _write_autoclear(s: Qcow2State, features: int) -> None:
    field = features.to_bytes(8, "big")
    await s.file.co_pwritev(AUTOCLEAR_AT, len(field), [memoryview(field)])
    await s.file.co_flush()
    s.autoclear_features = features


# -- saving


async def co_store(bs: BlockDriverState) -> None:
    """Writes all bitmaps that are persistent, and makes them read-only
    (qcow2_store_persistent_dirty_bitmaps, qcow2_reopen_bitmaps_ro). Raises BlockError (R5)."""
    s: Qcow2State = bs.opaque
    changed = [
        bitmap
        for bitmap in bs.dirty_bitmaps
        if bitmap.persistent and not bitmap.inconsistent and not bitmap.readonly
    ]
    if changed:
        if not can_write(bs):
            raise refuse(s, "No write access")
        for bitmap in changed:
            assert bitmap.name is not None, "an anonymous bitmap is not saved"
            _check_constraints(bs, bitmap.name, bitmap.granularity)
        async with s.lock:
            await bitmap_store.store(s, changed)
    for bitmap in bs.dirty_bitmaps:
        bitmap.readonly |= bitmap.persistent


def inactivate(bs: BlockDriverState) -> None:
    """Saves what can be saved before the image is closed (in qcow2_inactivate)."""
    try:
        run_sync(bs.aio_context, lambda: co_store(bs))
    except OSError as error:
        who = graph.device_or_node_name(bs)
        warn_report(f"Lost persistent bitmaps during inactivation of node '{who}': {error}")
    with suppress(OSError):  # the caches say themselves what they could not write
        bs.flush()


# -- reopening


def reopen_ro(bs: BlockDriverState) -> None:
    """Saves all before the node becomes read-only (in qcow2_reopen_prepare). Raises BlockError."""
    run_sync(bs.aio_context, lambda: co_store(bs))
    bs.flush()


def reopen_rw(bs: BlockDriverState) -> None:
    """Lets bitmaps change again (qcow2_reopen_bitmaps_rw).

    Where that cannot be they stay read-only, and so does the disk; a person is told.
    """
    try:
        run_sync(bs.aio_context, lambda: _co_reopen_rw(bs))
    except OSError as error:
        warn_report(f"{bs.node_name}: Failed to make dirty bitmaps writable: {error}")


async def _co_reopen_rw(bs: BlockDriverState) -> None:
    s: Qcow2State = bs.opaque
    async with s.lock:
        entries = await disk.read_directory(s)
        for entry in entries:
            if entry.is_understood:
                _check_unchanged(s, entry)
        s.bitmaps = entries
        await _mark_in_use(s)
    for bitmap in bs.dirty_bitmaps:
        if bitmap.persistent:
            bitmap.readonly = False


def _check_unchanged(s: Qcow2State, entry: BitmapEntry) -> None:
    """Raises where the file says something else than memory does."""
    bs, name = s.bs, entry.name
    bitmap = dirty_bitmap.find(bs, name)
    if bitmap is None:
        raise refuse(s, f"Unexpected bitmap '{name}' in image '{bs.filename}'")
    in_use, where = entry.flags & IN_USE, f"the image '{bs.filename}'"
    if in_use and bitmap.readonly and not bitmap.inconsistent:
        raise refuse(
            s,
            f"Corruption: bitmap '{name}' is marked IN_USE in {where} but it is readonly and "
            "consistent in RAM",
        )
    if not in_use and not bitmap.readonly:
        raise refuse(
            s,
            f"Corruption: bitmap '{name}' is not marked IN_USE in {where} and not marked "
            "readonly in RAM",
        )
    if not in_use and bitmap.inconsistent:
        raise refuse(
            s,
            f"Corruption: bitmap '{name}' is inconsistent but is not marked IN_USE in {where}",
        )


# -- what a person wishes


async def co_remove(bs: BlockDriverState, name: str) -> None:
    """Takes a bitmap out of the file (qcow2_co_remove_persistent_dirty_bitmap)."""
    s: Qcow2State = bs.opaque
    async with s.lock:
        gone = [entry for entry in s.bitmaps if entry.name == name]
        if gone:
            await bitmap_store.remove(s, gone[0])


async def co_remove_all(bs: BlockDriverState) -> None:
    """Leaves the image without any; writes the header. Raises BlockError: then it keeps them.

    Those in memory go, too: where there is no room for them, none shall be saved again.
    """
    s: Qcow2State = bs.opaque
    async with s.lock:
        await bitmap_store.remove_all(s)
    for bitmap in [each for each in bs.dirty_bitmaps if each.persistent]:
        bitmap.release()


def check_can_store(bs: BlockDriverState, name: str, granularity: int) -> None:
    """Raises unless one more bitmap can be saved (qcow2_co_can_store_new_dirty_bitmap)."""
    s: Qcow2State = bs.opaque
    if dirty_bitmap.find(bs, name) is not None or any(it.name == name for it in s.bitmaps):
        raise BlockError(errno.EEXIST, f"Bitmap already exists: {name}", bs.node_name)
    try:
        if s.version < 3:
            # There is no bit by which a program that knows no bitmaps could say it was here.
            raise refuse(s, "Cannot store dirty bitmaps in qcow2 v2 files")
        _check_constraints(bs, name, granularity)
        _check_room(s, name)
    except BlockError as error:
        who = graph.device_or_node_name(bs)
        raise refuse(s, f"Can't make bitmap '{name}' persistent in '{who}': {error}") from error


def _check_room(s: Qcow2State, name: str) -> None:
    """Whether the directory takes one more."""
    names = {entry.name for entry in s.bitmaps}
    names |= {each.name for each in s.bs.dirty_bitmaps if each.persistent and each.name is not None}
    if len(names) + 1 > disk.MAX_BITMAPS:
        raise refuse(s, "Maximum number of persistent bitmaps is already reached")
    if sum(map(disk.entry_size, names)) + disk.entry_size(name) > disk.MAX_DIRECTORY:
        raise refuse(s, "Not enough space in the bitmap directory")


def _check_constraints(bs: BlockDriverState, name: str, granularity: int) -> None:
    """What any bitmap in an image must be (check_constraints_on_bitmap)."""
    s: Qcow2State = bs.opaque
    if granularity > 1 << disk.MAX_GRANULARITY_BITS:
        most = 1 << disk.MAX_GRANULARITY_BITS
        raise refuse(s, f"Granularity exceeds maximum ({most} bytes)")
    nbytes = disk.bits_size(bs.getlength(), granularity)
    if nbytes > min(disk.MAX_BYTES, disk.MAX_TABLE << s.cluster_bits):
        message = "Too much space will be occupied by the bitmap. Use larger granularity"
        raise refuse(s, message)
    if dirty_bitmap.name_length(name) > disk.MAX_NAME:
        raise refuse(s, f"Name length exceeds maximum ({disk.MAX_NAME} characters)")


def check_truncate(s: Qcow2State) -> None:
    """Raises where bitmaps stand in the way of another length (qcow2_truncate_bitmaps_check)."""
    for entry in s.bitmaps:
        bitmap = dirty_bitmap.find(s.bs, entry.name)
        if bitmap is None:
            message = "Cannot resize qcow2 with persistent bitmaps that were not loaded into memory"
            raise refuse(s, message, errno.ENOTSUP)
        bitmap.check()


def measure(bs: BlockDriverState, cluster_size: int) -> int:
    """How much room the bitmaps of any node would take in a new image, if no bit were like its
    neighbour (qcow2_get_persistent_dirty_bitmap_size)."""
    total = directory = 0
    for bitmap in bs.dirty_bitmaps:
        if bitmap.persistent and bitmap.name is not None:
            clusters = -(-disk.bits_size(bitmap.size, bitmap.granularity) // cluster_size)
            total += clusters * cluster_size
            total += -(-clusters * ENTRY_SIZE // cluster_size) * cluster_size
            directory += disk.entry_size(bitmap.name)
    return total + -(-directory // cluster_size) * cluster_size
