# SPDX-License-Identifier: GPL-2.0-only
"""What stands on the disk (docs/interop/qed_spec.txt), with the specification's field names.

    header, backing file's name | L1 table | data, L2 tables, in the order in which they came

R1  All numbers are little-endian.
R2  The header is a Record: every start reads it (block/core/record.py). Entries of tables are read
    for every request: they live in `array`s (table.py).

Imported with the driver, never before its row has won (DESIGN.md, rules 7 and 9).
"""

from __future__ import annotations

from block.core.record import Record

MAGIC = b"QED\0"

HEADER = Record(
    "<",
    magic="4s",
    cluster_size="I",  # bytes
    table_size="I",  # of an L1 or L2 table, in clusters
    header_size="I",  # in clusters
    features="Q",
    compat_features="Q",
    autoclear_features="Q",
    l1_table_offset="Q",  # bytes
    image_size="Q",  # bytes
    backing_filename_offset="I",  # bytes, from the start of the header
    backing_filename_size="I",  # bytes
)
"""The first 64 bytes."""

HEADER_LENGTH = 64

F_BACKING_FILE = 1 << 0
"""There is a backing file."""
F_NEED_CHECK = 1 << 1
"""Tables may be wrong: check them before use."""
F_BACKING_FORMAT_NO_PROBE = 1 << 2
"""The backing file is raw, whatever its first bytes look like."""

FEATURES_KNOWN = F_BACKING_FILE | F_NEED_CHECK | F_BACKING_FORMAT_NO_PROBE
"""What this driver understands; any other bit means: do not open."""
COMPAT_FEATURES_KNOWN = 0
AUTOCLEAR_FEATURES_KNOWN = 0

MIN_CLUSTER_SIZE = 4 << 10
MAX_CLUSTER_SIZE = 64 << 20
MIN_TABLE_SIZE = 1
MAX_TABLE_SIZE = 16
DEFAULT_CLUSTER_SIZE = 64 << 10
DEFAULT_TABLE_SIZE = 4
MAX_BACKING_NAME = 4095

# What an entry says, other than an offset in the file.
ENTRY_UNALLOCATED = 0
ENTRY_ZERO = 1
ENTRY_SIZE = 8
SECTOR_ENTRIES = 64
"""How many entries a sector holds: tables are written in whole sectors."""
