# SPDX-License-Identifier: GPL-2.0-only
"""Every outcome of a vote, as a table: who answers what, who wins, who is told of."""

from __future__ import annotations

import os

import pytest

from block.core.error import BlockError
from block.filters.quorum import vote
from tests.support.voters import ERRORS, Voters

EIO, ENOSPC = os.strerror(5), os.strerror(28)

# children, threshold -> the letter that is read or the error, which children are told of
READS = [
    ("A", 1, "A", []),
    ("AAA", 2, "A", []),
    ("AAB", 2, "A", [(2, None)]),
    ("ABA", 2, "A", [(1, None)]),
    ("BAA", 2, "A", [(0, None)]),
    ("ABBBA", 3, "B", [(4, None), (0, None)]),
    # all different
    ("ABC", 2, "!", []),
    ("ABC", 1, "C", [(1, None), (0, None)]),
    # ties: of equals the one that came up last
    ("AB", 1, "B", [(0, None)]),
    ("AABB", 2, "B", [(1, None), (0, None)]),
    ("ABBA", 2, "B", [(3, None), (0, None)]),
    ("ABBAC", 2, "B", [(4, None), (3, None), (0, None)]),
    # the largest has not enough
    ("AB", 2, "!", []),
    ("ABAB", 3, "!", []),
    ("AAAAB", 5, "!", []),
    # who fails has no vote, and is told of
    ("A!A", 2, "A", [(1, EIO)]),
    ("A!$", 1, "A", [(1, EIO), (2, ENOSPC)]),
    ("A!B", 1, "B", [(1, EIO), (0, None)]),
    ("AAB!", 2, "A", [(3, EIO), (2, None)]),
    ("AB!", 2, "!", [(2, EIO)]),
    # too many fail: the error that most have, of equals the one that came up last
    ("!", 1, "!", [(0, EIO)]),
    ("A!!", 2, "!", [(1, EIO), (2, EIO)]),
    ("$!$", 1, "$", [(0, ENOSPC), (1, EIO), (2, ENOSPC)]),
    ("!$A", 2, "$", [(0, EIO), (1, ENOSPC)]),
    ("$!A", 2, "!", [(0, ENOSPC), (1, EIO)]),
]


@pytest.mark.parametrize(("letters", "threshold", "outcome", "told"), READS)
def test_a_read(
    letters: str, threshold: int, outcome: str, told: list[tuple[int, str | None]]
) -> None:
    with Voters(letters, threshold) as voters:
        failure = []
        if outcome in ERRORS:
            with pytest.raises(BlockError) as error:
                voters.blk.pread(512, 1024)
            assert error.value.errno == ERRORS[outcome]
            failure = [("failure", "disk0")]
        else:
            assert voters.blk.pread(512, 1024) == outcome.encode() * 1024
        reports = [("read", *child) for child in told]
        assert sorted(voters.told, key=str) == sorted(reports + failure, key=str)
        assert [it for it in voters.told if it[0] == "read"] == reports


WRITES = [
    ("AAA", 2, None, []),
    ("AA!", 2, None, [(2, EIO)]),
    ("AA!", 3, "!", [(2, EIO)]),
    ("A!!", 1, None, [(1, EIO), (2, EIO)]),
    ("$!$", 1, "$", [(0, ENOSPC), (1, EIO), (2, ENOSPC)]),
    ("$!A", 2, "!", [(0, ENOSPC), (1, EIO)]),
]
HOOKS = {"write": "pwritev", "zeroes": "pwritev", "flush": "flush"}


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize(("letters", "threshold", "outcome", "told"), WRITES)
def test_a_write_and_a_flush_succeed_where_enough_children_do(
    kind: str, letters: str, threshold: int, outcome: str, told: list[tuple[int, str]]
) -> None:
    with Voters(letters, threshold, (HOOKS[kind],)) as voters:
        requests = {
            "write": lambda: voters.blk.pwrite(512, b"new" * 100),
            "zeroes": lambda: voters.blk.pwrite_zeroes(512, 300),
            "flush": voters.blk.flush,
        }
        if kind == "flush":
            voters.blk.pwrite(0, b"x")
        if outcome is None:
            requests[kind]()
        else:
            with pytest.raises(BlockError) as error:
                requests[kind]()
            assert error.value.errno == ERRORS[outcome]
        event = "flush" if kind == "flush" else "write"
        fails = outcome is not None and kind != "flush"
        assert voters.told == [(event, *child) for child in told] + (
            [("failure", "disk0")] if fails else []
        )
        new = {"write": b"newn", "zeroes": bytes(4), "flush": b"AAAA"}[kind]
        for disk, letter in zip(voters.disks, letters, strict=True):
            if letter == "A":
                assert disk.data[512:516] == new


def test_versions_are_counted_newest_first() -> None:
    counted = vote.versions(enumerate("ABBAC"))
    assert counted == [("C", [4]), ("B", [1, 2]), ("A", [0, 3])]
    assert vote.winner(counted) == ("B", [1, 2])


def test_a_range_is_told_in_sectors_and_a_failed_read_says_how_many_agree() -> None:
    with Voters("ABC") as voters:
        with pytest.raises(BlockError) as error:
            voters.blk.pread(1000, 600)
        assert str(error.value) == (
            "quorum: at most 1 of 3 children say the same at offset 1000, vote-threshold is 2"
        )
        (happened,) = voters.events
        assert happened.data == {"reference": "disk0", "sector-num": 1, "sectors-count": 3}


def test_an_outvoted_child_is_told_of_with_qmps_members() -> None:
    with Voters("AB!A", 2) as voters:
        voters.blk.pread(0, 512)
        range = {"sector-num": 0, "sectors-count": 1}
        names = [node.node_name for node in voters.nodes]
        assert [happened.data for happened in voters.events] == [
            {"type": "read", "error": EIO, "node-name": names[2], **range},
            {"type": "read", "node-name": names[1], **range},
        ]
        assert {happened.name for happened in voters.events} == {"QUORUM_REPORT_BAD"}
