# SPDX-License-Identifier: GPL-2.0-only
"""What an open qed image knows (BDRVQEDState).

    guest offset:  | index in the L1 table | index in an L2 table | offset in the cluster |
                     1 entry = 1 L2 table    1 entry = 1 cluster

R1  There is no list of free clusters: what is new goes to the end of the file (`file_size`), and
    nothing is ever freed. A file that does not end with a cluster's end is cut down in thought.
R2  `lock` is held while a table is loaded or changed. Between two awaits of whoever holds it, the
    tables in memory are whole, and say what the file says: reads of what is in memory need
    no lock.
R3  `allocating` is held by the one request that takes new clusters, from its first to its last,
    and by whoever writes the header or repairs tables. In line it stands before `lock`.
R4  The L1 table in memory covers the disk, not what else the table in the file has room for: a
    header that lies about a table's size costs no memory.
"""

from __future__ import annotations

from array import array

from block.aio.co_lock import CoMutex
from block.formats.qed.l2_cache import L2TableCache
from block.formats.qed.layout import ENTRY_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from block.aio.timer import Timer
    from block.core.edge import BdrvChild
    from block.core.node import BlockDriverState


class QedState:
    """The state of one node; offsets and sizes in bytes where nothing else is said."""

    # fmt: off
    __slots__ = (
        "allocating", "allocating_writes", "bs", "cluster_bits", "cluster_mask", "cluster_size",
        "file", "file_size", "header", "header_end", "l1_shift", "l1_table", "l2_cache", "lock",
        "need_check_timer", "slice_bytes", "slice_entries", "slice_first_mask", "slice_mask",
        "slice_shift", "sound", "spoilt_end", "table_bytes", "table_entries", "table_mask",
    )
    # fmt: on

    def __init__(self, bs: BlockDriverState, file: BdrvChild) -> None:
        self.bs = bs
        self.file = file
        self.header: Any = None  # layout.HEADER, parsed
        self.lock = CoMutex()
        self.allocating = CoMutex()
        self.allocating_writes = 0  # those that hold `allocating`, or wait for it
        self.need_check_timer: Timer | None = None
        self.sound = True  # False: left dirty by somebody, and not repaired (need_check.py, R6)
        self.l1_table = array("Q")
        self.file_size = 0
        self.spoilt_end = 0  # up to here failed writes may have left something (write.py, R4)

    def set_geometry(self, cluster_size: int, table_size: int, header_size: int) -> None:
        """Computes what follows from the sizes in the header, which are right."""
        self.cluster_size = cluster_size
        self.cluster_bits = cluster_size.bit_length() - 1
        self.cluster_mask = cluster_size - 1
        self.header_end = header_size * cluster_size
        self.table_bytes = table_size * cluster_size
        self.table_entries = self.table_bytes // ENTRY_SIZE
        self.table_mask = self.table_entries - 1
        self.l1_shift = self.cluster_bits + self.table_entries.bit_length() - 1
        self.l2_cache = L2TableCache(self.table_bytes)
        self.slice_bytes = self.l2_cache.slice_bytes
        self.slice_entries = self.slice_bytes // ENTRY_SIZE
        self.slice_mask = self.slice_entries - 1
        self.slice_first_mask = self.table_mask & ~self.slice_mask
        self.slice_shift = self.cluster_bits + self.slice_entries.bit_length() - 1

    # -- arithmetic

    def clusters(self, nbytes: int) -> int:
        """How many clusters that many bytes need (qed_bytes_to_clusters)."""
        return -(-nbytes >> self.cluster_bits)

    def l1_entries(self, image_size: int) -> int:
        """How many entries of the L1 table a disk of that length uses."""
        return -(-image_size >> self.l1_shift)

    def slice_index(self, offset: int) -> int:
        """Where in its slice the entry of a guest offset stands."""
        return offset >> self.cluster_bits & self.slice_mask

    def slice_place(self, l2_offset: int, offset: int) -> int:
        """Where in the file the slice for a guest offset is, of the L2 table at `l2_offset`."""
        return l2_offset + (offset >> self.cluster_bits & self.slice_first_mask) * ENTRY_SIZE

    def is_cluster(self, offset: int) -> bool:
        """Whether a cluster can be there (qed_check_cluster_offset)."""
        return not offset & self.cluster_mask and self.header_end <= offset < self.file_size

    def is_table(self, offset: int) -> bool:
        """Whether a table can be there, with all its clusters (qed_check_table_offset)."""
        last = offset + self.table_bytes - self.cluster_size
        return self.is_cluster(offset) and self.is_cluster(last)

    # -- changes; with `allocating` held

    def alloc_clusters(self, count: int) -> int:
        """The offset of so many new clusters, at the end of the file (qed_alloc_clusters, R1)."""
        offset = self.file_size
        self.file_size += count << self.cluster_bits
        return offset

    def cached_slice(self, offset: int) -> array[int] | None:
        """The slice of an L2 table for a guest offset, if it is in memory (R2)."""
        l2_offset = self.l1_table[offset >> self.l1_shift]
        return self.l2_cache.find(self.slice_place(l2_offset, offset)) if l2_offset else None
