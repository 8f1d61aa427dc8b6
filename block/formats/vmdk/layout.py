# SPDX-License-Identifier: GPL-2.0-only
"""What stands in a sparse extent (Virtual Disk Format 1.1 and 5.0), with its field names.

    sector 0          the header          KDMV, or COWD in ESX's older extents
    sector 1 to 20    the descriptor      text; in extents of a split disk it stands elsewhere
    rgdOffset      -> grain directory  -> grain tables     the redundant copy
    gdOffset       -> grain directory  -> grain tables     the one that is read
    overHead       -> grains

R1  All numbers are little-endian, all offsets are sectors of 512 bytes.
R2  `construct` reads what is read once. Entries of tables live in `array`s (tables.py), and the
    marker before a compressed grain is a precompiled Struct: both are read for requests.

Imported with the driver, never before its row has won (DESIGN.md, rules 7 and 9).
"""

from __future__ import annotations

import struct

from construct import Bytes, Const, Int16ul, Int32ul, Int64ul, Padding, Struct

SECTOR = 512
SPARSE_MAGIC = b"KDMV"
COWD_MAGIC = b"COWD"

SPARSE_HEADER = Struct(
    "magicNumber" / Const(SPARSE_MAGIC),
    "version" / Int32ul,
    "flags" / Int32ul,
    "capacity" / Int64ul,
    "grainSize" / Int64ul,
    "descriptorOffset" / Int64ul,
    "descriptorSize" / Int64ul,
    "numGTEsPerGT" / Int32ul,
    "rgdOffset" / Int64ul,
    "gdOffset" / Int64ul,
    "overHead" / Int64ul,
    "uncleanShutdown" / Bytes(1),
    "checkBytes" / Bytes(4),
    "compressAlgorithm" / Int16ul,
    Padding(433),
)
"""SparseExtentHeader, one sector. checkBytes are the specification's four end-of-line characters:
a transfer as text would have changed them."""

COWD_HEADER = Struct(
    "magicNumber" / Const(COWD_MAGIC),
    "version" / Int32ul,
    "flags" / Int32ul,
    "numSectors" / Int32ul,
    "grainSize" / Int32ul,
    "gdOffset" / Int32ul,
    "numGDEntries" / Int32ul,
    "freeSector" / Int32ul,
)
"""COWDisk_Header, what is needed of it: ESX's vmfsSparse extents."""

METADATA_MARKER = Struct("val" / Int64ul, "size" / Int32ul, "type" / Int32ul, Padding(496))
"""Announces a table or a footer in a streamOptimized extent; one sector."""

FOOTER = Struct("marker" / METADATA_MARKER, "header" / Bytes(SECTOR), "end" / METADATA_MARKER)
"""The last three sectors of an extent whose gdOffset is GD_AT_END."""

GRAIN_MARKER = struct.Struct("<QI")
"""Before each compressed grain: first guest sector, bytes of compressed data."""

MARKER_EOS, MARKER_GT, MARKER_GD, MARKER_FOOTER = range(4)
GD_AT_END = (1 << 64) - 1

FLAG_NL_DETECT = 1 << 0
FLAG_REDUNDANT = 1 << 1
FLAG_ZERO_GRAIN = 1 << 2
FLAG_COMPRESSED = 1 << 16
FLAG_MARKERS = 1 << 17
CHECK_BYTES = b"\n \r\n"
COMPRESSION_DEFLATE = 1

GTE_ZEROED = 1
"""A grain table entry that says: zeroes. Only with FLAG_ZERO_GRAIN; 0 says: not here."""
ENTRY_SIZE = 4

# What new extents get.
NEW_GRAIN_SECTORS = 128
NEW_TABLE_ENTRIES = 512
SPLIT_SIZE = 2 << 30

# Limits (block/vmdk.c). Headers can lie; memory is asked for only within these.
MAX_VERSION = 3
MAX_TABLE_ENTRIES = 512
MAX_GRAIN_SECTORS = 0x200000
MAX_DIRECTORY = 32 << 20
MAX_FILE_SECTORS = 1 << 32
COWD_TABLE_ENTRIES = 4096
MAX_DESCRIPTOR = (1 << 20) - 1
DESCRIPTOR_SECTORS = 20
CACHED_TABLES = 16
