# SPDX-License-Identifier: GPL-2.0-only
"""Many L2 entries at once: which of them continue each other.

    entries   0  0  A  A+1  A+2  0  C  zeroes       A, A+1: adjacent clusters of the file
    runs            (2, 3)         (6, 1)           (index, length)

R1  The price is that of the runs, not of the clusters: they are found by `map` and `bytes.find`.
    A table that is one run is compared with what it would be then, as one long number.
R2  Where a table has many runs, what is usual is told from what is odd for all entries at once.
Who may call it: anybody, it only calculates.
"""

from __future__ import annotations

import functools
import sys
from array import array
from operator import ne, or_

from block.formats.qcow2.layout import (
    ENTRY_SIZE,
    L2_RESERVED,
    OFFSET_MASK,
    OFLAG_COMPRESSED,
    OFLAG_ZERO,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from block.formats.qcow2.state import Qcow2State

IN_USE = (OFLAG_ZERO).__lt__
"""Whether an L2 entry is more than 'nothing' (0) or 'zeroes' (1)."""
MANY_RUNS = 64
"""A table with fewer entries in use has not many runs."""


def l2_runs(table: array[int], cluster_bits: int) -> Iterator[tuple[int, int]]:
    """(index, length) of the runs of an L2 table in which each entry continues the last (R1).

    Entries that need no cluster are in no run. All flags are the same in a run.
    """
    whole = _one_run(table, cluster_bits)
    if whole is not None:
        if whole[1]:
            yield whole
        return
    used = bytes(map(IN_USE, table))
    at = used.find(1)
    breaks = bytes(map(ne, table[1:], map((1 << cluster_bits).__add__, table))) + b"\1"
    while at >= 0:
        stop = breaks.find(1, at) + 1
        offset = table[at] & OFFSET_MASK
        room = OFFSET_MASK - offset >> cluster_bits  # or the sum would reach the flags
        stop = min(stop, at + 1 + room) if offset else at + 1
        yield at, stop - at
        at = used.find(1, stop)


def _one_run(table: array[int], cluster_bits: int) -> tuple[int, int] | None:
    """The run, if the table has only one (length 0: none at all); None: that is not so.

    The table is taken as one long number with 64 bits to an entry. So is the run that its first
    entry would begin, and to compare the two takes no longer than to read them.
    """
    data = table.tobytes()
    stop = -(-len(data.rstrip(b"\0")) // ENTRY_SIZE)
    at = (len(data) - len(data.lstrip(b"\0"))) // ENTRY_SIZE
    if not stop:
        return 0, 0
    entry, count = table[at], stop - at
    offset = entry & OFFSET_MASK
    if not offset or count - 1 > OFFSET_MASK - offset >> cluster_bits or sys.byteorder != "little":
        return None
    ones, steps = _ladder(len(table), cluster_bits)
    expected = (entry * ones + steps) & (1 << 64 * count) - 1
    found = int.from_bytes(data[at * ENTRY_SIZE : stop * ENTRY_SIZE], "little")
    return (at, count) if found == expected else None


@functools.lru_cache(maxsize=2)
def _ladder(entries: int, cluster_bits: int) -> tuple[int, int]:
    """Two long numbers of 64 bits to an entry: 1, 1, 1, ... and 0, 1, 2, ... clusters."""
    ones = int.from_bytes(array("Q", [1]) * entries, "little")
    steps = array("Q", (number << cluster_bits for number in range(entries)))
    return ones, int.from_bytes(steps, "little")


def scattered(s: Qcow2State, table: array[int], file_length: int) -> list[int] | None:
    """The entries in use of an L2 table whose clusters lie anywhere in the file; None: it is to be
    looked at run by run.

    They are data clusters, all of them, with no bit that ought to be 0, and in the file.
    """
    if s.external:
        return None
    used = list(filter(IN_USE, table))
    sparse = len(used) <= len(table) // 2  # then there are gaps between runs, and few in a run
    if len(used) < MANY_RUNS or not (sparse or count_runs(used, s.cluster_size) > len(used) // 8):
        return None
    odd = OFLAG_COMPRESSED | L2_RESERVED | s.cluster_mask & OFFSET_MASK
    if functools.reduce(or_, used) & odd:
        return None
    offsets = list(map(OFFSET_MASK.__and__, used))
    if not min(offsets) or max(offsets) > file_length - s.cluster_size:
        return None
    return used


def count_runs(used: list[int], cluster_size: int) -> int:
    """How many entries do not continue the one before, wherever that stands in the table."""
    following = map(cluster_size.__add__, used)
    return 1 + bytes(map(ne, used[1:], following)).count(1)
