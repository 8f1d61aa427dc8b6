# SPDX-License-Identifier: GPL-2.0-only
"""A context inside an asyncio loop (QEMU: a context as a GSource in the GLib loop).

asyncio sleeps for both: it watches the context's descriptor and sets a timer for the time that
`prepare` names. When one of them fires, `dispatch` runs the context's callbacks.

R1  All of it belongs to the thread of the asyncio loop, which must be at home in the context.
R2  Between `prepare` and `dispatch` the context counts as asleep: whatever is scheduled
    then, even by the thread itself, notifies the descriptor and so wakes asyncio.
R3  A callback's exception goes to the asyncio loop's exception handler.

Discussion: where there is no epoll, a context has no descriptor that stands for all; then each
one of it is entered into asyncio's selector, anew before every sleep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine as Awaitable
from typing import Any, TypeVar

from block.aio.context import AioContext
from block.aio.coroutine import Coroutine
from block.aio.poller import READ, WRITE

T = TypeVar("T")


class EmbeddedContext:
    """Runs a context in an asyncio loop until `close` (aio_get_g_source, g_source_attach).

    ctx   whose maker or holder is the loop's thread
    loop  default: the running one
    """

    def __init__(self, ctx: AioContext, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.ctx = ctx
        self.loop = loop or asyncio.get_running_loop()
        self.n_dispatched = 0
        self._wake_up: asyncio.Handle | None = None
        self._watched: dict[int, int] = {}
        fd = ctx.fileno()
        if fd is not None:
            self._watch(fd, READ)
        self._prepare()

    def _prepare(self) -> None:
        """Sets what will end the loop's next sleep."""
        timeout_ns = self.ctx.prepare()
        if self.ctx.fileno() is None:
            self._watch_all()
        if timeout_ns == 0:
            self._wake_up = self.loop.call_soon(self._dispatch)
        elif timeout_ns > 0:
            self._wake_up = self.loop.call_later(timeout_ns * 1e-9, self._dispatch)

    def _dispatch(self) -> None:
        if self._wake_up is not None:
            self._wake_up.cancel()
            self._wake_up = None
        self.n_dispatched += 1
        try:
            self.ctx.dispatch()
        finally:
            if not self.ctx.closed:
                self._prepare()

    def _watch(self, fd: int, events: int) -> None:
        if events & READ:
            self.loop.add_reader(fd, self._dispatch)
        if events & WRITE:
            self.loop.add_writer(fd, self._dispatch)
        self._watched[fd] = events

    def _unwatch(self, fd: int) -> None:
        events = self._watched.pop(fd)
        if events & READ:
            self.loop.remove_reader(fd)
        if events & WRITE:
            self.loop.remove_writer(fd)

    def _watch_all(self) -> None:
        """Without epoll: makes asyncio watch exactly what the context watches."""
        for fd in list(self._watched):
            self._unwatch(fd)
        for fd, events in self.ctx.fds.poller.watched().items():
            self._watch(fd, events)

    def run(self, co: Awaitable[Any, Any, T], *, name: str | None = None) -> asyncio.Future[T]:
        """Starts one of our coroutines in the context; asyncio can await what is returned."""
        future: asyncio.Future[T] = self.loop.create_future()
        Coroutine(_carry(co, future), name=name, ctx=self.ctx).enter()
        return future

    def close(self) -> None:
        """Takes the context out of the loop again; it can be polled as before."""
        if self._wake_up is not None:
            self._wake_up.cancel()
            self._wake_up = None
        for fd in list(self._watched):
            self._unwatch(fd)
        if not self.ctx.closed:
            self.ctx.end_prepare()

    def __enter__(self) -> EmbeddedContext:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


async def _carry(co: Awaitable[Any, Any, T], future: asyncio.Future[T]) -> None:
    """Carries the outcome of a coroutine over to asyncio, unless nobody wants it any more."""
    try:
        result = await co
    except Exception as error:
        if not future.cancelled():
            future.set_exception(error)
    else:
        if not future.cancelled():
            future.set_result(result)


def _demo() -> None:
    from block.aio.co_sleep import co_sleep_ns
    from block.aio.demo import Timeline
    from block.aio.world import ClockType

    say = Timeline()

    async def ours() -> str:
        await co_sleep_ns(ClockType.REALTIME, 10_000_000)
        say("our coroutine slept in our loop")
        return "done"

    async def main() -> None:
        ctx = AioContext("demo")
        with EmbeddedContext(ctx) as embedded:
            say("asyncio waits for it")
            say(f"asyncio got {await embedded.run(ours())!r}")
        ctx.close()

    asyncio.run(main())


if __name__ == "__main__":
    _demo()
