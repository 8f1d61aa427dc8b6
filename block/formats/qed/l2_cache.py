# SPDX-License-Identifier: GPL-2.0-only
"""Pieces of L2 tables in memory (block/qed-l2-cache.c).

An L2 table may be a gibibyte, and one entry of it wanted. So slices of at most 64 KiB are kept;
with clusters of 64 KiB one covers 512 MiB of the disk.

R1  Write-through: what is here, is in the file. So a slice may go at any time.
R2  The memory is bounded by what QEMU's 50 tables of default size take: 12.5 MiB. The slice
    that goes is the one that was found longest ago.
R3  A slice's array is the same for as long as it is here; it is changed in place, after the file.
Who may call it: `find` anyone at home; the rest with the image's lock (state.py, R2).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

SLICE_BYTES = 64 << 10
CACHE_BYTES = 50 * (256 << 10)


class L2TableCache:
    """The slices of one image (L2TableCache)."""

    __slots__ = ("capacity", "slice_bytes", "slices")

    def __init__(self, table_bytes: int) -> None:
        self.slice_bytes = min(table_bytes, SLICE_BYTES)
        self.capacity = CACHE_BYTES // self.slice_bytes
        self.slices: dict[int, array[int]] = {}

    def find(self, place: int) -> array[int] | None:
        """The slice at an offset of the file (qed_find_l2_cache_entry)."""
        slices = self.slices
        cells = slices.get(place)
        if cells is not None and len(slices) == self.capacity:
            del slices[place]  # only a full cache needs to know the order (R2)
            slices[place] = cells
        return cells

    def put(self, place: int, cells: array[int]) -> None:
        """Keeps a slice that has just been read or written (qed_commit_l2_cache_entry)."""
        assert place not in self.slices, "R3: a second array for one slice"
        while len(self.slices) >= self.capacity:
            del self.slices[next(iter(self.slices))]
        self.slices[place] = cells

    def drop(self, place: int) -> None:
        """Forgets a slice: who knows what the file has there?"""
        del self.slices[place]

    def drop_all(self) -> None:
        """Forgets everything (qed_free_l2_cache)."""
        self.slices.clear()
