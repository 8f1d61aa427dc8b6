# SPDX-License-Identifier: GPL-2.0-only
"""What an open qcow2 image knows (BDRVQcow2State), and the look-up that everything begins with.

    guest offset:  | index in the L1 table | index in the L2 table | offset in the cluster |
                     1 entry = 1 L2 table    1 entry = 1 cluster

The cache holds slices of L2 tables. An L2 table may be 2 MiB, and one entry of it wanted.

R1  `lock` guards all metadata: the L1 table, both caches, the refcount table, what is in flight.
    It is not held while data are read and written.
R2  What finds its slice in the cache needs no lock: between two awaits of whoever holds it the
    tables are whole. So `cached_slice` may be asked by anyone at home in the context.
R3  `broken` is set once, and says why: the image contradicted itself, or nobody knows what its
    header says. Then it is written no more (corrupt.py).
R4  A guest offset has been checked against the length of the disk by the core, and the L1
    table covers that length (header.py).
"""

from __future__ import annotations

import errno
from array import array

from block.aio.co_lock import CoMutex, CoQueue
from block.core.error import BlockError
from block.formats.qcow2.cache import TableCache
from block.formats.qcow2.layout import (
    COMPRESSION_ZLIB,
    ENTRY_SIZE,
    OFFSET_MASK,
    OFLAG_COMPRESSED,
    OFLAG_ZERO,
    REFTABLE_OFFSET_MASK,
)
from block.formats.qcow2.ranges import Ranges

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from block.aio.timer import Timer
    from block.core.edge import BdrvChild
    from block.core.node import BlockDriverState
    from block.crypto.block import CryptoBlock
    from block.formats.qcow2.bitmap_directory import BitmapEntry
    from block.formats.qcow2.cache import Table
    from block.formats.qcow2.snapshot_table import Snapshot
    from block.formats.qcow2.write import Allocation, Rewrite

UNALLOCATED, ZERO_PLAIN, ZERO_ALLOC, NORMAL, COMPRESSED, UNALLOCATED_ALLOC, INVALID = range(7)
"""What an L2 entry says (QCow2ClusterType), or of a part of its cluster (QCow2SubclusterType,
subcluster.py). *_ALLOC keep a cluster: ZERO_ALLOC reads as zeroes all the same, UNALLOCATED_ALLOC
from the backing file."""
PLACED = (NORMAL, ZERO_ALLOC, UNALLOCATED_ALLOC)
ZEROES = (ZERO_PLAIN, ZERO_ALLOC)
HOLES = (UNALLOCATED, UNALLOCATED_ALLOC)


def refuse(s: Qcow2State, message: str, number: int = errno.EINVAL, hint: str = "") -> BlockError:
    """The error for an image that cannot be, or for what it cannot do; without a message it is
    errno's own."""
    return BlockError(number, message, s.bs.node_name, "qcow2", hint=hint)


class Qcow2State:
    """The state of one node; offsets and sizes in bytes, `*_bits` are powers of two."""

    # fmt: off
    __slots__ = (
        "allocations", "autoclear_features", "backing_format", "backing_name",
        "bitmap_directory_offset", "bitmap_directory_size", "bitmaps", "broken", "bs",
        "cache_options", "clean_interval", "clean_timer", "cluster_bits", "cluster_mask",
        "cluster_size", "compatible_features", "compression_type", "corruption_told",
        "crypt_method", "crypto", "data", "entry_bits", "extended", "extensions", "external",
        "file", "free_byte", "free_cluster", "inactive_l1", "incompatible_features", "l1_offset",
        "l1_shift", "l1_table", "l2_bits", "l2_cache", "l2_places", "l2_size", "lazy_refcounts",
        "leak_told", "let_go", "lock", "looks_hollow", "lost_changes", "nb_bitmaps", "nb_snapshots",
        "overlap_checks", "owns_dirty_bit", "pass_discard", "pass_other_discard",
        "pass_snapshot_discard", "place_flags", "plain", "refblock_bits", "refblock_places",
        "refcount_bits", "refcount_cache", "refcount_max", "refcount_order", "reftable",
        "reftable_offset", "rewrites", "same_bits", "slice_bits", "slice_mask", "slice_shift",
        "slice_size_bits", "snapshots", "snapshots_offset", "snapshots_size", "subcluster_bits",
        "subcluster_mask", "subcluster_size", "suspects", "unknown_fields", "unpacking", "version",
        "zero_flag",
    )
    # fmt: on
    l2_cache: TableCache
    refcount_cache: TableCache

    def __init__(self, bs: BlockDriverState, file: BdrvChild) -> None:
        self.bs = bs
        self.file = file
        self.data = file  # or another edge (datafile.py)
        self.external = False
        self.plain = True  # no bitmaps, no data file: the quick way is open (read.py)
        self.place_flags = OFFSET_MASK  # an L2 entry with any of these has a cluster
        self.lock = CoMutex()
        self.broken = ""  # why nothing is read or written any more (R3)
        self.lost_changes = False  # when it broke, L2 tables waited to be written
        self.corruption_told = False
        self.leak_told = False
        self.let_go: set[int] = set()  # clusters that are free, but not yet to be taken
        self.version = 3
        self.incompatible_features = 0
        self.compatible_features = 0
        self.autoclear_features = 0
        self.compression_type = COMPRESSION_ZLIB
        self.backing_name = b""
        self.backing_format = b""
        self.crypt_method = 0
        self.crypto: CryptoBlock | None = None  # what decrypts the guest's data (crypto.py)
        self.extensions: list[tuple[int, bytes]] = []
        self.unknown_fields = b""
        self.nb_bitmaps = 0
        self.bitmap_directory_offset = 0
        self.bitmap_directory_size = 0
        self.bitmaps: list[BitmapEntry] = []  # as they stand in the file (bitmaps.py)
        self.nb_snapshots = 0
        self.snapshots: list[Snapshot] = []  # not read where the image is opened to be checked
        self.snapshots_offset = 0
        self.snapshots_size = 0
        self.l1_offset = 0
        self.l1_table = array("Q")
        self.reftable_offset = 0
        self.reftable = array("Q")
        self.free_cluster = 0  # where the next search begins (alloc.py, R2)
        self.free_byte = 0  # where the next compressed cluster goes; 0: into a new one
        self.overlap_checks = 0
        self.lazy_refcounts = False  # a write need not wait for its refcounts (dirty.py)
        self.owns_dirty_bit = False
        self.pass_discard = False
        self.pass_snapshot_discard = True
        self.pass_other_discard = False
        self.clean_interval = 0
        self.clean_timer: Timer | None = None
        self.cache_options: dict[str, Any] = {}
        self.allocations: list[Allocation] = []
        self.rewrites: dict[Rewrite, None] = {}
        self.unpacking: dict[CoQueue, None] = {}  # compressed reads in flight (let_go.py)
        self.looks_hollow: bool | None = None  # None: nobody has asked yet (read.py)
        self.l2_places: set[int] | None = None
        self.refblock_places: set[int] | None = None
        self.suspects: set[int] | None = None
        self.inactive_l1 = Ranges()  # where the snapshots' L1 tables are

    def set_geometry(self, cluster_bits: int, refcount_order: int, extended: bool = False) -> None:
        """Computes what follows from the size of a cluster, the width of a refcount, and from
        L2 entries with a bitmap."""
        self.extended = extended
        self.plain = not extended
        self.cluster_bits = cluster_bits
        self.cluster_size = 1 << cluster_bits
        self.cluster_mask = self.cluster_size - 1
        self.same_bits = self.cluster_mask  # in which a guest and a host offset agree
        self.subcluster_bits = cluster_bits - 5 if extended else cluster_bits
        self.subcluster_size = 1 << self.subcluster_bits
        self.subcluster_mask = self.subcluster_size - 1
        self.zero_flag = 0 if extended else OFLAG_ZERO
        self.entry_bits = 4 if extended else 3
        self.l2_bits = cluster_bits - self.entry_bits
        self.l2_size = 1 << self.l2_bits
        self.l1_shift = cluster_bits + self.l2_bits
        self.set_refcount_width(refcount_order)

    def set_refcount_width(self, order: int) -> None:
        """Computes what follows from the width of a refcount."""
        self.refcount_order = order
        self.refcount_bits = 1 << order
        self.refcount_max = (1 << self.refcount_bits) - 1
        self.refblock_bits = self.cluster_bits + 3 - order

    def set_slices(self, slice_size: int) -> None:
        """Says how many bytes of an L2 table the cache loads at once."""
        self.slice_size_bits = slice_size.bit_length() - 1
        self.slice_bits = self.slice_size_bits - self.entry_bits
        self.slice_mask = (1 << self.slice_bits) - 1
        self.slice_shift = self.cluster_bits + self.slice_bits

    # -- arithmetic

    def clusters(self, nbytes: int) -> int:
        """How many clusters that many bytes need (size_to_clusters)."""
        return -(-nbytes // self.cluster_size)

    def l1_entries(self, nbytes: int) -> int:
        """How many L1 entries a disk of that length needs (size_to_l1)."""
        return -(-nbytes >> self.l1_shift)

    def vm_state_offset(self) -> int:
        """Where the VM state begins: with the first L2 table that the disk does not need."""
        return self.l1_entries(self.bs.total_sectors << 9) << self.l1_shift

    def start_of_cluster(self, offset: int) -> int:
        return offset & ~self.cluster_mask

    def slice_index(self, offset: int) -> int:
        """Which entry of its slice a guest offset has."""
        return offset >> self.cluster_bits & self.slice_mask

    def slice_place(self, l2_offset: int, offset: int) -> int:
        """Where the slice for a guest offset is in the file, of the L2 table at `l2_offset`."""
        return l2_offset + (
            (offset >> self.slice_shift) << self.slice_size_bits & self.cluster_mask
        )

    # -- looking up

    def cached_slice(self, offset: int) -> Table | None:
        """The L2 slice for a guest offset, if it is in memory (R2)."""
        entry = self.l1_table[offset >> self.l1_shift]
        return self.l2_cache.tables.get(self.slice_place(entry & OFFSET_MASK, offset))

    def cluster_type(self, entry: int) -> int:
        """What an L2 entry says (qcow2_get_cluster_type)."""
        if entry & OFLAG_COMPRESSED:
            return COMPRESSED
        if entry & self.zero_flag:
            return ZERO_ALLOC if entry & OFFSET_MASK else ZERO_PLAIN
        return NORMAL if entry & self.place_flags else UNALLOCATED

    def file_length(self) -> int:
        """How long the image file is now."""
        return self.file.bs.total_sectors << 9

    def data_length(self) -> int:
        """How long the file is in which the guest's data lie; mostly that is the image file."""
        return self.data.bs.total_sectors << 9

    def backing_length(self) -> int:
        """From where on the backing file has nothing; 0 without one."""
        backing = self.bs.backing
        return backing.bs.getlength() if backing is not None else 0

    # -- the clusters of metadata, for overlap checks and for what frees them

    def l2_clusters(self) -> set[int]:
        """The host offsets of all active L2 tables; computed on the first write."""
        if self.l2_places is None:
            self.l2_places = {entry & OFFSET_MASK for entry in self.l1_table}
            self.l2_places.discard(0)
        return self.l2_places

    def suspect_clusters(self) -> set[int]:
        """The host offsets of all clusters that hold metadata, or have held some.

        For a quick no: who finds a cluster here asks corrupt.overlap, which is exact.
        """
        if self.suspects is None:
            size = self.cluster_size
            l1_end = self.l1_offset + ENTRY_SIZE * len(self.l1_table)
            reftable_end = self.reftable_offset + ENTRY_SIZE * len(self.reftable)
            self.suspects = {0, *self.l2_clusters(), *self.refblock_clusters()}
            self.suspects.update(range(self.l1_offset, l1_end, size))
            self.suspects.update(range(self.reftable_offset, reftable_end, size))
            table_end = self.snapshots_offset + self.snapshots_size
            self.suspects.update(range(self.snapshots_offset, table_end, size))
            directory_end = self.bitmap_directory_offset + self.bitmap_directory_size
            self.suspects.update(range(self.bitmap_directory_offset, directory_end, size))
        return self.suspects

    def add_l2_cluster(self, place: int) -> None:
        """A new L2 table is there."""
        self.l2_clusters().add(place)
        self.suspect_clusters().add(place)

    def add_refblock_cluster(self, place: int) -> None:
        """A new refcount block is there."""
        self.refblock_clusters().add(place)
        self.suspect_clusters().add(place)

    def refblock_clusters(self) -> set[int]:
        """The host offsets of all refcount blocks; computed on the first write."""
        if self.refblock_places is None:
            self.refblock_places = {entry & REFTABLE_OFFSET_MASK for entry in self.reftable}
            self.refblock_places.discard(0)
        return self.refblock_places
