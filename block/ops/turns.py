# SPDX-License-Identifier: GPL-2.0-only
"""Whose turn it is to write, where several workers read ahead (s->wr_offs of qemu-img.c).

    begin(offset)    waits until the turn has been passed on to this offset, and there is room
    pass_on(offset)  lets the one begin who waits there, or comes there
    end()            makes room for the next

R1  Turns begin in the order of their offsets. Who has the turn passes it on when it will: at its
    beginning, so that both work side by side, or only at its end.
R2  At most `at_once` have begun and not ended.
R3  After stop() nobody waits any more; `stopped` tells why they were let go.
R4  Who is woken waits no longer, though it may run a little later: nobody is woken twice.
Who may call it: coroutines of one context.

What once went wrong: R4. Two turns ended before the woken one ran; the second time woke it
while it waited for its write, which was taken for done.
"""

from __future__ import annotations

from block.aio.coroutine import co_yield, current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.coroutine import Coroutine


class Turns:
    """The queue; whoever waits is known by the offset that must come up for it."""

    __slots__ = ("at_once", "begun", "next", "stopped", "waiting")

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self.next = 0  # where the next turn begins
        self.begun = 0
        self.stopped = False
        self.waiting: dict[int, Coroutine] = {}

    async def begin(self, offset: int) -> None:
        """Waits for the turn of this offset, and begins it (R1, R2)."""
        while (self.next != offset or self.begun >= self.at_once) and not self.stopped:
            me = current()
            assert me is not None
            self.waiting[offset] = me
            await co_yield()
        self.begun += 1

    def pass_on(self, offset: int) -> None:
        """It is the turn of this offset (R1)."""
        self.next = offset
        self._wake_next()

    def end(self) -> None:
        """A turn is through."""
        self.begun -= 1
        self._wake_next()

    def stop(self) -> None:
        """Lets all go (R3)."""
        self.stopped = True
        while self.waiting:
            self.waiting.popitem()[1].wake()

    def _wake_next(self) -> None:
        if self.next in self.waiting and self.begun < self.at_once:
            self.waiting.pop(self.next).wake()
