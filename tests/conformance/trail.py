# SPDX-License-Identifier: GPL-2.0-only
"""Who touched a byte last: what the hooks of the root have done, for a read that saw wrong data.

The line of a finding is the last one that the hook which changed the byte last has run. A driver
that loses a write leaves that one by a way of its own, so it is often the line of the mistake.

R1  What counts is what the root's driver was asked, not what a user has asked: where the core had
    to round a write to blocks, it writes the neighbours' bytes as well.
R2  All belongs to the thread at home in the tree's context, as the load does; `moves` to the main
    thread, while the tree stands still.
"""

from __future__ import annotations

from collections import deque

from tests.conformance.findings import short

CHANGES = ("co_pwritev", "co_pwrite_zeroes", "co_pdiscard")
READS = ("co_preadv",)
KEPT = 10_000  # changes: no byte of a mebibyte waits so long for its next one
KEPT_READS = 32  # more than can be in flight


class Step:
    """What one hook has done: with which bytes, in which loop, after how many moves.

    where  "file:line" of the last line that it has run
    """

    __slots__ = ("ctx", "end", "hook", "moves", "offset", "where")

    def __init__(
        self, hook: str, offset: int, nbytes: int, ctx: str, moves: int, where: str
    ) -> None:
        self.hook = hook
        self.offset = offset
        self.end = offset + nbytes
        self.ctx = ctx
        self.moves = moves
        self.where = where

    def __str__(self) -> str:
        nbytes = self.end - self.offset
        what = f"{self.hook} of {nbytes} bytes at {self.offset}"
        return f"{what} (in {self.ctx} after move {self.moves}, {short(self.where)})"


class Trail:
    """The latest steps of a run."""

    def __init__(self) -> None:
        self.moves = 0
        self._changes: deque[Step] = deque(maxlen=KEPT)
        self._reads: deque[Step] = deque(maxlen=KEPT_READS)

    def note(self, hook: str, offset: int, nbytes: int, ctx: str, where: str) -> None:
        """A hook has ended well."""
        steps = self._changes if hook in CHANGES else self._reads
        steps.append(Step(hook, offset, nbytes, ctx, self.moves, where))

    def about(self, at: int) -> tuple[str, str]:
        """Returns the line of a byte's last change, and says who read and who changed it."""
        read, change = _last(self._reads, at), _last(self._changes, at)
        said = f"read by {read or 'try_preadv, at once'}; changed last by {change or 'nobody'}"
        return change.where if change is not None else "", said


def _last(steps: deque[Step], at: int) -> Step | None:
    return next((step for step in reversed(steps) if step.offset <= at < step.end), None)
