# SPDX-License-Identifier: GPL-2.0-only
"""Looking for a while before sleeping (aio-posix.c: try_poll_mode, run_poll_handlers).

Some of those who bring work can be seen without their ringing: a guest that adds a request writes
an index in memory. Whoever registers such a handler gives four functions with it (PollHandler).
While the loop looks, nobody needs to ring, and whoever adds work is told so:

    begin: "no need to ring" -> look, look, look ... -> end: "ring again" -> sleep

R1  Home only (rule 5 of the design). A handler is looked at once its descriptor has been ready, and
    no more when nothing came for seven seconds: nobody pays for queues that are not used.
R2  Between `io_poll_begin` and `io_poll_end` every pass that would ask the poller looks too, since
    nobody rings then. The loop never sleeps in between.
R3  What comes while `io_poll_end` asks for rings again must not be lost: `io_poll_end` looks for
    it a last time, and if there is something, sets the notifier itself.
R4  A handler that is removed, replaced or disabled (drained sections) is not looked at any more,
    and gets its `io_poll_end` first.
R5  Other descriptors do not wait: each turn looks at them too. That call lets the interpreter go,
    so whoever needs it has it at once.
R6  Only poll(True) looks for a while. A loop inside a foreign one sleeps there: it never looks.
"""

from __future__ import annotations

from block.aio.poll_window import IDLE_NS, PollWindow, Trial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    from block.aio.context import AioContext

    class PollHandler(Protocol):
        """What a handler adds that can be seen without its descriptor (AioPollFn and its like)."""

        def work(self) -> int:
            """How much it has taken so far, modulo 2^16."""

        def io_poll(self) -> bool:
            """Whether there is work; cheap, changes nothing."""

        def io_poll_ready(self) -> None:
            """Does the work."""

        def io_poll_begin(self) -> None:
            """From now on nobody needs to ring."""

        def io_poll_end(self) -> None:
            """From now on they must, and what came meanwhile rings by itself (R3)."""


POLLED = 1 << 16  # beside the poller's events: seen by looking
IDLE_HANDLER_NS = 7_000_000_000  # POLL_IDLE_INTERVAL_NS


class Polling:
    """What a context looks at, and for how long."""

    __slots__ = (
        "_ctx", "_last_ns", "_now_ns", "_work", "active", "now", "started", "trial", "window",
    )  # fmt: skip

    def __init__(self, ctx: AioContext) -> None:
        self._ctx = ctx
        self.now = ctx.world.realtime_ns
        self.window = PollWindow()
        self.trial = Trial()
        self.active: dict[int, PollHandler] = {}  # by descriptor (R1)
        self._last_ns: dict[int, int] = {}  # when there was work last
        self._now_ns = 0  # when the last wait ended
        self._work = 0  # how much work had been taken when it began
        self.started = False  # between begin and end

    def add(self, fd: int, handler: PollHandler) -> None:
        """Looks at a handler from now on."""
        now_ns = self.now()
        if not self.active:
            self._now_ns, self._work = now_ns, handler.work()
        self.active[fd] = handler
        self._last_ns[fd] = now_ns
        if self.started:
            handler.io_poll_begin()

    def rung(self, fd: int, handler: PollHandler, on_read: Callable[[], None]) -> None:
        """The handler's descriptor is ready: looks at it from now on, and answers the ring."""
        if fd not in self.active:
            self.add(fd, handler)
        on_read()

    def discard(self, fd: int) -> None:
        """Looks at it no more (R4); one that was not looked at is no error."""
        handler = self.active.pop(fd, None)
        if handler is not None:
            del self._last_ns[fd]
            if self.started:
                handler.io_poll_end()

    def look(self) -> list[tuple[int, int]]:
        """Returns the descriptors of those that have work, as a poller does."""
        return [(fd, POLLED) for fd, handler in self.active.items() if handler.io_poll()]

    def wait(self, timeout_ns: int) -> Iterable[tuple[int, int]]:
        """Looks, and if that finds nothing, sleeps; learns from how long it took."""
        now, window, trial = self.now, self.window, self.trial
        start = now()
        ready: Iterable[tuple[int, int]] | None = None
        if window.ns and trial.looking:
            self.begin()
            ready = self._look_until(start + (window.ns if timeout_ns < 0 else
                                              min(window.ns, timeout_ns)))  # fmt: skip
        if ready is None:
            self.end()
            if timeout_ns > 0:
                timeout_ns = max(0, start + timeout_ns - now())
            ready = self._ctx.sleep(timeout_ns)
        end = now()
        window.adjust(end - start)
        self._note(end, end - start)
        return ready

    def _note(self, now_ns: int, wait_ns: int) -> None:
        """Tells the trial how long it took from the end of one wait to the end of the next."""
        work = sum([handler.work() for handler in self.active.values()])
        if wait_ns <= IDLE_NS:
            self.trial.note(now_ns - self._now_ns, (work - self._work) & 0xFFFF)
        self._now_ns, self._work = now_ns, work

    def _look_until(self, deadline_ns: int) -> Iterable[tuple[int, int]] | None:
        """Looks until something is there; None if time is up before (run_poll_handlers)."""
        now, ctx = self.now, self._ctx
        look = ctx.fds.poller.look
        io_polls = [handler.io_poll for handler in self.active.values()]
        while True:
            for io_poll in io_polls:
                if io_poll():
                    return self._found()
            if ctx._notified:
                return ()
            if ready := look(0):  # R5
                return ready
            if now() >= deadline_ns:
                return None

    def _found(self) -> list[tuple[int, int]]:
        found = self.look()
        time = self.now()
        for fd, _ in found:
            self._last_ns[fd] = time
        return found

    def begin(self) -> None:
        """Nobody needs to ring from now on (poll_set_started)."""
        if not self.started:
            self.started = True
            for handler in self.active.values():
                handler.io_poll_begin()

    def end(self) -> None:
        """They must ring again; forgets handlers that were idle for long (R1)."""
        if not self.started:
            return
        self.started = False
        for handler in self.active.values():
            handler.io_poll_end()
        since = self.now() - IDLE_HANDLER_NS
        for fd in [fd for fd, last_ns in self._last_ns.items() if last_ns < since]:
            self.discard(fd)
