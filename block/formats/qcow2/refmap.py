# SPDX-License-Identifier: GPL-2.0-only
"""Refcounts in memory: how often each cluster is in use, as a check counts it.

    index -> array        one array for each refcount block, one number for each cluster

R1  Blocks are made when something in them is counted: a sparse file costs what its data cost.
R2  Ranges are counted by `array` and `map`. Clusters that lie anywhere are counted one by one,
    in a loop that does nothing else.
R3  A count is at most what the image's width can hold. What would go beyond is reported.
R4  Refcounts of 1, 2 and 4 bits take a byte each here; `unpack` and `pack` convert.
Who may call it: check.py and repair.py.
"""

from __future__ import annotations

from array import array

from block.formats.qcow2.cache import from_disk, to_disk
from block.formats.qcow2.refcount import TYPECODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from block.formats.qcow2.state import Qcow2State

PLUS_ONE = (1).__add__


def _unpacked(order: int) -> tuple[bytes, ...]:
    """For each byte of a packed block, its refcounts one to a byte."""
    bits = 1 << order
    mask = (1 << bits) - 1
    return tuple(bytes(byte >> shift & mask for shift in range(0, 8, bits)) for byte in range(256))


UNPACKED = tuple(map(_unpacked, range(3)))
"""By the order of widths below a byte."""


def unpack(order: int, data: bytes | bytearray | memoryview | array[int]) -> array[int]:
    """Refcounts of less than a byte, one to a cell, of a block as it stands in the file."""
    return array("B", b"".join(map(UNPACKED[order].__getitem__, data)))


def pack(order: int, cells: array[int]) -> memoryview:
    """A block as it goes to the file, from refcounts one to a cell.

    Packed widths: every n-th refcount makes one long number, and that is shifted at once. No
    refcount leaves its byte.
    """
    if order >= 3:
        return to_disk(cells)
    raw = cells.tobytes()
    bits = 1 << order
    per_byte = 8 // bits
    number = 0
    for at in range(per_byte):
        number |= int.from_bytes(raw[at::per_byte], "little") << at * bits
    return memoryview(number.to_bytes(len(raw) // per_byte, "little"))


class RefcountMap:
    """Refcounts by refcount block (the in-memory refcount table of qcow2-refcount.c)."""

    __slots__ = ("block_bits", "blocks", "maximum", "order", "per_block", "typecode")

    def __init__(self, s: Qcow2State) -> None:
        self.blocks: dict[int, array[int]] = {}
        self.block_bits = s.refblock_bits
        self.per_block = 1 << s.refblock_bits
        self.maximum = s.refcount_max
        self.order = s.refcount_order
        self.typecode = TYPECODES[s.refcount_order]

    def empty(self) -> array[int]:
        """A block in which nothing is in use."""
        return array(self.typecode, [0]) * self.per_block

    def pieces(self, first: int, count: int) -> Iterator[tuple[int, int, int]]:
        """Divides a range of clusters by blocks: (index of the block, start in it, stop)."""
        end = first + count
        while first < end:
            index = first >> self.block_bits
            base = index << self.block_bits
            stop = min(end - base, self.per_block)
            yield index, first - base, stop
            first = base + stop

    def get(self, cluster: int) -> int:
        """The refcount of one cluster."""
        cells = self.blocks.get(cluster >> self.block_bits)
        return cells[cluster & self.per_block - 1] if cells is not None else 0

    def ones(self, index: int, start: int, stop: int) -> int:
        """How many clusters of a piece have the refcount 1."""
        cells = self.blocks.get(index)
        return cells[start:stop].count(1) if cells is not None else 0

    def add(self, first: int, count: int) -> list[int]:
        """Counts a range up by one; returns the clusters where that does not fit (R3)."""
        if count == 1:
            return self._add_one(first)
        full: list[int] = []
        for index, start, stop in self.pieces(first, count):
            cells = self.blocks.get(index)
            if cells is None:
                cells = self.blocks[index] = self.empty()
            now = cells[start:stop]
            if not now.tobytes().strip(b"\0"):
                cells[start:stop] = array(self.typecode, [1]) * (stop - start)
                continue
            if max(now) < self.maximum:
                cells[start:stop] = array(self.typecode, map(PLUS_ONE, now))
                continue
            base = index << self.block_bits
            full += [base + at for at in range(start, stop) if cells[at] == self.maximum]
            for at in range(start, stop):
                cells[at] = min(cells[at] + 1, self.maximum)
        return full

    def add_each(self, clusters: list[int]) -> list[int]:
        """Counts clusters up by one that lie anywhere; returns those where that does not fit."""
        full: list[int] = []
        blocks, bits, mask = self.blocks, self.block_bits, self.per_block - 1
        for cluster in clusters:
            cells = blocks.get(cluster >> bits)
            if cells is None:
                cells = blocks[cluster >> bits] = self.empty()
            at = cluster & mask
            if cells[at] == self.maximum:
                full.append(cluster)
            else:
                cells[at] += 1
        return full

    def are_single(self, clusters: list[int]) -> bool | None:
        """Whether all of them have the refcount 1 (True), or none (False); None: some have."""
        blocks, bits, mask = self.blocks, self.block_bits, self.per_block - 1
        ones = 0
        for cluster in clusters:
            cells = blocks.get(cluster >> bits)
            ones += cells is not None and cells[cluster & mask] == 1
        return True if ones == len(clusters) else None if ones else False

    def _add_one(self, cluster: int) -> list[int]:
        cells = self.blocks.get(cluster >> self.block_bits)
        if cells is None:
            cells = self.blocks[cluster >> self.block_bits] = self.empty()
        at = cluster & self.per_block - 1
        if cells[at] == self.maximum:
            return [cluster]
        cells[at] += 1
        return []

    # -- as on the disk

    def unpack(self, data: bytes | bytearray | memoryview) -> array[int]:
        """The refcounts of a block as it stands in the file."""
        return unpack(self.order, data) if self.order < 3 else from_disk(self.typecode, data)

    def pack(self, cells: array[int]) -> memoryview:
        """The block as it goes to the file."""
        return pack(self.order, cells)
