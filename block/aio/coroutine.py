# SPDX-License-Identifier: GPL-2.0-only
"""Coroutines on `async def` (qemu-coroutine.c), run by us and not by asyncio.

A coroutine runs until it yields; somebody who knows that it can go on wakes it. A yield goes
right up to `enter`, through all functions that await one another.

R1  A coroutine belongs to one context. `enter` runs it in the calling thread, which must be
    at home there; `wake` may be called from any thread.
R2  `wake` at home and outside of coroutines runs it at once; at home in a coroutine it runs
    when that one yields or ends; elsewhere through a bottom half of its context.
R3  A coroutine that is running, or has entered another one that is, cannot be entered. Nor
    one that is scheduled already: it would run twice for one event.
R4  An exception that leaves a coroutine leaves the `enter` that ran it.
"""

from __future__ import annotations

from types import coroutine

from block.aio.world import World, the_world

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine as Awaitable
    from collections.abc import Generator
    from typing import Any

    from block.aio.context import AioContext

_running: dict[int, Coroutine] = {}  # thread -> the coroutine it runs; each thread its own entry


class Coroutine:
    """A coroutine and where it stands (Coroutine, qemu_coroutine_create).

    co    what calling an `async def` function returned
    name  what messages call it
    """

    __slots__ = (
        "__weakref__", "_caller", "_co", "_current", "_entered", "_scheduled", "_wakeups", "ctx",
        "done", "name", "result",
    )  # fmt: skip

    def __init__(
        self,
        co: Awaitable[Any, Any, Any],
        *,
        name: str | None = None,
        ctx: AioContext | None = None,
        world: World | None = None,
    ) -> None:
        self._co = co
        self._current = (world or the_world() if ctx is None else ctx.world).current
        self._caller: Coroutine | None = None
        self._entered = False
        self._scheduled: str = ""
        self._wakeups: list[Coroutine] | None = None
        self.ctx = ctx
        self.done = False
        self.name = name
        self.result: Any = None

    def __repr__(self) -> str:
        return f"<Coroutine {self.name or getattr(self._co, '__qualname__', '?')}>"

    def enter(self) -> None:
        """Runs it until it yields or ends, then those that it woke (qemu_coroutine_enter)."""
        if self.ctx is None:
            from block.aio.iothread import current_context

            self.ctx = current_context()
        assert self.ctx.is_home(), self.ctx.stranger()
        wakeups = self._resume()
        while wakeups:
            # Depth first: those that this one wakes come before those that wait already.
            wakeups[:1] = wakeups[0]._resume() or ()

    def _resume(self) -> list[Coroutine] | None:
        """Runs it until it yields or ends; returns those that it woke meanwhile."""
        if self._entered or self._scheduled or self.done:
            raise self._cannot_enter()
        me = self._current()
        caller = self._caller = _running.get(me)
        _running[me] = self
        self._entered = True
        try:
            self._co.send(None)
        except StopIteration as stop:
            self.done = True
            self.result = stop.value
        except BaseException:
            self.done = True
            raise
        finally:
            self._entered = False
            self._caller = None
            if caller is None:
                del _running[me]
            else:
                _running[me] = caller
        wakeups, self._wakeups = self._wakeups, None
        return wakeups

    def _cannot_enter(self) -> RuntimeError:
        if self._scheduled:
            return RuntimeError(f"{self!r} was already scheduled in {self._scheduled}")
        if self.done:
            return RuntimeError(f"{self!r} has ended and cannot be entered")
        return RuntimeError(f"{self!r} re-entered recursively")

    @property
    def entered(self) -> bool:
        """Whether it runs, or waits for one that it entered (qemu_coroutine_entered)."""
        return self._entered

    def wake(self) -> None:
        """Lets it go on after a yield; any thread (aio_co_wake). See R2."""
        ctx = self.ctx
        if ctx is None or not ctx.is_home():
            assert ctx is not None, "wake() of a coroutine that was never entered"
            ctx.co_schedule(self)
            return
        running = _running.get(self._current())
        if running is None:
            self.enter()
        elif running._wakeups is None:
            running._wakeups = [self]
        else:
            running._wakeups.append(self)

    def mark_scheduled(self, ctx: AioContext) -> None:
        """Notes that a bottom half of ctx will enter it."""
        if self._scheduled:
            raise self._cannot_enter()
        self._scheduled = ctx.name
        self.ctx = ctx

    def run_scheduled(self) -> None:
        """Is that bottom half."""
        self._scheduled = ""
        self.enter()


def current() -> Coroutine | None:
    """Returns the coroutine that the calling thread runs (qemu_coroutine_self)."""
    return _running.get(the_world().current())


def in_coroutine() -> bool:
    """Whether the calling thread runs a coroutine (qemu_in_coroutine)."""
    return the_world().current() in _running


@coroutine
def co_yield() -> Generator[None, None, None]:
    """Gives control back to whoever entered us; `wake` returns it (qemu_coroutine_yield)."""
    yield


def _demo() -> None:
    from block.aio.context import AioContext
    from block.aio.demo import Timeline

    say = Timeline()
    ctx = AioContext("demo")

    async def work(n: int) -> int:
        say("the coroutine begins and yields")
        await co_yield()
        say("it goes on and ends")
        return n * 2

    co = Coroutine(work(21), ctx=ctx)
    co.enter()
    say(f"back in the caller; done: {co.done}")
    ctx.bh_schedule_oneshot(co.wake)
    ctx.poll(True)
    say(f"done: {co.done}, result: {co.result}")
    ctx.close()


if __name__ == "__main__":
    _demo()
