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

State that several threads write: `_scheduled` and `ctx`, by the one thread that knows that the
coroutine can go on, before the bottom half that hands them to home; then by home.
"""

from __future__ import annotations

from block.aio.audit import note_coroutine
from block.aio.world import the_world
from block.lean import coroutine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine as Awaitable
    from collections.abc import Generator, Iterator
    from types import FrameType
    from typing import Any

    from block.aio.context import AioContext

READY, ENTERED, DONE = range(3)

# thread -> the coroutine it runs, None between two; each thread writes its own entry
_running: dict[int, Coroutine | None] = {}


class Coroutine:
    """A coroutine and where it stands (Coroutine, qemu_coroutine_create).

    co      what calling an `async def` function returned
    name    what messages call it
    ctx     the context it belongs to; default: that of the thread that first enters it
    owner   whose it is, for the audit (audit.py); needed only with a `ctx`
    result  what it returned, when it is done
    """

    __slots__ = ("__weakref__", "_co", "_scheduled", "_state", "_wakeups", "ctx", "name", "result")

    def __init__(
        self,
        co: Awaitable[Any, Any, Any],
        *,
        name: str | None = None,
        ctx: AioContext | None = None,
        owner: object = None,
    ) -> None:
        self._co = co
        self._state = READY
        self._scheduled = False
        self._wakeups: list[Coroutine] | None = None
        self.ctx = ctx
        self.name = name
        self.result: Any = None
        if ctx is not None and ctx.world.audit:
            note_coroutine(self, ctx, owner)

    def __repr__(self) -> str:
        return f"<Coroutine {self.name or getattr(self._co, '__qualname__', '?')}>"

    def enter(self) -> None:
        """Runs it until it yields or ends, then those that it woke (qemu_coroutine_enter)."""
        ctx = self.ctx or self._find_context()
        me = ctx._current()
        assert me == ctx._home, ctx.stranger()
        wakeups = self._resume(me)
        if wakeups is not None:
            _resume_all(wakeups, me)

    def _find_context(self) -> AioContext:
        from block.aio.iothread import current_context

        self.ctx = ctx = current_context()
        if ctx.world.audit:
            note_coroutine(self, ctx)
        return ctx

    def _resume(self, me: int) -> list[Coroutine] | None:
        """Runs it until it yields or ends; returns those that it woke meanwhile."""
        if self._state or self._scheduled:
            raise self._cannot_enter()
        caller = _running.get(me)
        _running[me] = self
        self._state = ENTERED
        try:
            self._co.send(None)
        except StopIteration as stop:
            self._state = DONE
            self.result = stop.value
        except BaseException:
            self._state = DONE
            raise
        else:
            self._state = READY
        finally:
            _running[me] = caller
        wakeups, self._wakeups = self._wakeups, None
        return wakeups

    def _cannot_enter(self) -> RuntimeError:
        if self._scheduled and self.ctx is not None:
            return RuntimeError(f"{self!r} was already scheduled in {self.ctx.name}")
        if self._state == DONE:
            return RuntimeError(f"{self!r} has ended and cannot be entered")
        return RuntimeError(f"{self!r} re-entered recursively")

    def awaits(self) -> Iterator[FrameType]:
        """Yields the frames of the functions that await one another, outermost first."""
        here: Any = self._co
        while here is not None:
            frame = getattr(here, "cr_frame", None) or getattr(here, "gi_frame", None)
            if frame is not None:
                yield frame
            here = getattr(here, "cr_await", None) or getattr(here, "gi_yieldfrom", None)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._state == DONE

    @property
    def entered(self) -> bool:
        """Whether it runs, or waits for one that it entered (qemu_coroutine_entered)."""
        return self._state == ENTERED

    def wake(self) -> None:
        """Lets it go on after a yield; any thread (aio_co_wake). See R2."""
        ctx = self.ctx
        assert ctx is not None, "wake() of a coroutine that was never entered"
        me = ctx._current()
        if me != ctx._home:
            ctx.co_schedule(self)
            return
        running = _running.get(me)
        if running is None:
            wakeups = self._resume(me)
            if wakeups is not None:
                _resume_all(wakeups, me)
        elif running._wakeups is None:
            running._wakeups = [self]
        else:
            running._wakeups.append(self)

    def mark_scheduled(self, ctx: AioContext) -> None:
        """Notes that a bottom half of ctx will enter it; any thread."""
        if self._scheduled:
            raise self._cannot_enter()
        self.ctx = ctx
        self._scheduled = True

    def run_scheduled(self) -> None:
        """Is that bottom half."""
        self._scheduled = False
        self.enter()


def _resume_all(wakeups: list[Coroutine], me: int) -> None:
    """Runs those that were woken, depth first: whom they wake comes before those that wait."""
    while wakeups:
        wakeups[:1] = wakeups[0]._resume(me) or ()


def current() -> Coroutine | None:
    """Returns the coroutine that the calling thread runs (qemu_coroutine_self)."""
    return _running.get(the_world().current())


def in_coroutine() -> bool:
    """Whether the calling thread runs a coroutine (qemu_in_coroutine)."""
    return _running.get(the_world().current()) is not None


@coroutine
def co_yield() -> Generator[None, None, None]:
    """Gives control back to whoever entered us; `wake` returns it (qemu_coroutine_yield)."""
    yield


class _Nothing:
    """What is through before anybody waits for it; to await it costs no coroutine."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        return iter(())  # type: ignore[return-value]  # await asks for no more than an iterator


NOTHING_TO_WAIT_FOR = _Nothing()


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
