# SPDX-License-Identifier: GPL-2.0-only
"""The interoperability matrix: each format x its options x who begins (tests/support)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import format_matrix as matrix
from tests.support.format_matrix import Cell, Kind

KINDS = matrix.kinds()


@pytest.mark.full
@pytest.mark.parametrize("direction", matrix.DIRECTIONS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_each_reads_what_the_other_wrote_and_writes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind, direction: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Cell(kind, KINDS.index(kind)).run(direction) > 0


def test_every_value_of_an_option_meets_every_value_of_every_other() -> None:
    every = matrix.rows("qcow2", matrix.QCOW2)
    few = matrix.pairs(every)
    assert len(few) < len(every) // 8
    for row in every:
        for name, other in zip(list(row), list(row)[1:], strict=False):
            assert any(one[name] == row[name] and one[other] == row[other] for one in few)
