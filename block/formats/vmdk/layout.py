# SPDX-License-Identifier: GPL-2.0-only
"""What stands in a sparse extent (Virtual Disk Format 1.1 and 5.0), with its field names.

    sector 0          the header          KDMV, or COWD in ESX's older extents
    sector 1 to 20    the descriptor      text; in extents of a split disk it stands elsewhere
    rgdOffset      -> grain directory  -> grain tables     the redundant copy
    gdOffset       -> grain directory  -> grain tables     the one that is read
    overHead       -> grains

R1  All numbers are little-endian, all offsets are sectors of 512 bytes.
R2  Headers are Records: every start reads them (block/core/record.py). Entries of tables live in
    `array`s (tables.py), and the marker before a compressed grain is a precompiled Struct: both
    are read for requests.

Imported with the driver, never before its row has won (DESIGN.md, rules 7 and 9).
"""

from __future__ import annotations

from block.core.record import Record
from block.lean import Struct

SECTOR = 512
SPARSE_MAGIC = b"KDMV"
COWD_MAGIC = b"COWD"

SPARSE_HEADER = Record(
    "<",
    magicNumber="4s",
    version="I",
    flags="I",
    capacity="Q",
    grainSize="Q",
    descriptorOffset="Q",
    descriptorSize="Q",
    numGTEsPerGT="I",
    rgdOffset="Q",
    gdOffset="Q",
    overHead="Q",
    uncleanShutdown="1s",
    checkBytes="4s",
    compressAlgorithm="H433x",
)
"""SparseExtentHeader, one sector. checkBytes are the specification's four end-of-line characters:
a transfer as text would have changed them."""

COWD_HEADER = Record(
    "<",
    magicNumber="4s",
    version="I",
    flags="I",
    numSectors="I",
    grainSize="I",
    gdOffset="I",
    numGDEntries="I",
    freeSector="I",
)
"""COWDisk_Header, what is needed of it: ESX's vmfsSparse extents."""

METADATA_MARKER = Record("<", val="Q", size="I", type="I496x")
"""Announces a table or a footer in a streamOptimized extent; one sector."""

FOOTER = Record("<", marker="512s", header="512s", end="512s")
"""The last three sectors of an extent whose gdOffset is GD_AT_END: a header between markers."""

GRAIN_MARKER = Struct("<QI")
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
