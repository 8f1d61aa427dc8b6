# SPDX-License-Identifier: GPL-2.0-only
"""Requests in flight on a node, and who must wait for whom (BdrvTrackedRequest).

R1  Requests that overlap run side by side, unless one of them is serialising: then the
    later one waits. Serialising are read-modify-write cycles, growing, and REQ_SERIALISING.
R2  A serialising request covers whole blocks (`overlap_offset`, `overlap_end`).
R3  Nobody waits for one that itself waits: that would be a deadlock.
R4  A coroutine does not overlap itself.
Who may call it: coroutines in the node's context.
"""

from __future__ import annotations

from block.aio.co_lock import CoQueue
from block.aio.coroutine import current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.coroutine import Coroutine
    from block.core.node import BlockDriverState

READ, WRITE, DISCARD, TRUNCATE = range(4)


class TrackedRequest:
    """One request on its way through a node; `type` is READ, WRITE, DISCARD or TRUNCATE."""

    __slots__ = (
        "bs", "co", "nbytes", "offset", "overlap_end", "overlap_offset", "serialising", "type",
        "wait_queue", "waiting_for",
    )  # fmt: skip

    def __init__(self, bs: BlockDriverState, offset: int, nbytes: int, type: int) -> None:
        self.bs = bs
        self.offset = offset
        self.nbytes = nbytes
        self.type = type
        self.overlap_offset = offset
        self.overlap_end = offset + nbytes
        self.serialising = False
        self.wait_queue: CoQueue | None = None
        self.waiting_for: TrackedRequest | None = None
        self.co: Coroutine | None = None
        bs.in_flight += 1
        bs.tracked_requests[self] = None

    def end(self) -> None:
        """The request is through (tracked_request_end)."""
        bs = self.bs
        if self.serialising:
            bs.serialising_in_flight -= 1
        del bs.tracked_requests[self]
        bs.in_flight -= 1
        if self.wait_queue is not None:
            self.wait_queue.restart_all()

    def overlaps(self, other: TrackedRequest) -> bool:
        """Says whether two requests touch the same bytes (tracked_request_overlaps)."""
        return self.overlap_offset < other.overlap_end and other.overlap_offset < self.overlap_end

    async def mark_serialising(self, align: int) -> bool:
        """Makes it serialising, in blocks of `align` bytes; waits (R1). True if it waited."""
        self._set_serialising(align)
        return await self._wait_for_others()

    def try_serialising(self, align: int) -> bool:
        """Makes it serialising without waiting. False: it would have to, so it must be ended."""
        self._set_serialising(align)
        return self._in_the_way() is None

    def _set_serialising(self, align: int) -> None:
        if not self.serialising:
            self.serialising = True
            self.bs.serialising_in_flight += 1
        self.co = current()
        end = self.offset + self.nbytes
        self.overlap_offset = min(self.overlap_offset, self.offset // align * align)
        self.overlap_end = max(self.overlap_end, -(-end // align) * align)

    async def wait_serialising(self) -> bool:
        """Waits for serialising requests that overlap; True if there was one."""
        if not self.bs.serialising_in_flight:
            return False
        return await self._wait_for_others()

    async def _wait_for_others(self) -> bool:
        waited = False
        while (other := self._in_the_way()) is not None:
            self.waiting_for = other
            if other.wait_queue is None:
                other.wait_queue = CoQueue()
            await other.wait_queue.wait()
            self.waiting_for = None
            waited = True
        return waited

    def _in_the_way(self) -> TrackedRequest | None:
        for other in self.bs.tracked_requests:
            if other is self or not (other.serialising or self.serialising):
                continue
            if self.overlaps(other) and other.waiting_for is None:
                assert other.co is None or other.co is not current(), "R4: overlaps itself"
                return other
        return None
