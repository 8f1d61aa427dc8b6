# SPDX-License-Identifier: GPL-2.0-only
"""Where the first L2 table of a qcow2 image lies: asked of an open disk, or found in the bytes."""

from __future__ import annotations

import struct

from block.core.backend import BlockBackend
from block.formats.qcow2.layout import OFFSET_MASK
from block.formats.qcow2.state import Qcow2State

L1_OFFSET_AT = 40  # l1_table_offset in the header (docs/interop/qcow2.rst)


def state_of(disk: BlockBackend) -> Qcow2State:
    """What the driver knows of an open image."""
    assert disk.bs is not None
    s: Qcow2State = disk.bs.opaque
    return s


def first_l2(disk: BlockBackend) -> int:
    """The table's offset in the file, bytes; 0 where there is none."""
    return state_of(disk).l1_table[0] & OFFSET_MASK


def first_l2_in(data: bytes | bytearray) -> int:
    """As first_l2, of the bytes of a file."""
    (l1_offset,) = struct.unpack_from(">Q", data, L1_OFFSET_AT)
    (entry,) = struct.unpack_from(">Q", data, l1_offset)
    return int(entry & OFFSET_MASK)


def cluster_of(disk: BlockBackend, index: int) -> int:
    """Where a cluster of the disk lies, bytes; the table is in the cache, whole."""
    return state_of(disk).l2_cache.tables[first_l2(disk)].cells[index] & OFFSET_MASK
