# SPDX-License-Identifier: GPL-2.0-only
"""The block layer inside an asyncio program.

    disk = await block.asyncio_open("disk.img", format="raw")
    await disk.pwrite(0, b"hello")
    print(await disk.pread(0, 5))
    await disk.close()

R1  The main loop's context is embedded in the running asyncio loop while a disk is open
    (block/aio/embed.py): asyncio sleeps for both. So asyncio must run in the main thread.
R2  A disk may be moved to an IOThread and back; answers come to the asyncio loop in any case.
R3  A task that is cancelled stops waiting. Its request goes on to its end, and its memory is
    kept until then.
R4  Opening, moving and closing block the loop for as long as they take; requests never do.

Called in the thread of the asyncio loop, which is the main thread.
"""

from __future__ import annotations

import asyncio

from block.aio.coroutine import Coroutine
from block.aio.embed import EmbeddedContext
from block.aio.world import the_world
from block.core.backend import BlockBackend
from block.core.iov import as_iov, iov_size
from block.image import open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from _typeshed import ReadableBuffer

    from block.aio.context import AioContext

_hosts: dict[asyncio.AbstractEventLoop, _Host] = {}


class _Host:
    """The main context in one asyncio loop, for as long as disks are open there."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.users = 0
        self.embedded = EmbeddedContext(the_world().main_context, loop)

    def release(self) -> None:
        self.users -= 1
        if self.users == 0:
            del _hosts[self.loop]
            self.embedded.close()


def _host_of_running_loop() -> _Host:
    loop = asyncio.get_running_loop()
    if loop not in _hosts:
        assert the_world().main_context.is_home(), "R1: asyncio runs outside of the main thread"
        _hosts[loop] = _Host(loop)
    _hosts[loop].users += 1
    return _hosts[loop]


class AsyncioDisk:
    """An open image whose requests are awaited by asyncio tasks; offsets in bytes.

    `blk` is the BlockBackend, for all that is not a request.
    """

    def __init__(self, blk: BlockBackend, host: _Host) -> None:
        self.blk = blk
        self._host = host

    async def pread(self, offset: int, nbytes: int) -> bytes:
        """Reads bytes."""
        buffer = bytearray(nbytes)
        await self._run(lambda: self.blk.co_preadv(offset, nbytes, [memoryview(buffer)]))
        return bytes(buffer)

    async def preadv_into(self, offset: int, qiov: list[memoryview]) -> None:
        """Reads into memory of the caller's, without a copy."""
        await self._run(lambda: self.blk.co_preadv(offset, iov_size(qiov), qiov))

    async def pwrite(self, offset: int, data: ReadableBuffer, flags: int = 0) -> None:
        """Writes bytes; they must not change until this returns."""
        qiov = as_iov(data)
        await self._run(lambda: self.blk.co_pwritev(offset, iov_size(qiov), qiov, flags))

    async def pwrite_zeroes(self, offset: int, nbytes: int, flags: int = 0) -> None:
        """Writes zeroes."""
        await self._run(lambda: self.blk.co_pwrite_zeroes(offset, nbytes, flags))

    async def pdiscard(self, offset: int, nbytes: int) -> None:
        """Tells that a range is not needed any more."""
        await self._run(lambda: self.blk.co_pdiscard(offset, nbytes))

    async def flush(self) -> None:
        """Makes what was written durable."""
        await self._run(self.blk.co_flush)

    @property
    def length(self) -> int:
        """The length in bytes."""
        return self.blk.length

    def set_aio_context(self, ctx: AioContext) -> None:
        """Moves the disk to another loop, an IOThread's for example; blocks meanwhile."""
        self.blk.set_aio_context(ctx)

    async def close(self) -> None:
        """Flushes and closes; the disk cannot be used any more."""
        try:
            await self.flush()
        finally:
            self.blk.unref()
            self._host.release()

    async def __aenter__(self) -> AsyncioDisk:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _run(self, work: Callable[[], Awaitable[Any]]) -> None:
        """Runs a request in the disk's context, here or in an IOThread, and waits for it."""
        future: asyncio.Future[None] = self._host.loop.create_future()
        ctx = self.blk.aio_context
        co = Coroutine(_carry(work, self._host.loop, future), name="asyncio request", ctx=ctx)
        if ctx.is_home():
            co.enter()
        else:
            ctx.co_schedule(co)
        await future


async def _carry(
    work: Callable[[], Awaitable[Any]],
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[None],
) -> None:
    """Does a request and hands its outcome to the asyncio loop, from whatever thread."""
    error: Exception | None = None
    try:
        await work()
    except Exception as caught:
        error = caught
    loop.call_soon_threadsafe(_settle, future, error)


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


async def asyncio_open(filename: str | None = None, **how: Any) -> AsyncioDisk:
    """Opens an image for the running asyncio loop; keywords as block.open has them."""
    host = _host_of_running_loop()
    try:
        return AsyncioDisk(open(filename, **how), host)
    except BaseException:
        host.release()
        raise
