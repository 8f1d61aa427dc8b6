# SPDX-License-Identifier: GPL-2.0-only
"""Sleeping in a coroutine (qemu-coroutine-sleep.c).

R1  Only in a coroutine, in the thread at home in its context.
R2  Time is that of the context's world: under a virtual clock nobody really waits.
"""

from __future__ import annotations

from block.aio.coroutine import Coroutine, co_yield, current
from block.aio.world import ClockType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.timer import Timer


class CoSleep:
    """A sleep that somebody else can end early (QemuCoSleep)."""

    __slots__ = ("_co", "_timer")

    def __init__(self) -> None:
        self._co: Coroutine | None = None
        self._timer: Timer | None = None

    async def sleep_ns(self, clock: ClockType, ns: int, *, owner: object = None) -> None:
        """Yields for so many nanoseconds, or until `wake` (qemu_co_sleep_ns_wakeable)."""
        co = current()
        assert co is not None, "R1: only a coroutine can sleep"
        assert co.ctx is not None
        assert self._co is None, "somebody sleeps here already"
        self._co = co
        self._timer = co.ctx.timer_new(clock, self.wake, owner=owner or co)
        self._timer.mod(co.ctx.clock_ns(clock) + ns)
        await co_yield()

    def wake(self) -> None:
        """Ends the sleep; nothing happens if nobody sleeps (qemu_co_sleep_wake)."""
        co, self._co = self._co, None
        timer, self._timer = self._timer, None
        if co is not None and timer is not None:
            timer.delete()
            co.wake()


async def co_sleep_ns(clock: ClockType, ns: int, *, owner: object = None) -> None:
    """Yields for so many nanoseconds (qemu_co_sleep_ns)."""
    await CoSleep().sleep_ns(clock, ns, owner=owner)


def _demo() -> None:
    from block.aio.context import AioContext
    from block.aio.demo import Timeline

    say = Timeline()
    ctx = AioContext("demo")

    async def nap(ms: int) -> None:
        await co_sleep_ns(ClockType.REALTIME, ms * 1_000_000)
        say(f"slept {ms} ms")

    cos = [Coroutine(nap(ms), ctx=ctx) for ms in (15, 5, 10)]
    for co in cos:
        co.enter()
    say("three coroutines sleep in one thread")
    while not all(co.done for co in cos):
        ctx.poll(True)
    ctx.close()


if __name__ == "__main__":
    _demo()
