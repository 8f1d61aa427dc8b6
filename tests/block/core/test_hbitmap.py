# SPDX-License-Identifier: GPL-2.0-only
"""Many bits, beside a plain set of numbers (the cases are those of QEMU's test-hbitmap.c)."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from block.core.hbitmap import CHUNK, CHUNK_BYTES, FULL, HBitmap

L1, L2, L3 = 1, CHUNK, 3 * CHUNK + 100
"""One bit; a chunk; some chunks and a part of one."""


def bits_of(bitmap: HBitmap) -> set[int]:
    """The numbers of all bits that are set, found by looking at each."""
    step = 1 << bitmap.granularity
    return {at // step for at in range(0, bitmap.size, step) if bitmap.get(at)}


def is_whole(bitmap: HBitmap) -> None:
    """The count and the summary say what the bits are."""
    assert bitmap.count == len(bits_of(bitmap))
    levels = [0 if not chunk else 2 if chunk == FULL else 1 for chunk in bitmap.chunks]
    assert list(bitmap.summary) == levels


def test_a_bitmap_of_size_0_has_nothing() -> None:
    bitmap = HBitmap(0, 0)
    assert bitmap.next_dirty() is None
    assert bitmap.next_zero() is None
    assert list(bitmap.areas()) == []


def test_a_new_bitmap_is_clear() -> None:
    bitmap = HBitmap(L3, 0)
    assert bitmap.count == 0
    assert bitmap.next_dirty() is None
    assert bitmap.next_zero() == 0
    assert not bitmap.get(L3 - 1)


def test_the_last_bit_may_stand_for_less() -> None:
    bitmap = HBitmap(L3 * 512 + 1, 9)
    bitmap.set(L3 * 512, 1)
    assert bitmap.get(L3 * 512)
    assert list(bitmap.areas()) == [(L3 * 512, 1)]
    bitmap.reset(L3 * 512, 1)
    assert bitmap.count == 0


@pytest.mark.parametrize(
    ("start", "count"),
    [(0, L3), (L2 - 1, 2), (L2, 1), (L2 - 1, L2 + 2), (0, L2), (L3 - 1, 1), (L1, L2), (5, 0)],
)
def test_what_is_set_is_found_and_what_is_reset_is_gone(start: int, count: int) -> None:
    bitmap = HBitmap(L3, 0)
    bitmap.set(start, count)
    assert bits_of(bitmap) == set(range(start, start + count))
    assert list(bitmap.areas()) == ([(start, count)] if count else [])
    is_whole(bitmap)
    bitmap.reset(start, count)
    assert bits_of(bitmap) == set()
    is_whole(bitmap)


def test_what_is_set_twice_or_overlaps_counts_once() -> None:
    bitmap = HBitmap(L3, 0)
    bitmap.set(10, L2)
    bitmap.set(10, L2)
    bitmap.set(L2, 100)
    assert bitmap.count == L2 + 90
    is_whole(bitmap)


def test_a_hole_is_cut_into_what_is_set() -> None:
    bitmap = HBitmap(L3, 0)
    bitmap.set(0, L3)
    bitmap.reset(100, 2 * L2)
    assert list(bitmap.areas()) == [(0, 100), (100 + 2 * L2, L3 - 100 - 2 * L2)]
    is_whole(bitmap)


def test_reset_all_leaves_nothing() -> None:
    bitmap = HBitmap(L3, 0)
    bitmap.set(1, L3 - 2)
    bitmap.reset_all()
    assert bitmap.count == 0
    is_whole(bitmap)


def test_a_byte_dirties_the_piece_that_it_is_in() -> None:
    bitmap = HBitmap(1 << 20, 12)
    bitmap.set(5000, 1)
    assert bitmap.get(4096)
    assert bitmap.get(8191)
    assert not bitmap.get(8192)
    assert bitmap.next_dirty(5000) == 5000
    assert list(bitmap.areas()) == [(4096, 4096)]


def test_part_of_a_piece_cannot_be_cleaned() -> None:
    bitmap = HBitmap(10000, 12)
    bitmap.set(0, 10000)
    for start, count in ((1, 4095), (0, 4095), (4096, 5000)):
        with pytest.raises(AssertionError, match="R1"):
            bitmap.reset(start, count)
    bitmap.reset(4096, 10000 - 4096)
    assert list(bitmap.areas()) == [(0, 4096)]


def test_a_search_ends_where_it_is_told_to() -> None:
    bitmap = HBitmap(L3, 0)
    bitmap.set(2 * L2, 10)
    assert bitmap.next_dirty(0, 2 * L2) is None
    assert bitmap.next_dirty(0, 2 * L2 + 1) == 2 * L2
    assert bitmap.next_dirty(2 * L2 + 10) is None
    assert bitmap.next_zero(2 * L2, 2 * L2 + 10) is None
    assert bitmap.next_zero(2 * L2, 2 * L2 + 11) == 2 * L2 + 10
    assert bitmap.next_dirty_area(0, None, 4) == (2 * L2, 4)
    assert bitmap.next_dirty_area(2 * L2 + 3, 2 * L2 + 7) == (2 * L2 + 3, 4)
    assert bitmap.next_dirty_area(0, 2 * L2) is None
    assert bitmap.next_dirty(L3 + 5) is None


def test_bits_may_go_while_somebody_walks() -> None:
    bitmap = HBitmap(L3, 0)
    bitmap.set(0, L3)
    seen = []
    for start, count in bitmap.areas():
        seen.append((start, count))
        bitmap.reset_all()
    assert seen == [(0, L3)]


@pytest.mark.parametrize("end", [L2 - 1, L2, L2 + 1, 2 * L2, L3 + 1, L3 + 2 * L2])
def test_another_length_keeps_what_is_inside_and_is_clear_beyond(end: int) -> None:
    bitmap = HBitmap(L3, 0)
    bitmap.set(0, L3)
    bitmap.truncate(end)
    assert bits_of(bitmap) == set(range(min(end, L3)))
    is_whole(bitmap)
    bitmap.truncate(L3 + 3 * L2)
    assert bits_of(bitmap) == set(range(min(end, L3)))
    assert bitmap.next_zero() == min(end, L3)
    is_whole(bitmap)


def test_what_is_saved_is_as_the_formats_have_it() -> None:
    bitmap = HBitmap(20 << 9, 9)
    bitmap.set(0, 512)
    bitmap.set(9 << 9, 512)
    bitmap.set(19 << 9, 512)
    assert bitmap.serialize(0, 20 << 9) == bytes([0b1, 0b10, 0b1000])
    assert bitmap.serialization_size(20 << 9) == 3


def test_saved_bits_come_back_in_parts() -> None:
    bitmap, other = HBitmap(L3, 0), HBitmap(L3, 0)
    bitmap.set(77, 2 * L2)
    bitmap.set(L3 - 1, 1)
    for start in range(0, L3, L2):
        count = min(L2, L3 - start)
        data = bitmap.serialize(start, count)
        assert len(data) == other.serialization_size(count)
        other.deserialize(data, start, count)
    assert other.chunks == bitmap.chunks
    is_whole(other)


def test_bits_behind_the_end_are_not_believed() -> None:
    bitmap = HBitmap(100, 0)
    bitmap.set(50, 10)
    bitmap.deserialize(b"\xff" * CHUNK_BYTES, 0, 100)
    assert (list(bitmap.areas()), bitmap.count) == ([(0, 100)], 100)
    bitmap.deserialize(bytes(CHUNK_BYTES), 0, 100)
    assert bitmap.count == 0


def test_bitmaps_of_other_pieces_can_be_merged() -> None:
    fine, coarse = HBitmap(100_000, 9), HBitmap(100_000, 16)
    fine.set(0, 1)
    coarse.set(70_000, 1)
    fine.merge(coarse)
    assert list(fine.areas()) == [(0, 512), (65536, 100_000 - 65536)]
    coarse.merge(fine)
    assert list(coarse.areas()) == [(0, 100_000)]


def test_a_copy_stays_as_it_was() -> None:
    bitmap = HBitmap(L3, 0)
    bitmap.set(0, L2)
    copy = bitmap.copy()
    bitmap.reset_all()
    assert list(copy.areas()) == [(0, L2)]
    is_whole(copy)


# -- beside a plain set

SIZE = 2 * CHUNK + 777
PLACE = st.integers(0, SIZE) | st.sampled_from([0, CHUNK - 1, CHUNK, 2 * CHUNK, SIZE])
STEP = st.tuples(st.sampled_from(["set", "reset", "merge", "save", "truncate"]), PLACE, PLACE)


def apply(bitmap: HBitmap, model: set[int], step: tuple[str, int, int]) -> set[int]:
    """Does one thing to both; the model afterwards."""
    what, first, second = step
    first, end = sorted((min(first, bitmap.size), min(second, bitmap.size)))
    span = set(range(first, end))
    if what == "set":
        bitmap.set(first, end - first)
        return model | span
    if what == "reset":
        bitmap.reset(first, end - first)
        return model - span
    if what == "merge":
        other = HBitmap(bitmap.size, 0)
        other.set(first, end - first)
        bitmap.merge(other)
        return model | span
    if what == "save":
        data = bitmap.serialize(0, bitmap.size)
        bitmap.set(first, end - first)
        bitmap.deserialize(data, 0, bitmap.size)
        return model
    bitmap.truncate(first)
    bitmap.truncate(SIZE)
    return {bit for bit in model if bit < first}


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=8), PLACE, PLACE)
def test_any_sequence_leaves_what_a_set_would(
    steps: list[tuple[str, int, int]], first: int, second: int
) -> None:
    bitmap = HBitmap(SIZE, 0)
    model: set[int] = set()
    for step in steps:
        model = apply(bitmap, model, step)
        assert bitmap.count == len(model)
    assert bits_of(bitmap) == model
    is_whole(bitmap)
    start, end = sorted((first, second))
    inside = [bit for bit in model if start <= bit < end]
    outside = set(range(start, min(end, SIZE))) - model
    assert bitmap.next_dirty(start, end) == min(inside, default=None)
    assert bitmap.next_zero(start, end) == min(outside, default=None)
    assert sum(count for _, count in bitmap.areas()) == len(model)
