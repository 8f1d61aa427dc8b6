# SPDX-License-Identifier: GPL-2.0-only
"""Counting votes: which version has most (QuorumVotes, quorum_get_vote_winner).

A voter is the index of a child, its vote a value: the bytes that it read, or the errno that it
failed with. Voters with the same value make a version.

    votes              versions, newest first      winner
    A A B              B:1 A:2                     A, with 2
    A B                B:1 A:1                     B, with 1: of equals the one that came up last
    A B B A C          C:1 B:2 A:2                 B, with 2

R1  The largest version wins; of equally large ones the one that came up last, as QEMU has it (its
    list begins with the newest). With a threshold of more than half there is never a tie.
R2  Whether the winner has enough votes is the caller's question.
Who may call it: anyone; nothing here knows of disks.

Discussion: QEMU compares SHA-256 sums. Here a version is kept under its bytes themselves: a
dictionary hashes them faster than SHA-256 does, and compares what has the same hash.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    Version = tuple[Hashable, list[int]]


def versions(votes: Iterable[tuple[int, Hashable]]) -> list[Version]:
    """Sorts (voter, value) into versions, the newest first: (value, its voters in order)."""
    found: dict[Hashable, list[int]] = {}
    for voter, value in votes:
        found.setdefault(value, []).append(voter)
    return list(reversed(found.items()))


def winner(counted: list[Version]) -> Version:
    """Returns the version with most votes (quorum_get_vote_winner, R1)."""
    return max(counted, key=_count)


def _count(version: Version) -> int:
    return len(version[1])
