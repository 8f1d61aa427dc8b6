# SPDX-License-Identifier: GPL-2.0-only
"""Ranges of bytes, and the question whether others touch them.

However many there are: one bisection answers, and ranges that overlap take no more room than one.
"""

from __future__ import annotations

from block.lean import bisect_right

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Ranges:
    """A set of bytes, made of (start, end) pairs; it does not change."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(ranges):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            elif start < end:
                self._starts.append(start)
                self._ends.append(end)

    def touch(self, start: int, end: int) -> bool:
        """Whether one of them has a byte between start and end."""
        at = bisect_right(self._ends, start)
        return at < len(self._starts) and self._starts[at] < end
