# SPDX-License-Identifier: GPL-2.0-only
"""The header: reading it without believing it (qcow2_do_open).

R1  Every field is checked before it is used, every size capped as QEMU caps it. The message is
    QEMU's, followed by the field at fault.
R2  A bit of incompatible_features that is not understood means: hands off. The message takes its
    name from the table that the image brings along.
R3  What is not understood but harmless (extensions, further header fields) is kept for the day when
    the header is written anew (header_update.py). Autoclear bits that are not understood are
    cleared when the image is opened for writing.
R4  The header with all that belongs to it lies in cluster 0.
Who may call it: the main thread, while an image is opened, reopened or told of.
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core.debug import REFTABLE_LOAD, debug_event
from block.core.error import BlockError
from block.core.wait import run_sync
from block.formats.qcow2 import datafile, state
from block.formats.qcow2 import layout as lay
from block.formats.qcow2.cache import from_disk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.record import Fields
    from block.formats.qcow2.state import Qcow2State


def refuse(s: Qcow2State, message: str, field: str = "", number: int = errno.EINVAL) -> BlockError:
    """The error for a header that cannot be: QEMU's words, then the field (R1)."""
    where = f" ({field})" if field else ""
    return state.refuse(s, message + where, number)


def read_header(s: Qcow2State, flags: int) -> Fields:
    """Reads and checks the header and its extensions; returns the parsed fields.

    Afterwards the geometry is set; tables are checked but not read.
    """
    head = _read_fields(s)
    s.version = head.version
    _read_more_fields(s, head)
    end = head.backing_file_offset or 1 << head.cluster_bits
    _check_features(s, head, end, flags)
    extended = bool(head.incompatible_features & lay.INCOMPAT_EXTENDED_L2)
    if extended and head.cluster_bits < lay.MIN_EXTENDED_CLUSTER_BITS:
        size = 1 << head.cluster_bits - 5
        message = f"Unsupported subcluster size: {size}"
        raise refuse(s, message, f"header.cluster_bits = {head.cluster_bits}")
    s.set_geometry(head.cluster_bits, head.refcount_order, extended)
    _check_tables(s, head, flags)
    if not flags & f.BDRV_O_CHECK:
        check_snapshot_table(s, head.nb_snapshots, head.snapshots_offset)
    _read_extensions(s, head.header_length, end)
    _read_backing_name(s, head)
    return head


def _read_fields(s: Qcow2State) -> Fields:
    """The fields of both versions; of version 2, the others have their only value."""
    data = s.file.pread(0, lay.FULL_LENGTH)
    if data[:4] != lay.MAGIC:
        raise refuse(s, "Image is not in qcow2 format", "header.magic")
    head = lay.HEADER_V2.parse(data)
    if not 2 <= head.version <= 3:
        raise refuse(s, f"Unsupported qcow2 version {head.version}", number=errno.ENOTSUP)
    bits = head.cluster_bits
    if not lay.MIN_CLUSTER_BITS <= bits <= lay.MAX_CLUSTER_BITS:
        raise refuse(s, f"Unsupported cluster size: 2^{bits}", f"header.cluster_bits = {bits}")
    head.update(
        {
            "incompatible_features": 0,
            "compatible_features": 0,
            "autoclear_features": 0,
            "refcount_order": 4,
            "header_length": lay.V2_LENGTH,
            "compression_type": lay.COMPRESSION_ZLIB,
        }
    )
    if head.version == 3:
        head.update(lay.HEADER_V3.parse(data, lay.V2_LENGTH).values())
        if head.header_length > lay.V3_LENGTH:
            head.update(lay.HEADER_MORE.parse(data, lay.V3_LENGTH).values())
    return head


def _read_more_fields(s: Qcow2State, head: Fields) -> None:
    length = head.header_length
    where = f"header.header_length = {length}"
    if s.version == 3 and length < lay.V3_LENGTH:
        raise refuse(s, "qcow2 header too short", where)
    if length > 1 << head.cluster_bits:
        raise refuse(s, "qcow2 header exceeds cluster size", where)
    if length > lay.FULL_LENGTH:
        s.unknown_fields = s.file.pread(lay.FULL_LENGTH, length - lay.FULL_LENGTH)
    if head.backing_file_offset > 1 << head.cluster_bits:
        field = f"header.backing_file_offset = {head.backing_file_offset:#x}"
        raise refuse(s, "Invalid backing file offset", field)


def _check_features(s: Qcow2State, head: Fields, end: int, flags: int) -> None:
    s.incompatible_features = head.incompatible_features
    s.compatible_features = head.compatible_features
    s.autoclear_features = head.autoclear_features
    s.compression_type = head.compression_type
    unknown = s.incompatible_features & ~lay.INCOMPAT_KNOWN
    _check_compression(s)
    if unknown:
        names = _feature_names(s, head.header_length, end)
        raise refuse(s, _unsupported_features(unknown, names), number=errno.ENOTSUP)
    if flags & f.BDRV_O_RDWR and not flags & f.BDRV_O_CHECK:
        check_consistent(s)
    if head.refcount_order > 6:
        message = "Reference count entry width too large; may not exceed 64 bits"
        raise refuse(s, message, f"header.refcount_order = {head.refcount_order}")
    s.crypt_method = head.crypt_method


def check_consistent(s: Qcow2State) -> None:
    """Raises where the image may only be read before somebody repairs it."""
    if s.incompatible_features & lay.INCOMPAT_CORRUPT:
        message = "qcow2: Image is corrupt; cannot be opened read/write"
        raise refuse(s, message, number=errno.EACCES)


def check_writable(s: Qcow2State) -> None:
    """Raises where an open image cannot become writable: a repair belongs to opening."""
    check_consistent(s)
    if s.incompatible_features & lay.INCOMPAT_DIRTY:
        message = "Close the image and open it read/write: a dirty image must be repaired first"
        raise refuse(s, message, "header.incompatible_features, bit 0", errno.ENOTSUP)


def check_autoclear(s: Qcow2State) -> None:
    """Raises where a read-only image cannot become writable: these bits are cleared only while
    an image is opened (R3)."""
    if s.autoclear_features & ~lay.AUTOCLEAR_KNOWN:
        message = "Close the image and open it read/write: autoclear features must be cleared"
        raise refuse(s, message, f"header.autoclear_features = {s.autoclear_features:#x}")


def _check_compression(s: Qcow2State) -> None:
    """The method is known, and has its bit; zlib has none (validate_compression_type)."""
    if s.compression_type >= len(lay.COMPRESSION_NAMES):
        message = f"qcow2: unknown compression type: {s.compression_type}"
        raise refuse(s, message, "header.compression_type", errno.ENOTSUP)
    must = s.compression_type != lay.COMPRESSION_ZLIB
    if must != bool(s.incompatible_features & lay.INCOMPAT_COMPRESSION):
        word = "must" if must else "must not"
        raise refuse(s, f"qcow2: Compression type incompatible feature bit {word} be set")


def _unsupported_features(mask: int, names: dict[int, str]) -> str:
    """Names the bits that are not understood (report_unsupported_feature, R2)."""
    found = [name for bit, name in names.items() if mask >> bit & 1]
    for bit in names:
        mask &= ~(1 << bit)
    if mask:
        found.append(f"Unknown incompatible feature: {mask:x}")
    return "Unsupported qcow2 feature(s): " + ", ".join(found)


def _feature_names(s: Qcow2State, start: int, end: int) -> dict[int, str]:
    """bit -> name, of the incompatible features that the image's own table names."""
    names: dict[int, str] = {}
    try:
        _read_extensions(s, start, end)
    except OSError:
        return names
    for kind, data in s.extensions:
        if kind == lay.EXT_FEATURE_TABLE:
            # The last row may be shorter than its name could be.
            padded = data.ljust(-(-len(data) // lay.FEATURE.size) * lay.FEATURE.size, b"\0")
            for at in range(0, len(padded), lay.FEATURE.size):
                feature = lay.FEATURE.parse(padded, at)
                name = feature.name.split(b"\0")[0].decode(errors="replace")
                if feature.type == lay.INCOMPATIBLE and feature.bit < 64 and name:
                    names.setdefault(feature.bit, name)
    return names


# -- tables


def _check_tables(s: Qcow2State, head: Fields, flags: int) -> None:
    """Where tables are and how large, before they are read. A repair can do without refcounts."""
    clusters = head.refcount_table_clusters
    if not clusters and not flags & f.BDRV_O_CHECK:
        message = "Image does not contain a reference count table"
        raise refuse(s, message, "header.refcount_table_clusters = 0")
    _check_table(
        s, "Reference count table", "refcount_table", head.refcount_table_offset,
        clusters, s.cluster_size, lay.MAX_REFTABLE_SIZE,
    )  # fmt: skip
    _check_table(
        s, "Active L1 table", "l1_table", head.l1_table_offset, head.l1_size,
        lay.ENTRY_SIZE, lay.MAX_L1_SIZE,
    )  # fmt: skip
    if s.l1_entries(head.size) > f.INT_MAX:
        raise refuse(s, "Image is too big", f"header.size = {head.size}", errno.EFBIG)
    if head.l1_size < s.l1_entries(head.size):
        needed = s.l1_entries(head.size)
        raise refuse(s, "L1 table is too small", f"header.l1_size = {head.l1_size} < {needed}")
    if head.size > f.MAX_LENGTH:
        raise refuse(s, "Image is too big", f"header.size = {head.size}", errno.EFBIG)


def check_snapshot_table(
    s: Qcow2State, entries: int, offset: int, name: str = "Snapshot table"
) -> None:
    """Raises where the snapshot table cannot be; whether it ends in the file, its reader sees.

    A check asks for itself: it may repair the table.
    """
    length = lay.SNAPSHOT_HEADER_LENGTH
    _check_place(s, name, "snapshots", offset, entries, length, length * lay.MAX_SNAPSHOTS)


def _check_table(
    s: Qcow2State, name: str, field: str, offset: int, entries: int, length: int, most: int
) -> None:
    """Raises unless a table is where one can be, and in the file."""
    _check_place(s, name, field, offset, entries, length, most)
    # The last cluster of a file may be short, but a table begins before the end.
    if entries and offset + entries * length - s.cluster_size >= s.file_length():
        message = f"{name} lies beyond the end of the file"
        raise refuse(s, message, f"header.{field}_offset = {offset:#x}")


def _check_place(
    s: Qcow2State, name: str, field: str, offset: int, entries: int, length: int, most: int
) -> None:
    """Raises unless a table is aligned and within its limit (qcow2_validate_table)."""
    if entries * length > most:
        message = f"{name} too large"
        raise refuse(s, message, f"header.{field}: {entries} > {most // length}", errno.EFBIG)
    if offset & s.cluster_mask or offset > f.INT64_MAX - entries * length:
        raise refuse(s, f"{name} offset invalid", f"header.{field}_offset = {offset:#x}")


def read_tables(s: Qcow2State, head: Fields) -> None:
    """Reads the L1 table and the refcount table; both stay in memory."""
    s.l1_offset = head.l1_table_offset
    s.l1_table = from_disk("Q", s.file.pread(s.l1_offset, head.l1_size * lay.ENTRY_SIZE))
    s.reftable_offset = head.refcount_table_offset
    size = head.refcount_table_clusters * s.cluster_size
    if s.file.bs.debugged:
        run_sync(s.bs.aio_context, lambda: debug_event(s.file.bs, REFTABLE_LOAD))
    s.reftable = from_disk("Q", s.file.pread(s.reftable_offset, size))
    s.nb_snapshots = head.nb_snapshots
    s.snapshots_offset = head.snapshots_offset


# -- extensions and the backing file's name


def _read_extensions(s: Qcow2State, offset: int, end: int) -> None:
    """Collects the header extensions (qcow2_read_extensions)."""
    s.extensions = []
    data = s.file.pread(0, end)
    while offset < end:
        if end - offset < 8:
            raise refuse(s, "Header extension too large", f"at {offset:#x}")
        head = lay.EXTENSION_HEAD.parse(data, offset)
        offset += 8
        if head.length > end - offset:
            raise refuse(s, "Header extension too large", f"type {head.type:#x}")
        if head.type == lay.EXT_END:
            return
        _take_extension(s, head.type, data[offset : offset + head.length])
        offset += head.length + -head.length % 8


def _take_extension(s: Qcow2State, kind: int, data: bytes) -> None:
    if kind == lay.EXT_BACKING_FORMAT:
        if len(data) >= lay.MAX_BACKING_FORMAT:
            message = f"ERROR: ext_backing_format: len={len(data)} too large (>=16)"
            raise refuse(s, message)
        s.backing_format = data
    else:
        s.extensions.append((kind, data))


def _read_backing_name(s: Qcow2State, head: Fields) -> None:
    offset, length = head.backing_file_offset, head.backing_file_size
    if not offset:
        return
    if length > min(lay.MAX_BACKING_NAME, s.cluster_size - offset):
        field = f"header.backing_file_size = {length}"
        raise refuse(s, "Backing file name too long", field)
    s.backing_name = s.file.pread(offset, length)


# -- what is told of it


def specific_info(s: Qcow2State, encryption: dict[str, object]) -> dict[str, object]:
    """What only this format has (ImageInfoSpecificQCow2); `encryption` is a part of it."""
    data: dict[str, object] = {"compat": "1.1" if s.version >= 3 else "0.10", **datafile.info(s)}
    if s.version >= 3:
        data["extended-l2"] = s.extended
        data["lazy-refcounts"] = bool(s.compatible_features & lay.COMPAT_LAZY_REFCOUNTS)
        data["corrupt"] = bool(s.incompatible_features & lay.INCOMPAT_CORRUPT)
    if s.bitmaps:
        data["bitmaps"] = [entry.info() for entry in s.bitmaps]
    data["refcount-bits"] = s.refcount_bits
    data.update(encryption)
    data["compression-type"] = lay.COMPRESSION_NAMES[s.compression_type]
    return {"type": "qcow2", "data": data}
