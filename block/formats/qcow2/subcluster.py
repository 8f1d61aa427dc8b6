# SPDX-License-Identifier: GPL-2.0-only
"""Subclusters: L2 entries of 16 bytes, each with a bitmap (extended_l2).

A cluster has 32 subclusters. A write needs to copy no more than to the edges of those it touches,
and yet an L2 table covers as much as large clusters let it.

     63           32 31            0
    | reads as zero |  is allocated |    bit n of each half: subcluster n

    bits (zero, allocated)    the entry has a cluster    it has none
    0 0                       UNALLOCATED_ALLOC          UNALLOCATED
    0 1                       NORMAL                     INVALID
    1 0                       ZERO_ALLOC                 ZERO_PLAIN
    1 1                       INVALID                    INVALID

R1  In memory entries and bitmaps are two arrays (cache.py), so whoever asks for an entry need not
    know of bitmaps. `table.bitmaps` is None where the image has none.
R2  One INVALID subcluster spoils its whole cluster, whichever subcluster is asked for.
R3  Bit 0 of an entry, elsewhere the flag for zeroes, says nothing here.
R4  A compressed cluster is one piece; its bitmap is 0.
Pure functions over tables; who may call them is said where the tables come from.
"""

from __future__ import annotations

from block.formats.qcow2.compressed_entry import compressed_run
from block.formats.qcow2.layout import OFFSET_MASK, OFLAG_COMPRESSED, OFLAG_ZERO
from block.formats.qcow2.state import (
    COMPRESSED,
    INVALID,
    NORMAL,
    PLACED,
    UNALLOCATED,
    UNALLOCATED_ALLOC,
    ZERO_ALLOC,
    ZERO_PLAIN,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.formats.qcow2.cache import Table
    from block.formats.qcow2.state import Qcow2State

SUBCLUSTERS = 32
ALL_ALLOC = (1 << 32) - 1
ALL_ZEROES = ALL_ALLOC << 32
PARTLY_ZERO = 1 << 1  # a bit that no entry in a file has
SAME = OFFSET_MASK | OFLAG_COMPRESSED


def bits(first: int, stop: int) -> int:
    """The mask of subclusters `first` to `stop` - 1, in the lower half of a bitmap."""
    return (1 << stop) - (1 << first)


def is_invalid(s: Qcow2State, entry: int, bitmap: int) -> bool:
    """Whether a bitmap contradicts itself, or its entry (R2)."""
    kind = s.cluster_type(entry)
    if kind == NORMAL:
        return bool(bitmap >> 32 & bitmap)
    return kind == UNALLOCATED and bool(bitmap & ALL_ALLOC)


def type_of(s: Qcow2State, entry: int, bitmap: int, number: int) -> int:
    """What one subcluster is (qcow2_get_subcluster_type)."""
    kind = s.cluster_type(entry)
    if kind == COMPRESSED:
        return kind
    if is_invalid(s, entry, bitmap):
        return INVALID
    placed = kind == NORMAL
    if bitmap >> 32 + number & 1:
        return ZERO_ALLOC if placed else ZERO_PLAIN
    if not placed:
        return UNALLOCATED
    return NORMAL if bitmap >> number & 1 else UNALLOCATED_ALLOC


def run_from(s: Qcow2State, entry: int, bitmap: int, number: int) -> tuple[int, int]:
    """(type, how many subclusters from `number` on have it), within one cluster
    (qcow2_get_subcluster_range_type)."""
    kind = type_of(s, entry, bitmap, number)
    if kind == NORMAL:
        alike = bitmap & ALL_ALLOC
    elif kind in (ZERO_PLAIN, ZERO_ALLOC):
        alike = bitmap >> 32
    elif kind in (UNALLOCATED, UNALLOCATED_ALLOC):
        alike = ~(bitmap >> 32 | bitmap) & ALL_ALLOC
    else:
        return kind, SUBCLUSTERS - number
    return kind, _trailing_ones(alike >> number)


def _trailing_ones(mask: int) -> int:
    return (mask ^ mask + 1).bit_length() - 1


def extent_in(s: Qcow2State, table: Table, offset: int, nbytes: int) -> tuple[int, int, int]:
    """As cluster.extent_in, of an image with subclusters (count_contiguous_subclusters)."""
    cells, bitmaps = table.cells, table.bitmaps
    assert bitmaps is not None, "R1"
    index = s.slice_index(offset)
    inside = offset & s.cluster_mask
    nbytes = min(nbytes, (s.slice_mask + 1 - index << s.cluster_bits) - inside)
    first = cells[index]
    number = inside >> s.subcluster_bits
    kind, count = run_from(s, first, bitmaps[index], number)
    end = index + s.clusters(inside + nbytes)
    if kind == COMPRESSED:
        count = compressed_run(cells, index, end)
        return kind, first, min(nbytes, (count << s.cluster_bits) - inside)
    placed = kind in PLACED
    expected, step = first & SAME, s.cluster_size if placed else 0
    at = index + 1
    covered = number + count  # in subclusters, from the beginning of the first cluster
    while at < end and covered == (at - index) * SUBCLUSTERS:
        expected += step
        other, count = run_from(s, cells[at], bitmaps[at], 0)
        if cells[at] & SAME != expected or other != kind:
            break
        covered += count
        at += 1
    host = (first & OFFSET_MASK) + inside if placed else 0
    return kind, host, min(nbytes, (covered << s.subcluster_bits) - inside)


# -- writing


def data_at(s: Qcow2State, table: Table, offset: int, nbytes: int) -> int | None:
    """Where the bytes are that are all data, within one cluster; None: that is not so."""
    assert table.bitmaps is not None, "R1"
    index = s.slice_index(offset)
    entry, bitmap = table.cells[index], table.bitmaps[index]
    inside = offset & s.cluster_mask
    first, last = inside >> s.subcluster_bits, inside + nbytes - 1 >> s.subcluster_bits
    touched = bits(first, last + 1)
    if (
        last >= SUBCLUSTERS
        or bitmap & touched != touched
        or bitmap >> 32 & bitmap
        or entry & OFLAG_COMPRESSED
        or not entry & s.place_flags
    ):
        return None
    return (entry & OFFSET_MASK) + inside


def side_by_side(s: Qcow2State, table: Table, offset: int, nbytes: int) -> int:
    """How many of the bytes have clusters that lie side by side in the file, whatever their
    subclusters are (count_single_write_clusters)."""
    index = s.slice_index(offset)
    inside = offset & s.cluster_mask
    end = min(index + s.clusters(inside + nbytes), s.slice_mask + 1)
    at = index + 1
    place = table.cells[index] & OFFSET_MASK
    while at < end and table.cells[at] & OFFSET_MASK == place + s.cluster_size:
        place += s.cluster_size
        at += 1
    return min(nbytes, (at - index << s.cluster_bits) - inside)


def head_start(s: Qcow2State, table: Table, offset: int, keeps: bool) -> int:
    """From where on a write at `offset` writes, with what it must copy (calculate_l2_meta).

    From its subcluster's edge. A new cluster takes all data along that the old one has in front.
    (No run begins with data that can stay: those are written in place, and were a run before.)
    """
    assert table.bitmaps is not None, "R1"
    index = s.slice_index(offset)
    entry, bitmap = table.cells[index], table.bitmaps[index]
    start = s.start_of_cluster(offset)
    number = (offset - start) >> s.subcluster_bits
    if s.cluster_type(entry) == COMPRESSED:
        return start
    if keeps:
        assert type_of(s, entry, bitmap, number) != NORMAL, "written in place"
        return start + (number << s.subcluster_bits)
    data = bitmap & ALL_ALLOC if s.cluster_type(entry) == NORMAL else 0
    data |= 1 << number
    return start + (_trailing_ones(~data & data - 1) << s.subcluster_bits)


def tail_end(s: Qcow2State, table: Table, end: int, keeps: bool) -> int:
    """Up to where a write that ends at `end` writes; as head_start."""
    assert table.bitmaps is not None, "R1"
    last = end - 1
    index = s.slice_index(last)
    entry, bitmap = table.cells[index], table.bitmaps[index]
    start = s.start_of_cluster(last)
    number = (last - start) >> s.subcluster_bits
    kind = type_of(s, entry, bitmap, number)
    if kind == COMPRESSED:
        return start + s.cluster_size
    if keeps:
        return end if kind == NORMAL else start + (number + 1 << s.subcluster_bits)
    data = bitmap & ALL_ALLOC if s.cluster_type(entry) == NORMAL else 0
    data |= 1 << number
    return start + (data.bit_length() << s.subcluster_bits)


def mark_written(s: Qcow2State, table: Table, start: int, end: int) -> None:
    """The bytes from `start` to `end` are data now: whole subclusters, but for what was data
    before (in qcow2_alloc_cluster_link_l2)."""
    assert table.bitmaps is not None, "R1"
    while start < end:
        base = s.start_of_cluster(start)
        stop = min(end, base + s.cluster_size)
        first, last = (start - base) >> s.subcluster_bits, (stop - 1 - base) >> s.subcluster_bits
        written = bits(first, last + 1)
        index = s.slice_index(start)
        table.bitmaps[index] = (table.bitmaps[index] | written) & ~(written << 32)
        start = stop


# -- zeroes


def plain_entry(table: Table, index: int) -> int:
    """An entry as an image without subclusters would have it: zero, where all of it is.

    Where only some of it is zero, and nothing is there, PARTLY_ZERO: that is not nothing.
    """
    assert table.bitmaps is not None, "R1"
    entry, bitmap = table.cells[index] & ~OFLAG_ZERO, table.bitmaps[index]
    if bitmap == ALL_ZEROES:
        return entry | OFLAG_ZERO
    return entry or (PARTLY_ZERO if bitmap else 0)


def set_plain_entry(table: Table, index: int, entry: int) -> None:
    """The reverse of plain_entry, of what can be said in such an image."""
    assert table.bitmaps is not None, "R1"
    table.cells[index] = entry & ~(OFLAG_ZERO | PARTLY_ZERO)
    table.bitmaps[index] = ALL_ZEROES if entry & OFLAG_ZERO else 0


def mark_zero(s: Qcow2State, table: Table, offset: int, nbytes: int) -> bool:
    """Lets subclusters of one cluster read as zeroes (zero_l2_subclusters).

    False: it is compressed, and in one piece.
    """
    assert table.bitmaps is not None, "R1"
    index = s.slice_index(offset)
    if s.cluster_type(table.cells[index]) == COMPRESSED:
        return False
    first = (offset & s.cluster_mask) >> s.subcluster_bits
    zero = bits(first, first + (-(-nbytes >> s.subcluster_bits)))
    table.bitmaps[index] = (table.bitmaps[index] | zero << 32) & ~zero
    return True
