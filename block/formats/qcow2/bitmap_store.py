# SPDX-License-Identifier: GPL-2.0-only
"""Writing bitmaps into the file (the second half of block/qcow2-bitmap.c).

    1. bits and tables        to clusters that were free
    2. the new directory      too; then refcounts, and a flush
    3. the header             its extension points to the new directory; a flush
    4. what there was         is freed

R1  Until step 3 the file is as it was; whatever fails before gives its clusters back.
R2  Where step 3 fails the header is written as it was (switch.py): bits may be out of date that it
    would call right. But nobody knows what it says then. So nothing is freed, neither the old nor
    the new: clusters leak, and a check finds them.
R3  A cluster of bits that are all alike is not written: its table entry says so. A last one that
    the disk fills in part is: QEMU would believe the bits behind the end too, and they would come
    to light when the disk grows.
Coroutines with the image's lock.
"""

from __future__ import annotations

from array import array

from block.core.error import failed
from block.core.report import warn_report
from block.formats.qcow2 import bitmap_directory as disk
from block.formats.qcow2.alloc import alloc_clusters
from block.formats.qcow2.bitmap_directory import AUTO, IN_USE, BitmapEntry
from block.formats.qcow2.cache import to_disk
from block.formats.qcow2.corrupt import write_checked
from block.formats.qcow2.dirty import write_caches
from block.formats.qcow2.free import free_clusters
from block.formats.qcow2.header_update import co_update_header
from block.formats.qcow2.layout import AUTOCLEAR_BITMAPS, ENTRY_SIZE
from block.formats.qcow2.state import refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.dirty_bitmap import BdrvDirtyBitmap
    from block.formats.qcow2.state import Qcow2State


async def store(s: Qcow2State, bitmaps: list[BdrvDirtyBitmap]) -> None:
    """Writes bitmaps, each in place of what the file has of it. Raises BlockError."""
    entries = {entry.name: entry for entry in s.bitmaps}
    replaced = []
    stored = []
    try:
        for bitmap in bitmaps:
            assert bitmap.name is not None, "an anonymous bitmap is not saved"
            before = entries.get(bitmap.name)
            entry = await _store_one(s, bitmap)
            stored.append(entry)
            if before is not None:
                _inherit(s, entry, before)
                replaced.append(before)
            entries[bitmap.name] = entry
        place, nbytes = await _write_directory(s, list(entries.values()))
    except BaseException:
        for entry in stored:
            await _free_entry(s, entry)
        raise
    await _switch(s, list(entries.values()), place, nbytes)
    for entry in replaced:
        await _free_entry(s, entry)


def _inherit(s: Qcow2State, entry: BitmapEntry, before: BitmapEntry) -> None:
    """Takes over what belongs to others."""
    if not before.flags & IN_USE:
        raise refuse(s, f"Bitmap '{entry.name}' already exists in the image")
    entry.extra = before.extra
    entry.flags |= before.flags & disk.EXTRA_COMPATIBLE


async def remove(s: Qcow2State, gone: BitmapEntry) -> None:
    """Takes one out of the directory, and frees what it had. Raises BlockError."""
    entries = [entry for entry in s.bitmaps if entry is not gone]
    place, nbytes = await _write_directory(s, entries)
    await _switch(s, entries, place, nbytes)
    await _free_entry(s, gone)


async def remove_all(s: Qcow2State) -> None:
    """Writes a header that knows of no bitmaps, then frees what they had. Raises BlockError.

    The caller may have set other fields of the header, which change in the same moment.
    """
    gone = s.bitmaps
    await _switch(s, [], 0, 0)
    for entry in gone:
        await _free_entry(s, entry)


async def _store_one(s: Qcow2State, bitmap: BdrvDirtyBitmap) -> BitmapEntry:
    """Writes the bits of one bitmap, and its table (store_bitmap)."""
    assert bitmap.name is not None
    entry = BitmapEntry(bitmap.name)
    entry.flags = 0 if bitmap.disabled else AUTO
    entry.granularity_bits = bitmap.bitmap.granularity
    clusters = s.clusters(bitmap.bitmap.serialization_size(bitmap.size))
    table = array("Q", bytes(clusters * ENTRY_SIZE))
    entry.table_size = clusters
    try:
        await _store_bits(s, bitmap, table)
        nbytes = clusters * ENTRY_SIZE
        entry.table_offset = await alloc_clusters(s, s.clusters(nbytes), "bitmap table")
        await write_checked(s, entry.table_offset, to_disk(table))
    except BaseException as error:
        await _free_table(s, table)
        if entry.table_offset:
            await free_clusters(s, entry.table_offset, clusters * ENTRY_SIZE)
        if isinstance(error, OSError):
            raise failed(f"Failed to write bitmap '{bitmap.name}' to file", error) from error
        raise
    return entry


async def _store_bits(s: Qcow2State, bitmap: BdrvDirtyBitmap, table: array[int]) -> None:
    """Writes those clusters of bits in which there are both sorts (store_bitmap_data)."""
    covered = disk.covered(s, bitmap.granularity)
    dirty = bitmap.next_dirty()
    while dirty is not None:
        index = dirty // covered
        start = index * covered
        end = min(start + covered, bitmap.size)
        if end - start == covered and bitmap.next_zero(start, end) is None:
            table[index] = disk.ALL_ONES
        else:
            table[index] = await alloc_clusters(s, 1, "bitmap data")
            data = bitmap.bitmap.serialize(start, end - start)
            await write_checked(s, table[index], data.ljust(s.cluster_size, b"\0"))
        dirty = bitmap.next_dirty(end)


async def _write_directory(s: Qcow2State, entries: list[BitmapEntry]) -> tuple[int, int]:
    """Writes a directory where nothing was (bitmap_list_store); (its place, its size)."""
    data = b"".join(entry.pack() for entry in entries)
    place = 0
    try:
        for entry in entries:
            disk.check_entry(s, entry)
        if len(entries) > disk.MAX_BITMAPS:
            raise refuse(s, "Too many persistent bitmaps")
        if len(data) > disk.MAX_DIRECTORY:
            raise refuse(s, "Bitmap directory is too large")
        if data:
            place = await alloc_clusters(s, s.clusters(len(data)), "bitmap directory")
            await write_checked(s, place, data)
        await write_caches(s)
        await s.file.co_flush()
    except OSError as error:
        if place:
            await free_clusters(s, place, len(data))
        raise failed("Failed to update bitmap extension", error) from error
    return place, len(data)


async def _switch(s: Qcow2State, entries: list[BitmapEntry], place: int, nbytes: int) -> None:
    """Lets the header point to it (update_ext_header_and_dir, R2)."""
    before = _directory_of(s)
    bit = AUTOCLEAR_BITMAPS if entries else 0
    _set_directory(s, (place, nbytes, len(entries), bit))
    try:
        await co_update_header(s)
    except OSError as error:
        _set_directory(s, before)
        raise failed("Failed to update bitmap extension", error) from error
    s.bitmaps = entries
    if before[1]:
        await free_clusters(s, *before[:2])


def _directory_of(s: Qcow2State) -> tuple[int, int, int, int]:
    bit = s.autoclear_features & AUTOCLEAR_BITMAPS
    return s.bitmap_directory_offset, s.bitmap_directory_size, s.nb_bitmaps, bit


def _set_directory(s: Qcow2State, directory: tuple[int, int, int, int]) -> None:
    s.bitmap_directory_offset, s.bitmap_directory_size, s.nb_bitmaps, bit = directory
    s.autoclear_features = s.autoclear_features & ~AUTOCLEAR_BITMAPS | bit
    s.suspects = None


async def _free_entry(s: Qcow2State, entry: BitmapEntry) -> None:
    """Frees the bits and the table of a bitmap (free_bitmap_clusters).

    What cannot be read is not freed: leaked clusters harm nobody.
    """
    try:
        table = await disk.read_table(s, entry)
    except OSError as error:
        warn_report(f"qcow2: the clusters of bitmap '{entry.name}' are not freed: {error}")
        return
    await _free_table(s, table)
    await free_clusters(s, entry.table_offset, entry.table_size * ENTRY_SIZE)


async def _free_table(s: Qcow2State, table: array[int]) -> None:
    for place in disk.table_clusters(table):
        await free_clusters(s, place, s.cluster_size)
