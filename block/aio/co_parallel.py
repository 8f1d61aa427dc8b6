# SPDX-License-Identifier: GPL-2.0-only
"""Doing several things inside a coroutine: at once, waiting for all, or one after the other.

    failures = await co_parallel(a.co_preadv(...), b.co_preadv(...))
    await co_then(a_wait, a.co_preadv(...))

QEMU's drivers write this out wherever they need it: quorum_co_preadv and blkverify_co_prwv
count down in each coroutine, and the last one enters the first.

R1  Each piece of work is a coroutine of its own in the caller's context. They begin in the order
    of the arguments, each runs until it first yields; the caller goes on when the last has ended.
R2  A piece that fails stops no other. What failed is told in the result, piece by piece.
R3  A mistake (an exception that is no OSError) is raised when all have ended: nobody takes it
    for the answer of a disk.
Who may call it: a coroutine.
"""

from __future__ import annotations

from block.aio.coroutine import Coroutine, co_yield, current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable


class _Together:
    """How far the pieces are, and who waits for the last one."""

    __slots__ = ("failures", "left", "mistake", "waiter")

    def __init__(self, count: int) -> None:
        self.failures: list[OSError | None] = [None] * count
        self.left = count
        self.mistake: BaseException | None = None
        self.waiter: Coroutine | None = None

    async def run(self, index: int, work: Awaitable[object]) -> None:
        try:
            await work
        except OSError as error:
            self.failures[index] = error
        except BaseException as error:
            self.mistake = self.mistake or error
        self.left -= 1
        if not self.left and self.waiter is not None:
            self.waiter.wake()


async def co_parallel(*works: Awaitable[object]) -> list[OSError | None]:
    """Runs all of them side by side; returns what each failed with, None where it succeeded."""
    me = current()
    assert me is not None, "co_parallel outside a coroutine"
    together = _Together(len(works))
    for index, work in enumerate(works):
        Coroutine(together.run(index, work), name=me.name, ctx=me.ctx).enter()
    if together.left:
        together.waiter = me
        await co_yield()
    if together.mistake is not None:
        raise together.mistake
    return together.failures


async def co_then(first: Awaitable[object], then: Awaitable[None]) -> None:
    """Awaits one thing, and then another, which is made already and has not begun.

    Where it never comes to that (the first fails, or nobody wakes us any more), the other is taken
    back: of a coroutine that was made and never awaited Python complains on stderr.
    """
    try:
        await first
    except BaseException:
        take_back = getattr(then, "close", None)  # not every awaitable is a coroutine
        if take_back is not None:
            take_back()
        raise
    await then


def _demo() -> None:
    from block.aio.co_sleep import co_sleep_ns
    from block.aio.context import AioContext
    from block.aio.demo import Timeline
    from block.aio.world import ClockType

    say = Timeline()
    ctx = AioContext("demo")

    async def piece(ms: int) -> None:
        await co_sleep_ns(ClockType.REALTIME, ms * 1_000_000)
        say(f"the piece of {ms} ms has ended")

    async def all_of_them() -> None:
        await co_parallel(piece(10), piece(5), piece(15))
        say("all three have ended")

    co = Coroutine(all_of_them(), ctx=ctx)
    co.enter()
    while not co.done:
        ctx.poll(True)
    ctx.close()


if __name__ == "__main__":
    _demo()
