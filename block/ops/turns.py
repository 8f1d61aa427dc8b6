# SPDX-License-Identifier: GPL-2.0-only
"""Whose turn it is to write, where several workers read ahead (s->wr_offs of qemu-img.c).

    begin(offset)    waits until the turn has been passed on to this offset, and there is room
    pass_on(offset)  lets the one begin who waits there, or comes there
    end()            makes room for the next
    caught_up()      waits while others wait for a write: who reads is far enough ahead then

R1  Turns begin in the order of their offsets. Who has the turn passes it on when it will: at its
    beginning, so that both work side by side, or only at its end.
R2  At most `at_once` have begun and not ended.
R3  After stop() nobody waits any more; `stopped` tells why they were let go.
R4  One at a time may wait in caught_up().
R5  Who is woken waits no longer, though it may run a little later: nobody is woken twice.
Who may call it: coroutines of one context.

What once went wrong: R5. Two turns ended before the woken one ran; the second time woke it
while it waited for its write, which was taken for done.
"""

from __future__ import annotations

from block.aio.coroutine import co_yield, current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.coroutine import Coroutine


class Turns:
    """The queue; whoever waits is known by the offset that must come up for it."""

    __slots__ = ("ahead", "at_once", "begun", "held", "next", "stopped", "waiting")

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self.next = 0  # where the next turn begins
        self.begun = 0
        self.held = False  # the turn has begun, and has not been passed on
        self.stopped = False
        self.waiting: dict[int, Coroutine | None] = {}  # None: is woken, and will begin
        self.ahead: Coroutine | None = None  # who waits in caught_up()

    async def begin(self, offset: int) -> None:
        """Waits for the turn of this offset, and begins it (R1, R2)."""
        while (self.next != offset or self.begun >= self.at_once) and not self.stopped:
            self.waiting[offset] = _me()
            await co_yield()
        self.waiting.pop(offset, None)
        self.begun += 1
        self.held = True
        self._wake_ahead()

    async def caught_up(self) -> None:
        """Waits while somebody waits for the end of a turn, be it for the turn or for room (R4).

        Not while they wait for one who is not there yet: that one may still have to read.
        """
        while self._is_ahead():
            self.ahead = _me()
            await co_yield()

    def _is_ahead(self) -> bool:
        waits = self.held or self.next in self.waiting
        return waits and bool(self.waiting) and not self.stopped

    def pass_on(self, offset: int) -> None:
        """It is the turn of this offset (R1)."""
        self.next = offset
        self.held = False
        self._wake_next()

    def end(self) -> None:
        """A turn is through."""
        self.begun -= 1
        self._wake_next()

    def stop(self) -> None:
        """Lets all go (R3)."""
        self.stopped = True
        for offset in list(self.waiting):
            self._wake(offset)
        self._wake_ahead()

    def _wake_next(self) -> None:
        if self.next not in self.waiting:
            self._wake_ahead()
        elif self.begun < self.at_once:
            self._wake(self.next)

    def _wake(self, offset: int) -> None:
        co, self.waiting[offset] = self.waiting[offset], None  # R5
        if co is not None:
            co.wake()

    def _wake_ahead(self) -> None:
        if self.ahead is not None and not self._is_ahead():
            ahead, self.ahead = self.ahead, None
            ahead.wake()


def _me() -> Coroutine:
    me = current()
    assert me is not None, "only a coroutine can wait for its turn"
    return me
