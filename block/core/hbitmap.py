# SPDX-License-Identifier: GPL-2.0-only
"""A large set of bits, one for each piece of a disk, that is searched fast (util/hbitmap.c).

    summary   one byte for a chunk:       0 no bit is set   1 some are   2 all are
    chunks    one integer for 4096 bits:  bit 0 is the first

QEMU has a tree of words, each level saying which words of the next hold anything. Here a search
skips chunks by `bytes.find` in the summary, and bits by arithmetic on one integer of 512 bytes.

R1  Offsets and lengths are in bytes of the disk. A bit stands for 1 << granularity bytes; who sets
    part of that sets the bit. Who clears must name whole ones, or the end of the disk.
R2  `count` is always right: the number of bits that are set.
R3  Integers do not change, so a copy shares them and costs 9 bytes for a chunk.
R4  A chunk is what is saved at once: 512 bytes, bit 0 of byte 0 first. A cluster of any image
    format that keeps bitmaps is a whole number of them.

Discussion: for 1 TiB in pieces of 64 KiB there are 2^24 bits: 2 MiB, and a summary of 4 KiB. To
set a bit here or there takes 0.6 us, to find the next area 1.6 us, to see that there is none 1 us.
A `bytearray` sets a bit no faster, and is searched byte by byte. A sorted list of extents is
shorter where a job copies, and unbearable where a guest writes here and there.

Knows neither nodes nor threads: whoever has one guards it.
"""

from __future__ import annotations

from operator import or_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_BITS = 12
CHUNK = 1 << CHUNK_BITS
CHUNK_BYTES = CHUNK // 8
MASK = CHUNK - 1
FULL = (1 << CHUNK) - 1
NONE, SOME, ALL = range(3)


def _lowest(number: int) -> int:
    """Which is the lowest bit that is set; the number is not 0."""
    return (number & -number).bit_length() - 1


def _level(chunk: int) -> int:
    """What the summary says of a chunk."""
    if chunk == 0:
        return NONE
    return ALL if chunk == FULL else SOME


class HBitmap:
    """Bits for a disk of `size` bytes, each for 1 << `granularity` of them; all clear
    (hbitmap_alloc)."""

    __slots__ = ("chunks", "count", "granularity", "size", "summary")

    def __init__(self, size: int, granularity: int) -> None:
        self.size = size
        self.granularity = granularity
        self.count = 0
        self.chunks: list[int] = [0] * self._chunks_for(size)
        self.summary = bytearray(len(self.chunks))

    def _chunks_for(self, size: int) -> int:
        return -(-size >> self.granularity + CHUNK_BITS)

    def copy(self) -> HBitmap:
        """The same bits, which change no more when these do (R3)."""
        other = HBitmap(0, self.granularity)
        other.size, other.count = self.size, self.count
        other.chunks, other.summary = self.chunks.copy(), self.summary.copy()
        return other

    # -- changing

    def set(self, start: int, nbytes: int) -> None:
        """Sets the bits that a range touches (hbitmap_set)."""
        if nbytes <= 0:
            return
        assert 0 <= start <= self.size - nbytes, "beyond the end of the bitmap"
        first = start >> self.granularity
        last = start + nbytes - 1 >> self.granularity
        at, end = first >> CHUNK_BITS, last >> CHUNK_BITS
        if at == end:
            count = last - first + 1
            self._add(at, ((1 << count) - 1) << (first & MASK), count)
            return
        self._add(at, FULL >> (first & MASK) << (first & MASK), CHUNK - (first & MASK))
        self._fill(at + 1, end, FULL)
        self._add(end, (2 << (last & MASK)) - 1, (last & MASK) + 1)

    def reset(self, start: int, nbytes: int) -> None:
        """Clears the bits of a range (hbitmap_reset, R1)."""
        if nbytes <= 0:
            return
        end = start + nbytes
        piece = (1 << self.granularity) - 1
        assert not start & piece, "R1: part of a bit"
        assert end == self.size or not end & piece, "R1: part of a bit"
        assert 0 <= start < end <= self.size, "beyond the end of the bitmap"
        first, last = start >> self.granularity, end - 1 >> self.granularity
        at, stop = first >> CHUNK_BITS, last >> CHUNK_BITS
        if at == stop:
            self._remove(at, ((2 << last - first) - 1) << (first & MASK))
            return
        self._remove(at, FULL >> (first & MASK) << (first & MASK))
        self._fill(at + 1, stop, 0)
        self._remove(stop, (2 << (last & MASK)) - 1)

    def reset_all(self) -> None:
        """Clears all (hbitmap_reset_all)."""
        self._fill(0, len(self.chunks), 0)

    def _add(self, index: int, mask: int, bits: int) -> None:
        """Sets the bits of a mask, which has so many."""
        old = self.chunks[index]
        there = old & mask
        if there == mask:
            return
        self.count += bits - there.bit_count()
        new = old | mask
        self.chunks[index] = new
        self.summary[index] = SOME
        if new == FULL:
            self.chunks[index] = FULL  # the one that all share
            self.summary[index] = ALL

    def _remove(self, index: int, mask: int) -> None:
        """Clears the bits of a mask."""
        old = self.chunks[index]
        if gone := old & mask:
            self.count -= gone.bit_count()
            new = self.chunks[index] = old ^ gone
            self.summary[index] = SOME if new else NONE

    def _fill(self, first: int, end: int, chunk: int) -> None:
        """Makes whole chunks empty or full."""
        before = sum(map(int.bit_count, self.chunks[first:end]))
        self.count += chunk.bit_count() * (end - first) - before
        self.chunks[first:end] = [chunk] * (end - first)
        self.summary[first:end] = bytes([_level(chunk)]) * (end - first)

    def truncate(self, size: int) -> None:
        """Follows the disk to another length; what comes new is clear (hbitmap_truncate)."""
        chunks = self._chunks_for(size)
        if size < self.size:
            self._fill(chunks, len(self.chunks), 0)
            if kept := -(-size >> self.granularity) & MASK:
                self._remove(chunks - 1, FULL >> kept << kept)
        del self.chunks[chunks:]
        del self.summary[chunks:]
        self.chunks += [0] * (chunks - len(self.chunks))
        self.summary += bytes(chunks - len(self.summary))
        self.size = size

    def merge(self, other: HBitmap) -> None:
        """Adds all that another one holds, for a disk of the same length (hbitmap_merge)."""
        assert other.size == self.size, "bitmaps of different sizes"
        if other.granularity != self.granularity:
            for start, nbytes in other.areas():
                self.set(start, nbytes)
            return
        self.chunks = list(map(or_, self.chunks, other.chunks))
        self.summary = bytearray(map(_level, self.chunks))
        self.count = sum(map(int.bit_count, self.chunks))

    # -- looking

    def get(self, offset: int) -> bool:
        """Whether the bit for an offset is set (hbitmap_get)."""
        bit = offset >> self.granularity
        return bool(self.chunks[bit >> CHUNK_BITS] >> (bit & MASK) & 1)

    def next_dirty(self, start: int = 0, end: int | None = None) -> int | None:
        """The first offset from `start` on whose bit is set; None: there is none before `end`
        (hbitmap_next_dirty)."""
        end = self.size if end is None else min(end, self.size)
        if start >= end:
            return None
        bit = start >> self.granularity
        at = bit >> CHUNK_BITS
        if rest := self.chunks[at] >> (bit & MASK):
            bit += _lowest(rest)
        else:
            at = self._find(at + 1, self._chunks_for(end), SOME, ALL)
            if at < 0:
                return None
            bit = (at << CHUNK_BITS) + _lowest(self.chunks[at])
        found = max(start, bit << self.granularity)
        return found if found < end else None

    def next_zero(self, start: int = 0, end: int | None = None) -> int | None:
        """The first offset from `start` on whose bit is clear; None: there is none before `end`
        (hbitmap_next_zero)."""
        end = self.size if end is None else min(end, self.size)
        if start >= end:
            return None
        bit = start >> self.granularity
        at = bit >> CHUNK_BITS
        if rest := (self.chunks[at] ^ FULL) >> (bit & MASK):
            bit += _lowest(rest)
        else:
            at = self._find(at + 1, self._chunks_for(end), SOME, NONE)
            if at < 0:
                return None
            bit = (at << CHUNK_BITS) + _lowest(self.chunks[at] ^ FULL)
        found = max(start, bit << self.granularity)
        return found if found < end else None

    def _find(self, at: int, end: int, one: int, other: int) -> int:
        """The next chunk of which the summary says the one or the other; -1: none."""
        first = self.summary.find(one, at, end)
        second = self.summary.find(other, at, end if first < 0 else first)
        return first if second < 0 else second

    def next_dirty_area(
        self, start: int = 0, end: int | None = None, most: int | None = None
    ) -> tuple[int, int] | None:
        """The next (offset, bytes), `most` at most, whose bits are all set; None: there is none
        before `end` (hbitmap_next_dirty_area)."""
        end = self.size if end is None else min(end, self.size)
        found = self.next_dirty(start, end)
        if found is None:
            return None
        if most is not None:
            end = min(end, found + most)
        stop = self.next_zero(found, end)
        return found, (end if stop is None else stop) - found

    def areas(self) -> Iterator[tuple[int, int]]:
        """All (offset, bytes) whose bits are set, each as long as can be.

        The bits may change meanwhile: what lies ahead is seen as it is then.
        """
        at = 0
        while (area := self.next_dirty_area(at)) is not None:
            yield area
            at = area[0] + area[1]

    # -- saving (R4)

    @property
    def serialization_align(self) -> int:
        """What an offset must be a multiple of to begin a part (hbitmap_serialization_align)."""
        return CHUNK << self.granularity

    def serialization_size(self, nbytes: int) -> int:
        """How many bytes the bits of so many bytes of the disk take."""
        bits = -(-nbytes >> self.granularity)
        return -(-bits // 8)

    def serialize(self, start: int, nbytes: int) -> bytes:
        """The bits of a range, which begins with a chunk (hbitmap_serialize_part)."""
        assert start % self.serialization_align == 0, "R4: in the middle of a chunk"
        first = start >> self.granularity + CHUNK_BITS
        part = self.chunks[first : self._chunks_for(start + nbytes)]
        data = b"".join(chunk.to_bytes(CHUNK_BYTES, "little") for chunk in part)
        return data[: self.serialization_size(nbytes)]

    def deserialize(self, data: bytes | bytearray | memoryview, start: int, nbytes: int) -> None:
        """Takes the bits of a range from where they were saved (hbitmap_deserialize_part).

        Bits behind the end of the range are not believed.
        """
        assert start % self.serialization_align == 0, "R4: in the middle of a chunk"
        assert start + nbytes <= self.size, "beyond the end of the bitmap"
        first = start >> self.granularity + CHUNK_BITS
        bits = -(-nbytes >> self.granularity)
        for number in range(-(-bits // CHUNK)):
            at = number * CHUNK_BYTES
            chunk = int.from_bytes(data[at : at + CHUNK_BYTES], "little")
            left = bits - number * CHUNK
            if left < CHUNK:
                chunk &= (1 << left) - 1
            self._remove(first + number, FULL)
            self._add(first + number, chunk, chunk.bit_count())
