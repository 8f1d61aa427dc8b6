# SPDX-License-Identifier: GPL-2.0-only
"""A UNIX socket as the other end of the line (QEMU: char-socket.c).

As a client it connects once, at the start. As a server it takes one client at a time, and the
next one after that has left; what the guest sends while nobody is there is lost, as on a real
line. With wait=on the program does not go on before the first client is there.
"""

from __future__ import annotations

import contextlib
import os
import socket

from .base import ChardevError, Event
from .fd import FdChardev

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.context import AioContext

PATH_MAX = 108


def _check_length(path: str) -> None:
    if len(os.fsencode(path)) >= PATH_MAX:
        raise ChardevError(f"UNIX socket path '{path}' is too long (at most {PATH_MAX - 1} bytes)")


class UnixChardev(FdChardev):
    """Connected to the server that listens at `path`."""

    def __init__(self, ctx: AioContext, path: str, label: str = "serial0") -> None:
        _check_length(path)
        self.connection: socket.socket | None = None
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
        except OSError as error:
            connection.close()
            raise ChardevError(f"Failed to connect to '{path}': {error.strerror}") from None
        super().__init__(ctx, -1, -1, label)
        self.connected(connection)

    def connected(self, connection: socket.socket) -> None:
        """The line has another end now (tcp_chr_connect)."""
        self.connection = connection
        self.use(connection.fileno(), connection.fileno())
        self.rearm()
        self.send_event(Event.OPENED)

    def hang_up(self) -> None:
        """The other end has gone (tcp_chr_disconnect)."""
        self.release()
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        self.send_event(Event.CLOSED)

    def close(self) -> None:
        """Sends what is left and closes the connection."""
        if not self.closed:
            self.flush()
            self.hang_up()
            super().close()


class UnixServer(UnixChardev):
    """Listens at `path`; `wait` holds up the program until somebody has come."""

    def __init__(self, ctx: AioContext, path: str, wait: bool, label: str = "serial0") -> None:
        _check_length(path)
        self.connection = None
        self.path = path
        self.listener = _listen(path)
        FdChardev.__init__(self, ctx, -1, -1, label)
        if wait:
            self.connected(self.listener.accept()[0])
        self.listener.setblocking(False)
        ctx.set_fd_handler(self.listener.fileno(), self.accept, None, owner=self)

    def accept(self) -> None:
        """A client knocks; while another one is served it waits at the door."""
        if self.connection is None:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                self.connected(self.listener.accept()[0])
        if self.connection is not None:
            self.ctx.set_fd_handler(self.listener.fileno(), None, None, owner=self)

    def hang_up(self) -> None:
        """The client has gone; the door is open for the next."""
        super().hang_up()
        if not self.closed:
            self.ctx.set_fd_handler(self.listener.fileno(), self.accept, None, owner=self)

    def close(self) -> None:
        """Closes the connection and takes the socket's file away."""
        if not self.closed:
            super().close()
            self.ctx.set_fd_handler(self.listener.fileno(), None, None, owner=self)
            self.listener.close()
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener.bind(path)
        listener.listen(1)
    except OSError as error:
        listener.close()
        raise ChardevError(f"Failed to bind socket to {path}: {error.strerror}") from None
    return listener
