# SPDX-License-Identifier: GPL-2.0-only
"""Handlers of file descriptors (aio-posix.c, AioHandler).

One descriptor has at most one handler: a function for "readable", one for "writable", or both.

R1  Home only (rule 5 of the design).
R2  A handler that was removed, replaced or disabled is not called any more, not even for
    an event that this pass of the loop has already collected.
R3  An event that a nested poll has handled is not handled again by the outer one.
R4  External handlers (requests from guests and network clients come in there) are not
    watched while `disable_external` is in force: the loop does not even wake up for them.

Discussion of R2 and R3: passes are numbered, from one wait to the next. A handler carries the
number of the pass it may first be called in, or, later, the last one it was called in. A pass
calls nothing with a number above its own. That covers a descriptor that is closed and reused
within a pass.

Discussion of speed: nearly all handlers wait for one direction, reading. `poll` itself calls those
(`reader`); `call` is for the others. One Python call less is a tenth of a microsecond here, right
after a system call, when the processor has forgotten where it was.

A handler with `poll` is also called for what a look has found (polling.py).
"""

from __future__ import annotations

from block.aio.audit import caller
from block.aio.poller import INVALID, READABLE, WRITABLE
from block.aio.polling import POLLED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.aio.notifier import EventNotifier
    from block.aio.poller import Poller
    from block.aio.polling import PollHandler, Polling


class FdHandler:
    """What to call when a descriptor is ready (AioHandler)."""

    __slots__ = ("__weakref__", "fd", "is_external", "kind", "on_read", "on_write", "owner",
                 "pass_number", "poll", "reader", "where")  # fmt: skip

    def __init__(
        self,
        fd: int,
        on_read: Callable[[], None] | None,
        on_write: Callable[[], None] | None,
        owner: object,
        is_external: bool,
    ) -> None:
        self.fd = fd
        self.on_read = on_read
        self.on_write = on_write
        self.reader = on_read if on_write is None else None  # what the loop calls by itself
        self.owner = owner
        self.is_external = is_external
        self.pass_number = 0
        self.kind = "fd"
        self.poll: PollHandler | None = None  # how to see the work without the descriptor
        self.where = ""

    def events(self) -> int:
        """Returns what to wait for."""
        return (READABLE if self.on_read else 0) | (WRITABLE if self.on_write else 0)


class FdHandlers:
    """The handlers of one context, and the poller that watches their descriptors."""

    __slots__ = ("all", "enabled", "n_disabled", "pass_number", "poller", "polling")

    polling: Polling

    def __init__(self, poller: Poller) -> None:
        self.poller = poller
        self.all: dict[int, FdHandler] = {}
        self.enabled: dict[int, FdHandler] = {}  # all but the disabled external ones (R4)
        self.n_disabled = 0
        self.pass_number = 0

    def watch_notifier(self, notifier: EventNotifier) -> None:
        """Lets a notifier end waits; the context clears it, so it has no handler."""
        self.poller.watch_wakeup(notifier.fileno())

    def close(self) -> None:
        """Forgets all handlers and gives the poller's descriptor back."""
        self.all.clear()
        self.enabled.clear()
        self.polling.active.clear()
        self.poller.close()

    def set(self, handler: FdHandler, audit: bool) -> None:
        """Enters a handler in the place of the one that its descriptor had."""
        handler.pass_number = self.pass_number + 1
        if audit:
            handler.where = caller()
        self.all[handler.fd] = handler
        self.polling.discard(handler.fd)
        if handler.is_external and self.n_disabled:
            self._disable(handler.fd)
        else:
            self.poller.update(handler.fd, handler.events())
            self.enabled[handler.fd] = handler

    def remove(self, fd: int) -> None:
        """Forgets the handler of a descriptor; it may be closed already."""
        if self.all.pop(fd, None) is not None:
            self._disable(fd)

    def _disable(self, fd: int) -> None:
        if self.enabled.pop(fd, None) is not None:
            self.polling.discard(fd)
            self.poller.remove(fd)

    def disable_external(self) -> None:
        """Stops watching for external events; counts (aio_disable_external)."""
        self.n_disabled += 1
        if self.n_disabled == 1:
            for handler in self.all.values():
                if handler.is_external:
                    self._disable(handler.fd)

    def enable_external(self) -> None:
        """Ends one disable_external (aio_enable_external)."""
        assert self.n_disabled > 0, "enable_external without disable_external"
        self.n_disabled -= 1
        if self.n_disabled == 0:
            for handler in self.all.values():
                if handler.is_external:
                    self.set(handler, audit=False)

    def call(self, handler: FdHandler, events: int, this_pass: int) -> bool:
        """Calls a handler, in a pass that may; says whether there was anything to call.

        `this_pass` is what `pass_number` was set to right after the wait that returned `events`.
        """
        fd, on_read, on_write = handler.fd, handler.on_read, handler.on_write
        progress = False
        if events & READABLE and on_read is not None:
            progress = True
            on_read()
            if self.enabled.get(fd) is not handler or handler.pass_number > this_pass:
                return True
        if events & WRITABLE and on_write is not None:
            progress = True
            on_write()
        elif events & POLLED and handler.poll is not None:
            progress = True
            handler.poll.io_poll_ready()
        elif events & INVALID:
            self.poller.remove(fd)  # closed behind our back; epoll forgets it by itself
        return progress


def _demo() -> None:
    import os

    from block.aio.context import AioContext
    from block.aio.demo import Timeline

    say = Timeline()
    ctx = AioContext("demo")
    read_end, write_end = os.pipe()
    ctx.set_fd_handler(read_end, lambda: say(f"readable: {os.read(read_end, 99)!r}"), None)
    say(f"nothing to read yet: poll says {ctx.poll(False)}")
    os.write(write_end, b"hello")
    say(f"after a write: poll says {ctx.poll(True)}")
    ctx.set_fd_handler(read_end, None, None)
    os.write(write_end, b"nobody listens")
    say(f"after the handler is gone: poll says {ctx.poll(False)}")
    ctx.close()


if __name__ == "__main__":
    _demo()
