# SPDX-License-Identifier: GPL-2.0-only
"""The L2 entry of a compressed cluster (docs/interop/qcow2.txt, "Compressed Clusters Descriptor").

    63 62 61           x x-1           0      x = 62 - (cluster_bits - 8)
     0  1 [ more sectors ][ host offset ]

The offset is in bytes. The data reach into so many sectors of 512 bytes behind the one in which
they begin; the last of these may hold others, too.
Who may call it: anybody, it only calculates.
"""

from __future__ import annotations

from block.formats.qcow2.layout import COMPRESSED_SECTOR, OFLAG_COMPRESSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

    from block.formats.qcow2.state import Qcow2State


def size_shift(s: Qcow2State) -> int:
    """The bit of a compressed cluster's entry where its offset ends, and its size begins."""
    return 62 - (s.cluster_bits - 8)


def compressed_place(s: Qcow2State, entry: int) -> tuple[int, int]:
    """Where compressed data begin, and how many bytes they may have (qcow2_parse_compressed)."""
    shift = size_shift(s)
    offset = entry & (1 << shift) - 1
    sectors = (entry >> shift & (1 << s.cluster_bits - 8) - 1) + 1
    return offset, sectors * COMPRESSED_SECTOR - offset % COMPRESSED_SECTOR


def compressed_entry(s: Qcow2State, place: int, nbytes: int) -> int:
    """The L2 entry for compressed data (in qcow2_alloc_compressed_cluster_offset)."""
    shift = size_shift(s)
    sectors = (place + nbytes - 1) // COMPRESSED_SECTOR - place // COMPRESSED_SECTOR
    return OFLAG_COMPRESSED | sectors << shift | place


def compressed_run(cells: array[int], first: int, end: int) -> int:
    """How many entries in a row are of compressed clusters: from `first` on, which is, to `end` at
    most."""
    at = first + 1
    while at < end and cells[at] & OFLAG_COMPRESSED:
        at += 1
    return at - first
