# SPDX-License-Identifier: GPL-2.0-only
"""The numbers of the block layer, with QEMU's names and values (block.h).

Plain ints, since they are combined and tested for every request. Who may use them: anyone.
"""

from __future__ import annotations

SECTOR_BITS = 9
SECTOR_SIZE = 1 << SECTOR_BITS
INT_MAX = (1 << 31) - 1
UINT_MAX = (1 << 32) - 1
INT64_MAX = (1 << 63) - 1
IOV_MAX = 1024

# The longest request: INT_MAX rounded down to a sector.
REQUEST_MAX_BYTES = INT_MAX >> SECTOR_BITS << SECTOR_BITS
# The longest image: what an int64_t holds, rounded down to the largest alignment (1 GiB).
MAX_LENGTH = INT64_MAX // (1 << 30) * (1 << 30)
# The largest bounce buffer for zero writes without support (MAX_BOUNCE_BUFFER).
MAX_BOUNCE_BUFFER = 32768 << SECTOR_BITS
# How deep a chain of nodes may be (DESIGN.md, rule 14).
MAX_DEPTH = 200

# Open flags (BDRV_O_*).
BDRV_O_RDWR = 0x0002
BDRV_O_RESIZE = 0x0004
BDRV_O_SNAPSHOT = 0x0008
BDRV_O_TEMPORARY = 0x0010
BDRV_O_NOCACHE = 0x0020
BDRV_O_NATIVE_AIO = 0x0080
BDRV_O_NO_BACKING = 0x0100
BDRV_O_NO_FLUSH = 0x0200
BDRV_O_COPY_ON_READ = 0x0400
BDRV_O_INACTIVE = 0x0800
BDRV_O_CHECK = 0x1000
BDRV_O_ALLOW_RDWR = 0x2000
BDRV_O_UNMAP = 0x4000
BDRV_O_PROTOCOL = 0x8000
BDRV_O_NO_IO = 0x10000
BDRV_O_AUTO_RDONLY = 0x20000
BDRV_O_IO_URING = 0x40000
BDRV_O_CACHE_MASK = BDRV_O_NOCACHE | BDRV_O_NO_FLUSH

# Request flags (BDRV_REQ_*).
REQ_COPY_ON_READ = 0x1
REQ_ZERO_WRITE = 0x2
REQ_MAY_UNMAP = 0x4
REQ_FUA = 0x10
REQ_WRITE_COMPRESSED = 0x20
REQ_WRITE_UNCHANGED = 0x40
REQ_SERIALISING = 0x80
REQ_NO_FALLBACK = 0x100
REQ_PREFETCH = 0x200
REQ_NO_WAIT = 0x400
# Ours alone: an allocating write. Nothing has been stored there yet; room may be had beforehand.
REQ_ALLOCATING = 0x10000


# Block status (BDRV_BLOCK_*); the table of combinations stands in block/core/status.py.
BDRV_BLOCK_DATA = 0x01
BDRV_BLOCK_ZERO = 0x02
BDRV_BLOCK_OFFSET_VALID = 0x04
BDRV_BLOCK_RAW = 0x08
BDRV_BLOCK_ALLOCATED = 0x10
BDRV_BLOCK_EOF = 0x20
BDRV_BLOCK_RECURSE = 0x40

# Permissions of an edge (BLK_PERM_*).
BLK_PERM_CONSISTENT_READ = 0x01
BLK_PERM_WRITE = 0x02
BLK_PERM_WRITE_UNCHANGED = 0x04
BLK_PERM_RESIZE = 0x08
BLK_PERM_GRAPH_MOD = 0x10
BLK_PERM_ALL = 0x1F
DEFAULT_PERM_PASSTHROUGH = (
    BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED | BLK_PERM_RESIZE
)
DEFAULT_PERM_UNCHANGED = BLK_PERM_ALL & ~DEFAULT_PERM_PASSTHROUGH

# Roles of a child (BdrvChildRoleBits).
BDRV_CHILD_DATA = 0x01
BDRV_CHILD_METADATA = 0x02
BDRV_CHILD_FILTERED = 0x04
BDRV_CHILD_COW = 0x08
BDRV_CHILD_PRIMARY = 0x10
BDRV_CHILD_IMAGE = BDRV_CHILD_DATA | BDRV_CHILD_METADATA | BDRV_CHILD_PRIMARY

# Preallocation modes (PreallocMode).
PREALLOC_MODES = ("off", "metadata", "falloc", "full")
