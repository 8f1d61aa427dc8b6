# SPDX-License-Identifier: GPL-2.0-only
"""The guest's self-test on a choice of machines and disks that has every pair of them."""

from __future__ import annotations

import itertools
from dataclasses import astuple
from pathlib import Path

import pytest

from tests.matrix.cells import Cell, every, pairs, pairwise, possible, why_not
from tests.matrix.run import judge, need, nested_verdict, run_here, run_nested

CELLS = pairwise(possible(every()))
HERE = [cell for cell in CELLS if not cell.nested]
NESTED = [cell for cell in CELLS if cell.nested]


def test_every_pair_of_choices_that_can_meet_does() -> None:
    missing = set().union(*map(pairs, possible(every()))) - set().union(*map(pairs, CELLS))
    assert missing == set()
    assert len(CELLS) < len(possible(every())) / 2


def test_the_whole_matrix_is_the_product_of_its_axes() -> None:
    cells = every()
    assert len(cells) == len(set(cells)) == 5 * 4 * 2 * 3
    assert [why_not(Cell("qemu-tcg", "raw", "iothread", "threads"))] != [None]
    assert len(possible(cells)) == 120 - 12


def test_pairs_are_of_different_axes() -> None:
    one = pairs(CELLS[0])
    assert len(one) == len(list(itertools.combinations(astuple(CELLS[0]), 2)))


def test_a_run_without_a_report_is_judged_bad() -> None:
    assert judge("panic: main", 3)[0].startswith("exit status 3")
    assert judge("1..1\nnot ok 1 - OUT\n", 3) == ("failed: OUT", 0)
    assert judge("1..1\nok 1 - IN\n", 1) == ("", 1)
    assert nested_verdict("nothing").wrong.startswith("it did not end")
    assert nested_verdict("1..1\nok 1 - IN\n=== status 1 2.5 4.0\n").seconds == 1.5
    assert nested_verdict("1..1\nok 1 - IN\n=== status 1 2 4\nwork differ: byte 1\n").wrong


@pytest.mark.full
@pytest.mark.parametrize("cell", HERE, ids=str)
def test_the_self_test_passes(cell: Cell, tmp_path: Path) -> None:
    need(cell)
    assert run_here(cell, tmp_path).wrong == ""


@pytest.mark.full
@pytest.mark.timeout(600)
def test_the_self_test_passes_in_the_nested_machine(tmp_path: Path) -> None:
    for cell in NESTED:
        need(cell)
    assert {str(cell): v.wrong for cell, v in run_nested(NESTED, tmp_path).items()} == {
        str(cell): "" for cell in NESTED
    }
