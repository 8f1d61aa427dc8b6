# SPDX-License-Identifier: GPL-2.0-only
"""Entries that continue each other are found all at once, as they are one by one."""

from __future__ import annotations

from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from block.formats.qcow2.layout import OFFSET_MASK, OFLAG_COMPRESSED, OFLAG_COPIED
from block.formats.qcow2.runs import goes_on, l2_runs

CLUSTER = 65536
ENTRY = st.sampled_from(
    [0, 1, CLUSTER, OFLAG_COPIED | CLUSTER, OFLAG_COMPRESSED | 77, (1 << 64) - 1]
)


def one_by_one(entries: list[int], step: int) -> bool:
    return all(after == before + step for before, after in pairwise(entries))


@pytest.mark.parametrize("step", [0, 512, CLUSTER, 2 << 20])
@pytest.mark.parametrize("count", [1, 2, 9, 512])
def test_a_run_goes_on(step: int, count: int) -> None:
    first = OFLAG_COPIED | CLUSTER
    entries = array("Q", [7, *(first + step * n for n in range(count)), 7])
    assert goes_on(entries, 1, 1 + count, step)


@pytest.mark.parametrize("at", [1, 4, 8])
@pytest.mark.parametrize("change", [1, -1, CLUSTER, OFLAG_COPIED, 1 << 32])
def test_one_entry_that_differs_ends_it(at: int, change: int) -> None:
    entries = array("Q", (OFLAG_COPIED | CLUSTER * (n + 1) for n in range(9)))
    assert goes_on(entries, 0, 9, CLUSTER)
    entries[at] = entries[at] ^ change if change > CLUSTER else entries[at] + change
    assert not goes_on(entries, 0, 9, CLUSTER)
    assert goes_on(entries, 0, at, CLUSTER)


def test_a_sum_that_would_reach_the_flags_is_no_run() -> None:
    last = OFFSET_MASK + 1 - 512
    entries = array("Q", [last, last + 512, last + 1024])
    assert one_by_one(list(entries), 512)
    assert not goes_on(entries, 0, 3, 512)


@given(st.lists(ENTRY, min_size=1, max_size=9), st.sampled_from([0, CLUSTER]))
def test_any_entries_are_told_as_one_by_one(entries: list[int], step: int) -> None:
    found = goes_on(array("Q", entries), 0, len(entries), step)
    room = OFFSET_MASK - (entries[0] & OFFSET_MASK) >= step * (len(entries) - 1)
    assert found == (room and one_by_one(entries, step))


def test_the_runs_of_a_table() -> None:
    a = OFLAG_COPIED | 10 * CLUSTER
    table = array("Q", [0, 0, a, a + CLUSTER, a + 2 * CLUSTER, 0, a, 1])
    assert list(l2_runs(table, 16)) == [(2, 3), (6, 1)]
    assert list(l2_runs(array("Q", bytes(64)), 16)) == []
    assert list(l2_runs(table[1:5], 16)) == [(1, 3)]
