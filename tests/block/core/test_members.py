# SPDX-License-Identifier: GPL-2.0-only
"""What -blockdev must be told: the first member that is missing is named by its path."""

from __future__ import annotations

import pytest

from block.core import members, registry
from block.core.error import BlockError
from block.core.open import blockdev_add

NULL = {"driver": "null-co"}


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"driver": "file"}, "filename"),
        ({"driver": "throttle"}, "throttle-group"),
        ({"driver": "throttle", "throttle-group": "g"}, "file"),
        ({"driver": "throttle", "file": {"driver": "raw"}}, "throttle-group"),
        ({"driver": "raw", "file": {}}, "file.driver"),
        ({"driver": "raw", "file": {"filename": "a"}}, "file.driver"),
        ({"driver": "raw", "file": {"driver": "throttle"}}, "file.throttle-group"),
        ({"driver": "raw", "file": {"driver": "raw", "file": {"driver": "file"}}},
         "file.file.filename"),
        ({"driver": "blkverify", "test": "a"}, "raw"),
        ({"driver": "quorum", "vote-threshold": 1}, "children"),
        ({"driver": "quorum", "children": ["a", NULL]}, "vote-threshold"),
        ({"driver": "quorum", "children": ["a", {"driver": "file"}]}, "children.1.filename"),
        ({"driver": "quorum", "children": [NULL, {"driver": "file"}]}, "children.1.filename"),
        ({"driver": "qcow2", "file": NULL, "backing": {"driver": "raw"}}, "backing.file"),
        ({"driver": "qcow2", "file": NULL, "data-file": {"node-name": "x"}}, "data-file.driver"),
    ],
)  # fmt: skip
def test_the_first_that_is_missing_is_named(options: dict[str, object], missing: str) -> None:
    with pytest.raises(BlockError) as error:
        blockdev_add(options)
    assert str(error.value) == f"Parameter '{missing}' is missing"


def test_a_child_may_be_a_node_or_nothing() -> None:
    members.check({"driver": "qcow2", "file": "node", "backing": None})
    members.check({"driver": "null-co"})


def test_every_driver_s_members_are_known() -> None:
    """A row that comes later needs a line in the table, or takes nothing that it must have."""
    drivers = {row.name for row in registry.TABLE if row.module}
    assert drivers - members.REQUIRED.keys() == {"null-aio", "null-co"}
    assert members.REQUIRED.keys() <= drivers
