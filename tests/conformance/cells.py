# SPDX-License-Identifier: GPL-2.0-only
"""Which driver is moved in which tree: each cell of the table that can be."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.samples import NoSample, Sample, registered_rows, samples_of
from tests.conformance.trees import TREES, Tree

MOVES = 50
ALL_MOVES = 1000


def samples() -> dict[str, Sample]:
    """Returns the samples of each registered driver that has one, by their names."""
    found = {}
    for row in registered_rows():
        try:
            found |= {sample.driver: sample for sample in samples_of(row)}
        except NoSample:
            continue  # a test of its own says so
    return found


def cells() -> Iterator[tuple[Sample, Tree]]:
    """Yields each driver with each tree that can be made of it."""
    for sample in samples().values():
        for tree in TREES:
            if not tree.lacks(sample):
                yield sample, tree


def gaps() -> dict[tuple[str, str], str]:
    """Returns why the other cells are empty."""
    return {
        (sample.driver, tree.name): tree.lacks(sample)
        for sample in samples().values()
        for tree in TREES
        if tree.lacks(sample)
    }
