# SPDX-License-Identifier: GPL-2.0-only
"""A character device on file descriptors: terminal, file or socket (QEMU: FDChardev, IOWatchPoll).

What cannot leave at once is queued, at most QUEUE_MAX bytes; then `write` takes nothing more
until the descriptor has taken them. Input is watched only while the device has room for it.

Shared by threads (a vCPU writes, the main loop drains): `queue`, `broken` and `on_writable`,
under `lock`. Everything else belongs to the thread of the context.

    write ---- os.write ----> fd                   the usual way: nothing queued
      |  EAGAIN: queue, schedule `rearm`           any thread
    rearm: watch the fd for writing                main loop
    drain: queue empty -> stop watching, call on_writable
"""

from __future__ import annotations

import os
import select
import time

from .base import Chardev, Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.aio.context import AioContext

    from .base import CanRead, Notify, Read

QUEUE_MAX = 64 * 1024
READ_MAX = 4096
FLUSH_SECONDS = 1.0


class FdChardev(Chardev):
    """Reads from one descriptor, writes to another or the same; -1 where there is none."""

    def __init__(self, ctx: AioContext, fd_in: int, fd_out: int, label: str = "serial0") -> None:
        super().__init__(label)
        self.ctx = ctx
        self.fd_in = self.fd_out = -1
        self.was_blocking: dict[int, bool] = {}
        self.lock = ctx.world.new_lock()
        self.queue = bytearray()
        self.on_writable: Callable[[], None] | None = None
        self.broken = False
        self.watched: set[int] = set()
        self.closed = False
        self.rearm_bh = ctx.bh_new(self.rearm, owner=self)
        self.use(fd_in, fd_out)

    def use(self, fd_in: int, fd_out: int) -> None:
        """Takes descriptors into use and makes them non-blocking (qemu_chr_open_fd).

        A terminal's descriptors share that flag with each other and with the shell that
        started us, so how it was is kept for `release`.
        """
        fds = {fd_in, fd_out} - {-1}
        self.was_blocking = {fd: os.get_blocking(fd) for fd in fds}
        for fd in fds:
            os.set_blocking(fd, False)
        with self.lock:
            self.fd_in, self.fd_out, self.broken = fd_in, fd_out, False

    def release(self) -> None:
        """Stops using the descriptors and leaves them as they were found."""
        self._unwatch()
        with self.lock:
            self.fd_in = self.fd_out = -1
            self.queue.clear()
        for fd, blocking in self.was_blocking.items():
            try:
                os.set_blocking(fd, blocking)
            except OSError:
                pass  # somebody has closed it meanwhile
        self.was_blocking = {}

    # Output

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Sends or queues what fits (fd_chr_write). From any thread."""
        with self.lock:
            if self.queue:
                return self._enqueue(data)
            sent = self._send(data)
            if sent < len(data):
                sent += self._enqueue(memoryview(data)[sent:])
                self.rearm_bh.schedule()
        return sent

    def _enqueue(self, data: bytes | bytearray | memoryview) -> int:
        room = max(QUEUE_MAX - len(self.queue), 0)
        taken = data[:room]
        self.queue += taken
        return len(taken)

    def _send(self, data: bytes | bytearray | memoryview) -> int:
        """One os.write. Whoever has gone (closed pipe, hung-up terminal) takes everything."""
        if self.fd_out < 0 or self.broken:
            return len(data)
        try:
            return os.write(self.fd_out, data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self.broken = True
            return len(data)

    def when_writable(self, callback: Callable[[], None]) -> None:
        """Calls back once when `write` takes bytes again. From any thread."""
        with self.lock:
            self.on_writable = callback
        self.rearm_bh.schedule()

    def drain(self) -> None:
        """The descriptor takes bytes again."""
        with self.lock:
            if self.queue:
                del self.queue[: self._send(self.queue)]
            if self.queue:
                return
            callback, self.on_writable = self.on_writable, None
        self.rearm()
        if callback is not None:
            callback()

    def flush(self) -> None:
        """Waits until the queue has left, at most FLUSH_SECONDS: a stopped terminal stays so."""
        if not self.queue or self.fd_out < 0:
            return
        waiter = select.poll()
        waiter.register(self.fd_out, select.POLLOUT)
        end = time.monotonic() + FLUSH_SECONDS
        with self.lock:
            while self.queue and (left := end - time.monotonic()) > 0:
                waiter.poll(left * 1000)
                del self.queue[: self._send(self.queue)]

    # Input

    def set_handlers(
        self, can_read: CanRead | None, read: Read | None, event: Notify | None = None
    ) -> None:
        """Says who receives; input is watched as long as it has room."""
        self.can_read, self.read, self.event = can_read, read, event
        self.rearm()

    def accept_input(self) -> None:
        """The device has room again. From any thread."""
        self.rearm_bh.schedule()

    def _room(self) -> int:
        return self.can_read() if self.can_read is not None else 0

    def receive(self) -> None:
        """Bytes have arrived (fd_chr_read)."""
        room = min(self._room(), READ_MAX)
        if room <= 0:
            self.rearm()
            return
        try:
            data = os.read(self.fd_in, room)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.hang_up()
        elif self.read is not None:
            self.read(data)

    def hang_up(self) -> None:
        """The other side ended its input; the line itself stays open for output."""
        self._unwatch()
        self.fd_in = -1
        self.rearm()
        self.send_event(Event.CLOSED)

    # Watching

    def rearm(self) -> None:
        """Watches each descriptor for what is wanted of it now (remove_fd_in_watch and
        its opposite). Runs in the main loop."""
        with self.lock:
            waiting = bool(self.queue) or self.on_writable is not None
        wanted: dict[int, list[Callable[[], None] | None]] = {}
        if self.fd_in >= 0 and self._room() > 0:
            wanted.setdefault(self.fd_in, [None, None])[0] = self.receive
        if self.fd_out >= 0 and waiting:
            wanted.setdefault(self.fd_out, [None, None])[1] = self.drain
        for fd in self.watched - wanted.keys():
            self.ctx.set_fd_handler(fd, None, None, owner=self)
        for fd, (on_read, on_write) in wanted.items():
            self.ctx.set_fd_handler(fd, on_read, on_write, owner=self)
        self.watched = set(wanted)

    def _unwatch(self) -> None:
        for fd in self.watched:
            self.ctx.set_fd_handler(fd, None, None, owner=self)
        self.watched = set()

    def close(self) -> None:
        """Ends the line; the descriptors themselves belong to who opened them."""
        if not self.closed:
            self.closed = True
            self.release()
            self.rearm_bh.delete()
