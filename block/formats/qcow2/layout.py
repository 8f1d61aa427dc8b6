# SPDX-License-Identifier: GPL-2.0-only
"""What stands on the disk (docs/interop/qcow2.txt), with the specification's field names.

    cluster 0           the header, its extensions, the name of the backing file
    refcount table  ->  refcount blocks: one number for each cluster of the file
    L1 table        ->  L2 tables: one entry for each cluster of the disk

R1  All numbers are big-endian.
R2  Headers are Records: every start reads them (block/core/record.py). Entries of tables are read
    for every request: they live in `array`s (cache.py), and here are only the masks for them.

Imported with the driver, never before its row has won (DESIGN.md, rules 7 and 9).
"""

from __future__ import annotations

from block.core.record import Record

MAGIC = b"QFI\xfb"

HEADER_V2 = Record(
    ">",
    magic="4s",
    version="I",
    backing_file_offset="Q",
    backing_file_size="I",
    cluster_bits="I",
    size="Q",
    crypt_method="I",
    l1_size="I",
    l1_table_offset="Q",
    refcount_table_offset="Q",
    refcount_table_clusters="I",
    nb_snapshots="I",
    snapshots_offset="Q",
)
"""The first 72 bytes, all that version 2 has."""

HEADER_V3 = Record(
    ">",
    incompatible_features="Q",
    compatible_features="Q",
    autoclear_features="Q",
    refcount_order="I",
    header_length="I",
)
"""Bytes 72 to 103, which every version 3 image has."""

HEADER_MORE = Record(">", compression_type="B7x")
"""Bytes 104 to 111; there if header_length says so."""

V2_LENGTH = 72
V3_LENGTH = 104
FULL_LENGTH = 112

# Where fields stand that are written one by one.
SIZE_AT = 24
L1_SIZE_AT = 36
REFCOUNT_TABLE_AT = 48
SNAPSHOTS_AT = 60
INCOMPATIBLE_AT = 72
AUTOCLEAR_AT = 88

L1_PLACE = Record(">", l1_size="I", l1_table_offset="Q")
"""Bytes 36 to 47, changed in one write when the L1 table moves."""

DISK_PLACE = Record(">", size="Q", crypt_method="I", l1_size="I", l1_table_offset="Q")
"""Bytes 24 to 47, changed in one write when the disk becomes another one (snapshots.py)."""

REFCOUNT_PLACE = Record(">", refcount_table_offset="Q", refcount_table_clusters="I")
"""Bytes 48 to 59, changed in one write when the refcount table moves."""

TABLES_AT = 40
TABLES_PLACE = Record(
    ">", l1_table_offset="Q", refcount_table_offset="Q", refcount_table_clusters="I"
)
"""Bytes 40 to 59: both at once, when an image is emptied."""

EXTENSION_HEAD = Record(">", type="I", length="I")

EXT_END = 0
EXT_BACKING_FORMAT = 0xE2792ACA
EXT_FEATURE_TABLE = 0x6803F857
EXT_BITMAPS = 0x23852875
EXT_CRYPTO = 0x0537BE77

CRYPTO_PLACE = Record(">", offset="Q", length="Q")
"""What EXT_CRYPTO holds: where the LUKS header is in the file."""

CRYPT_NONE, CRYPT_AES, CRYPT_LUKS = range(3)
"""crypt_method: how the guest's data are encrypted (crypto.py)."""
EXT_DATA_FILE = 0x44415441

FEATURE = Record(">", type="B", bit="B", name="46s")
"""A row of the feature name table: whoever does not know a bit can name it all the same."""

INCOMPATIBLE, COMPATIBLE, AUTOCLEAR = range(3)

INCOMPAT_DIRTY = 1 << 0
INCOMPAT_CORRUPT = 1 << 1
INCOMPAT_DATA_FILE = 1 << 2
INCOMPAT_COMPRESSION = 1 << 3
INCOMPAT_EXTENDED_L2 = 1 << 4
INCOMPAT_KNOWN = (
    INCOMPAT_DIRTY
    | INCOMPAT_CORRUPT
    | INCOMPAT_DATA_FILE
    | INCOMPAT_COMPRESSION
    | INCOMPAT_EXTENDED_L2
)
"""What this driver understands; any other bit means: do not open."""
COMPAT_LAZY_REFCOUNTS = 1 << 0
AUTOCLEAR_BITMAPS = 1 << 0
AUTOCLEAR_DATA_FILE_RAW = 1 << 1
AUTOCLEAR_KNOWN = AUTOCLEAR_BITMAPS | AUTOCLEAR_DATA_FILE_RAW

FEATURE_NAMES = (
    (INCOMPATIBLE, 0, b"dirty bit"),
    (INCOMPATIBLE, 1, b"corrupt bit"),
    (INCOMPATIBLE, 2, b"external data file"),
    (INCOMPATIBLE, 3, b"compression type"),
    (INCOMPATIBLE, 4, b"extended L2 entries"),
    (COMPATIBLE, 0, b"lazy refcounts"),
    (AUTOCLEAR, 0, b"bitmaps"),
    (AUTOCLEAR, 1, b"raw external data"),
)
"""The table that new images get (qcow2_update_header)."""

# Entries of L1 and L2 tables. Bit 63 says: in use once, so it may be written in place.
OFLAG_COPIED = 1 << 63
OFLAG_COMPRESSED = 1 << 62
OFLAG_ZERO = 1 << 0
OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
"""The host offset in an L1 entry, and in an L2 entry that is not compressed."""
REFTABLE_OFFSET_MASK = 0xFFFF_FFFF_FFFF_FE00
L1_RESERVED = 0x7F00_0000_0000_01FF
L2_RESERVED = 0x3F00_0000_0000_01FE
REFTABLE_RESERVED = 0x1FF
"""Bits that are 0 in an intact image."""
NOT_PLAIN = OFLAG_COMPRESSED | OFLAG_ZERO

# Limits (qcow2.h). The header can lie; memory is asked for only within these.
MIN_CLUSTER_BITS = 9
MIN_EXTENDED_CLUSTER_BITS = 14
MAX_CLUSTER_BITS = 21
MAX_L1_SIZE = 32 << 20
MAX_REFTABLE_SIZE = 8 << 20
MAX_SNAPSHOTS = 65536
SNAPSHOT_HEADER_LENGTH = 40
MAX_BACKING_NAME = 1023
MAX_BACKING_FORMAT = 16
MAX_CLUSTER_OFFSET = (1 << 56) - 1
ENTRY_SIZE = 8
"""Bytes of an entry: of L1 and refcount tables, and of L2 tables without subclusters."""
COMPRESSION_ZLIB = 0
COMPRESSION_ZSTD = 1
COMPRESSION_NAMES = ("zlib", "zstd")
"""What compression_type says; the bit INCOMPAT_COMPRESSION goes with all but the first."""
COMPRESSED_SECTOR = 512
