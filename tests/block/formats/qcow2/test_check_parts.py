# SPDX-License-Identifier: GPL-2.0-only
"""What a check is made of: runs of entries, refcounts in memory; and tables that say anything."""

from __future__ import annotations

import os
import random
from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import block
from block.core import check as core
from block.core.error import BlockError
from block.formats.qcow2.layout import OFFSET_MASK, OFLAG_COPIED
from block.formats.qcow2.refmap import RefcountMap
from block.formats.qcow2.runs import l2_runs
from block.formats.qcow2.state import Qcow2State
from tests.block.formats.qcow2.conftest import Opener, state_of
from tests.support.qcow2_damage import CLUSTER, SIZE, Image, counts, make_whole, run_check

LEAKS, ALL = core.FIX_LEAKS, core.FIX_LEAKS | core.FIX_ERRORS


def naive_runs(table: array[int], size: int) -> list[tuple[int, int]]:
    """Index and length of each run, entry by entry."""
    runs: list[tuple[int, int]] = []
    for at, entry in enumerate(table):
        if entry < 2:
            continue
        goes_on = (
            runs
            and sum(runs[-1]) == at
            and entry == table[at - 1] + size
            and table[at - 1] & OFFSET_MASK
            and entry & ~OFFSET_MASK == table[at - 1] & ~OFFSET_MASK
        )
        if goes_on:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((at, 1))
    return runs


ENTRIES = st.one_of(
    st.sampled_from([0, 1, OFLAG_COPIED, OFLAG_COPIED | 1, 512, OFFSET_MASK, (1 << 64) - 1]),
    st.integers(0, 40).map(lambda n: n * 512 | OFLAG_COPIED),
    st.integers(0, (1 << 64) - 1),
)


@given(st.lists(st.tuples(ENTRIES, st.integers(1, 5)), max_size=12))
@settings(max_examples=200, deadline=None)
def test_runs_are_those_that_one_finds_entry_by_entry(parts: list[tuple[int, int]]) -> None:
    entries = [
        entry + number * 512 & (1 << 64) - 1 for entry, count in parts for number in range(count)
    ]
    table = array("Q", [*entries, 0])
    assert list(l2_runs(table, 9)) == naive_runs(table, 512)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64])
def test_a_block_of_refcounts_goes_to_the_disk_and_back(
    tmp_path: Path, opener: Opener, bits: int
) -> None:
    path = tmp_path / "b.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, refcount_bits=bits, cluster_size=512)
    s: Qcow2State = state_of(opener(path))
    refcounts = RefcountMap(s)
    rng = random.Random(bits)
    data = rng.randbytes(512)
    cells = refcounts.unpack(data)
    assert bytes(refcounts.pack(cells)) == data
    assert len(cells) == refcounts.per_block == 512 * 8 // bits
    if bits == 1:
        assert cells[9] == data[1] >> 1 & 1, "the first refcount is in the lowest bit"


@pytest.mark.parametrize("seed", range(6))
def test_whatever_the_tables_say_nothing_but_block_errors_come_out(
    tmp_path: Path, seed: int
) -> None:
    path = tmp_path / "a.qcow2"
    rng = random.Random(seed)
    for _ in range(10):
        path.unlink(missing_ok=True)
        make_whole(path)
        image = Image(path)
        for _ in range(rng.randrange(1, 6)):
            table = rng.choice([CLUSTER, 2 * CLUSTER, 3 * CLUSTER, 4 * CLUSTER])
            value = rng.choice([rng.getrandbits(64), rng.randrange(40) * CLUSTER, 1 << 63])
            image.put(table + 8 * rng.randrange(24), value)
        image.save()
        for fix in (0, LEAKS, ALL, ALL, 0):
            try:
                result, _ = run_check(path, fix)
            except BlockError:
                continue
            assert min(counts(result)) >= 0
