# SPDX-License-Identifier: GPL-2.0-only
"""From a guest offset to a place in the file (block/qed-cluster.c).

    the entry        kind         what is read there
    an offset        FOUND        the file
    1                ZERO         zeroes
    0                NO_CLUSTER   the backing file; zeroes without one
    no L2 table      NO_TABLE     the same

R1  Neighbours with the same answer are taken together, up to the end of a slice.
R2  An entry is not believed: it must be the start of a cluster, between the header and the end of
    the file. Otherwise EINVAL, as QEMU has it. A run is cut where the file ends.
Who may call it: anyone at home.
"""

from __future__ import annotations

import errno

from block.core.error import BlockError
from block.formats.qed.layout import ENTRY_UNALLOCATED, ENTRY_ZERO
from block.formats.qed.table import load_slice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from typing import TypeAlias

    from block.formats.qed.state import QedState

FOUND, ZERO, NO_CLUSTER, NO_TABLE = range(4)

# (kind, offset in the file or 0, bytes)
Extent: TypeAlias = "tuple[int, int, int]"


def _count_contiguous(s: QedState, cells: array[int], index: int, limit: int) -> int:
    """How many entries from `index` on say the same, or go on in the file
    (qed_count_contiguous_clusters)."""
    first = expected = cells[index]
    step = s.cluster_size if first > ENTRY_ZERO else 0
    end = min(index + limit, len(cells))
    at = index + 1
    while at < end:
        expected += step
        if cells[at] != expected:
            break
        at += 1
    return at - index


def extent_in(s: QedState, cells: array[int], offset: int, nbytes: int) -> Extent:
    """What a slice says of the bytes at a guest offset (R1)."""
    inside = offset & s.cluster_mask
    index = s.slice_index(offset)
    count = _count_contiguous(s, cells, index, s.clusters(inside + nbytes))
    size = min(nbytes, (count << s.cluster_bits) - inside)
    entry = cells[index]
    if entry == ENTRY_UNALLOCATED:
        return NO_CLUSTER, 0, size
    if entry == ENTRY_ZERO:
        return ZERO, 0, size
    if not s.is_cluster(entry):
        raise _invalid(s, f"entry of an L2 table {entry:#x}", offset)
    return FOUND, entry + inside, min(size, s.file_size - entry - inside)


def _without_table(s: QedState, offset: int, nbytes: int) -> Extent:
    """There is no L2 table for this offset: for how far is that so?"""
    end = offset + nbytes
    index = offset >> s.l1_shift
    while (index + 1) << s.l1_shift < end and not s.l1_table[index + 1]:
        index += 1
    return NO_TABLE, 0, min(end, (index + 1) << s.l1_shift) - offset


def find_in_memory(s: QedState, offset: int, nbytes: int) -> Extent | None:
    """The answer, if no table must be read for it."""
    if not s.l1_table[offset >> s.l1_shift]:
        return _without_table(s, offset, nbytes)
    cells = s.cached_slice(offset)
    return None if cells is None else extent_in(s, cells, offset, nbytes)


async def find_cluster(s: QedState, offset: int, nbytes: int) -> Extent:
    """Where the bytes at a guest offset are, and how many of them (qed_find_cluster).

    Raises BlockError(EINVAL) where a table points to where nothing can be (R2).
    """
    found = find_in_memory(s, offset, nbytes)
    if found is not None:
        return found
    l2_offset = s.l1_table[offset >> s.l1_shift]
    if not s.is_table(l2_offset):
        raise _invalid(s, f"entry of the L1 table {l2_offset:#x}", offset)
    async with s.lock:
        return extent_in(s, await load_slice(s, offset), offset, nbytes)


def _invalid(s: QedState, what: str, offset: int) -> BlockError:
    message = f"qed: {what} is no place in the file, which has {s.file_size:#x} bytes"
    return BlockError(errno.EINVAL, message, s.bs.node_name, "qed", offset)
