# SPDX-License-Identifier: GPL-2.0-only
"""A disk behind a connection: requests and replies over a pair of sockets, as NBD has them.

    RequestReply   the driver; its nodes are made by connected_node, or opened with the options
                   {"driver": "request-reply", "peer": name}
    Connection     the node's side of the wire, bs.opaque
    Peer           the other side: holds the bytes and answers; in a thread, in a context, or
                   step by step

R1  The node's handler is registered with the context that the node is in, leaves it in detach and
    comes back in attach (DESIGN.md, rules 1 and 2).
R2  Requests are sent one at a time and answered in any order: a reply carries its number.
R3  When the connection breaks, every request in flight ends with EIO, and each later one at once.
"""

from __future__ import annotations

import errno
import itertools
import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from block.aio.co_lock import CoMutex
from block.aio.context import AioContext
from block.aio.coroutine import Coroutine, co_yield, current
from block.core import registry
from block.core.driver import BlockDriver
from block.core.error import BlockError
from block.core.iov import Iov, iov_from_bytes, iov_to_bytes
from block.core.node import BlockDriverState
from block.core.options import Option, take_options
from tests.support.drivers import make_node

READ, WRITE, FLUSH = range(3)
REQUEST = struct.Struct("<BIQI")  # kind, number, offset, bytes; a write's data follows
REPLY = struct.Struct("<IIB")  # number, bytes of data that follow, errno
CHUNK = 1 << 16


class Peer:
    """The server's side. `hold` keeps its answers back until release()."""

    names = itertools.count()
    # For the option "peer"; a search leaves some in the middle of their work, whom nobody ends.
    known: WeakValueDictionary[str, Peer] = WeakValueDictionary()

    def __init__(self, length: int = 1 << 20) -> None:
        self.name = f"peer{next(self.names)}"
        self.known[self.name] = self
        self.data = bytearray(length)
        self.sock, self.far_end = socket.socketpair()
        self.sock.setblocking(False)
        self.hold = False
        self.requests = 0
        self._received = bytearray()
        self._held: list[bytes] = []
        self._to_send = bytearray()
        self._ctx: AioContext | None = None
        self._thread: threading.Thread | None = None

    # -- three ways to run it

    def start(self) -> Peer:
        """Serves in a thread, until the connection ends."""
        self._thread = threading.Thread(target=self._run, name=self.name)
        self._thread.start()
        return self

    def serve_in(self, ctx: AioContext) -> Peer:
        """Serves in a context, whose home thread calls."""
        self._ctx = ctx
        self._watch()
        return self

    def step(self) -> bool:
        """Answers what has come, as far as that goes without waiting; False: connection ended."""
        try:
            received = self.sock.recv(CHUNK)
        except BlockingIOError:
            received = None
        except OSError:
            received = b""
        if received == b"":
            return False
        self._received += received or b""
        self._answer_all()
        return self._send()

    def _run(self) -> None:
        while self.step():
            select.select([self.sock], [self.sock] if self._to_send else [], [])

    def _on_ready(self) -> None:
        if self.step():
            self._watch()
        else:
            self.die()

    def _watch(self) -> None:
        assert self._ctx is not None
        on_write = self._on_ready if self._to_send else None
        self._ctx.set_fd_handler(self.sock.fileno(), self._on_ready, on_write, owner=self)

    # -- what a test does with it

    def release(self) -> None:
        """Sends the answers that were held back; not for a peer in a thread."""
        self.hold = False
        self._answer_all()
        self._send()

    def die(self) -> None:
        """Ends the connection, whatever is in flight."""
        if self._ctx is not None and self.sock.fileno() >= 0:
            self._ctx.set_fd_handler(self.sock.fileno(), None, None)
        if self.sock.fileno() >= 0:
            self.sock.shutdown(socket.SHUT_RDWR)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self.sock.close()
        self.known.pop(self.name, None)

    # -- the protocol

    def _answer_all(self) -> None:
        while (answer := self._answer()) is not None:
            self._held.append(answer)
        if not self.hold:
            self._to_send += b"".join(self._held)
            self._held.clear()

    def _answer(self) -> bytes | None:
        """Does the first request that has come in full, and returns its reply."""
        got = self._received
        if len(got) < REQUEST.size:
            return None
        kind, number, offset, nbytes = REQUEST.unpack_from(got)
        end = REQUEST.size + (nbytes if kind == WRITE else 0)
        if len(got) < end:
            return None
        self.requests += 1
        if kind == WRITE:
            self.data[offset : offset + nbytes] = got[REQUEST.size : end]
        del got[:end]
        data = bytes(self.data[offset : offset + nbytes]) if kind == READ else b""
        return REPLY.pack(number, len(data), 0) + data

    def _send(self) -> bool:
        try:
            while self._to_send:
                del self._to_send[: self.sock.send(self._to_send)]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


class _Waiting:
    """A request that waits for its reply."""

    __slots__ = ("co", "data", "error")

    def __init__(self, co: Coroutine) -> None:
        self.co = co
        self.data = b""
        self.error = 0


class Connection:
    """The node's side: what is in flight, and what has come of the next reply."""

    def __init__(self, sock: socket.socket, length: int) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.length = length
        self.broken = False
        self.in_flight: dict[int, _Waiting] = {}
        self.numbers = itertools.count(1)
        self.send_lock = CoMutex()
        self.sender: Coroutine | None = None  # waits until the socket takes more
        self.received = bytearray()


def watch(bs: BlockDriverState) -> None:
    """Registers the node's handlers where the node is now (R1)."""
    c: Connection = bs.opaque
    bs.aio_context.set_fd_handler(
        c.sock.fileno(),
        lambda: receive(bs),
        (lambda: writable(bs)) if c.sender is not None else None,
        owner=bs,
    )


def unwatch(bs: BlockDriverState) -> None:
    """Takes them away."""
    bs.aio_context.set_fd_handler(bs.opaque.sock.fileno(), None, None)


def writable(bs: BlockDriverState) -> None:
    """Is the handler for a socket that takes more."""
    c: Connection = bs.opaque
    sender, c.sender = c.sender, None
    watch(bs)
    if sender is not None:
        sender.wake()


def receive(bs: BlockDriverState) -> None:
    """Is the handler for a socket with something to read: completes what is answered."""
    c: Connection = bs.opaque
    try:
        received = c.sock.recv(CHUNK)
    except BlockingIOError:
        return
    except OSError:
        received = b""
    if not received:
        give_up(bs)
        return
    c.received += received
    while len(c.received) >= REPLY.size:
        number, nbytes, error = REPLY.unpack_from(c.received)
        end = REPLY.size + nbytes
        if len(c.received) < end:
            return
        waiting = c.in_flight.pop(number)
        waiting.data, waiting.error = bytes(c.received[REPLY.size : end]), error
        del c.received[:end]
        waiting.co.wake()


def give_up(bs: BlockDriverState) -> None:
    """Ends all that waits, once the connection is broken (R3)."""
    c: Connection = bs.opaque
    if c.broken:
        return
    c.broken = True
    unwatch(bs)
    sender, c.sender = c.sender, None
    if sender is not None:
        sender.wake()
    while c.in_flight:
        _, waiting = c.in_flight.popitem()
        waiting.error = errno.EIO
        waiting.co.wake()


async def send(bs: BlockDriverState, message: bytes) -> None:
    """Sends all of a message, waiting where the socket is full."""
    c: Connection = bs.opaque
    rest = memoryview(message)
    while rest and not c.broken:
        try:
            rest = rest[c.sock.send(rest) :]
        except BlockingIOError:
            c.sender = current()
            watch(bs)
            await co_yield()
        except OSError:
            give_up(bs)


async def request(
    bs: BlockDriverState, kind: int, offset: int = 0, nbytes: int = 0, data: bytes = b""
) -> bytes:
    """Sends one request and waits for its reply; raises BlockError."""
    c: Connection = bs.opaque
    co = current()
    assert co is not None, "a request outside of a coroutine"
    number, waiting = next(c.numbers), _Waiting(co)
    async with c.send_lock:
        if c.broken:
            raise BlockError(errno.EIO, "The connection is broken", bs.node_name, offset=offset)
        await send(bs, REQUEST.pack(kind, number, offset, nbytes) + data)
        if c.broken:
            raise BlockError(errno.EIO, "The connection broke", bs.node_name, offset=offset)
        c.in_flight[number] = waiting
    await co_yield()
    if waiting.error:
        raise BlockError(waiting.error, "The connection broke", bs.node_name, offset=offset)
    return waiting.data


class RequestReply(BlockDriver):
    """A protocol driver whose only registration is the handler of its socket."""

    format_name = "request-reply"
    protocol_name = "request-reply"
    runtime_opts = (Option("peer", "string", "the name of the Peer to connect to"),)

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        peer = Peer.known[take_options(options, self.runtime_opts)["peer"]]
        bs.opaque = Connection(peer.far_end, len(peer.data))
        watch(bs)

    def close(self, bs: BlockDriverState) -> None:
        if not bs.opaque.broken:
            unwatch(bs)
        bs.opaque.sock.close()

    def getlength(self, bs: BlockDriverState) -> int:
        length: int = bs.opaque.length
        return length

    async def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        iov_from_bytes(qiov, 0, await request(bs, READ, offset, nbytes))

    async def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        await request(bs, WRITE, offset, nbytes, iov_to_bytes(qiov, 0, nbytes))

    async def co_flush_to_disk(self, bs: BlockDriverState) -> None:
        await request(bs, FLUSH)

    def detach_aio_context(self, bs: BlockDriverState) -> None:
        assert not bs.opaque.in_flight, "a move with requests in flight"
        if not bs.opaque.broken:
            unwatch(bs)

    def attach_aio_context(self, bs: BlockDriverState, ctx: AioContext) -> None:
        if not bs.opaque.broken:
            watch(bs)


def connected_node(peer: Peer, name: str = "") -> BlockDriverState:
    """Returns a node of a peer; the caller holds the reference."""
    bs = make_node(RequestReply(), Connection(peer.far_end, len(peer.data)), name)
    watch(bs)
    return bs


@contextmanager
def registered() -> Iterator[None]:
    """The driver stands in the registry's table meanwhile."""
    row = registry.Row("request-reply", __name__, "RequestReply", protocol="request-reply")
    registry.add_row(row)
    try:
        yield
    finally:
        registry.remove_row(row)
