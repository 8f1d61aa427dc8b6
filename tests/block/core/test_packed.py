# SPDX-License-Identifier: GPL-2.0-only
"""Clusters that lie packed in a file: which of them one read gets."""

from __future__ import annotations

import pytest

from block.core.packed import READ_AT_ONCE, packed_at_once, packed_run

CLUSTER = 65536


def run(places: list[tuple[int, int]], inside: int = 0, nbytes: int = 64 * CLUSTER) -> list[int]:
    """Where the clusters of a read begin."""
    return [packed.place for packed in packed_run(places, CLUSTER, inside, nbytes)]


def test_each_gets_its_part_of_the_vector() -> None:
    places = [(n * 1000, 1000) for n in range(9)]
    found = packed_run(places, CLUSTER, 100, 2 * CLUSTER)
    parts = [(packed.at, packed.inside, packed.nbytes) for packed in found]
    tail = 100
    first = CLUSTER - tail
    assert parts == [(0, tail, first), (first, 0, CLUSTER), (first + CLUSTER, 0, tail)]


@pytest.mark.parametrize(
    ("second", "follows"),
    [(1500, True), (2000, True), (2001, False), (1001, True), (1000, False), (400, False)],
)
def test_a_cluster_follows_that_begins_in_what_the_one_before_may_have(
    second: int, follows: bool
) -> None:
    assert run([(1000, 1000), (second, 1000)]) == [1000, second][: 1 + follows]


def test_no_more_is_read_at_once_than_may_be_but_always_the_first() -> None:
    size = READ_AT_ONCE // 4
    places = [(n * size, size) for n in range(9)]
    assert run(places) == [0, size, 2 * size, 3 * size]
    assert run([(0, 2 * READ_AT_ONCE), (1, 1)]) == [0, 1]
    assert run([(0, 2 * READ_AT_ONCE), (1, 2 * READ_AT_ONCE)]) == [0]


def test_what_is_packed_at_once_is_whole_clusters_and_not_too_few() -> None:
    for cluster, count in ((512, 512), (65536, 32), (2 << 20, 4), (1 << 30, 4)):
        assert packed_at_once(cluster) == count * cluster
