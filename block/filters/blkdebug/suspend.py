# SPDX-License-Identifier: GPL-2.0-only
"""Coroutines that stand at a break point (BlkdebugSuspendedReq).

R1  A break point is met once. Who meets several at one event stands at all of them, and goes on
    when all have been resumed.
R2  A coroutine leaves the list before it is entered: what it does next may look at the list.
R3  Of several with one name, the one that came last goes on first.
Who may call it: the thread at home in the node's context.
"""

from __future__ import annotations

from block.aio.coroutine import Coroutine, co_yield, current
from block.core import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.filters.blkdebug.rules import BreakPoint


class Suspended:
    """Who stands where: (tag, coroutine), the last one first."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[tuple[str, Coroutine]] = []

    def is_suspended(self, tag: str) -> bool:
        """Whether somebody stands at a break point of that name."""
        return any(name == tag for name, _ in self.waiting)

    async def stop(self, points: list[BreakPoint]) -> None:
        """Stops the running coroutine until each of the points has been resumed (R1)."""
        me = current()
        assert me is not None, "only a coroutine can be stopped"
        for point in points:
            report.tell(f"blkdebug: Suspended request '{point.tag}'")
            self.waiting.insert(0, (point.tag, me))
        for _ in points:
            await co_yield()

    def resume(self, tag: str) -> bool:
        """Lets one go on (resume_req_by_tag); False: none stands there."""
        for entry in self.waiting:
            if entry[0] == tag:
                report.tell(f"blkdebug: Resuming request '{tag}'")
                self.waiting.remove(entry)
                entry[1].wake()
                return True
        return False
