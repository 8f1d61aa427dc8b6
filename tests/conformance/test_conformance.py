# SPDX-License-Identifier: GPL-2.0-only
"""Every registered driver, in every tree, is moved while it is used: `make conformance` as tests.

A driver is subject to this by being registered. Its sample says how it is opened
(tests/samples/README.md).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from block.core import registry
from tests.conformance import __main__ as program
from tests.conformance.cells import ALL_MOVES, MOVES, cells, gaps
from tests.conformance.run import run
from tests.conformance.samples import Sample, registered_rows, samples_of
from tests.conformance.trees import Tree

each_cell = pytest.mark.parametrize(
    ("sample", "tree"),
    [pytest.param(sample, tree, id=f"{sample.driver}, {tree.name}") for sample, tree in cells()],
)


@pytest.mark.parametrize("row", registered_rows(), ids=lambda row: row.name)
def test_every_registered_driver_has_a_sample(row: registry.Row) -> None:
    assert samples_of(row)[0].driver == row.name


def test_a_driver_may_have_several_samples() -> None:
    row = registry.find_row("file")
    assert row is not None
    assert [each.driver for each in samples_of(row)] == [
        "file",
        "file aio=native",
        "file aio=io_uring",
    ]


def test_a_tree_that_cannot_be_says_why() -> None:
    assert all(gaps().values())
    assert gaps()["null-co", "qcow2 over it"] == "null-co keeps no data"


@each_cell
def test_a_tree_moves_and_nothing_is_left_behind(
    sample: Sample, tree: Tree, tmp_path: Path
) -> None:
    assert_passed(sample, tree, MOVES, tmp_path)


@pytest.mark.full
@pytest.mark.timeout(600)
@each_cell
def test_a_tree_moves_a_thousand_times(sample: Sample, tree: Tree, tmp_path: Path) -> None:
    assert_passed(sample, tree, ALL_MOVES, tmp_path)


def assert_passed(sample: Sample, tree: Tree, moves: int, folder: Path) -> None:
    sample.require(folder)
    result = run(sample, tree, moves, folder, seed=moves)
    assert [str(finding) for finding in result.findings] == []
    assert result.moves == moves
    assert result.requests > moves


def test_the_program_prints_the_table_and_the_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["conformance", "--moves", "3", "null-co"])
    assert program.main() == 0
    head, alone, *_, counts = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["driver", "tree", "moves", "requests"]
    assert alone.split()[:3] == ["null-co", "alone", "3"]
    assert alone.endswith("passed")
    assert counts.startswith("1 drivers, 1 trees, 3 moves, ")


def test_the_program_fails_where_a_driver_has_no_sample(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = registry.Row("nobody-knows", "tests.conformance.broken", "Memory")
    monkeypatch.setattr(registry, "TABLE", [row])
    monkeypatch.setattr(sys, "argv", ["conformance"])
    assert program.main() == 1
    assert "missing: driver 'nobody-knows' is registered" in capsys.readouterr().out
