# SPDX-License-Identifier: GPL-2.0-only
"""The interoperability matrix: each format x its options x who begins (tests/support)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.format_kinds import QCOW2, Kind, kinds, pairs, rows
from tests.support.format_matrix import OURS, QEMUS, Cell

KINDS = kinds()


# QEMU takes seconds to make a LUKS header: here it makes one only.
LUKS = [kind for kind in KINDS if kind.encryption == "luks"]
CELLS = [(kind, OURS) for kind in KINDS if kind not in LUKS[4:] or kind.fmt == "qcow2"]
CELLS += [(kind, QEMUS) for kind in KINDS if kind not in LUKS[1:]]


@pytest.mark.full
@pytest.mark.parametrize(("kind", "direction"), CELLS, ids=str)
def test_each_reads_what_the_other_wrote_and_writes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind, direction: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Cell(kind, KINDS.index(kind)).run(direction) > 0


def test_every_value_of_an_option_meets_every_value_of_every_other() -> None:
    every = rows("qcow2", QCOW2)
    few = pairs(every)
    assert len(few) < len(every) // 8
    for row in every:
        for name, other in zip(list(row), list(row)[1:], strict=False):
            assert any(one[name] == row[name] and one[other] == row[other] for one in few)
