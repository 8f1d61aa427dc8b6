# SPDX-License-Identifier: GPL-2.0-only
"""aio=native and aio=io_uring: reads, writes and flushes that the kernel does by itself.

R1  A request goes into the node's queue (block/aio/linux_aio.py, io_uring.py), and its coroutine
    waits there. What the kernel has done wholly, is done.
R2  What it has done in part, or refuses because of the memory's address (EINVAL with O_DIRECT),
    goes on in the thread pool, where syscalls.py knows all about it: the end of the file, odd
    rests, bounce buffers. The rest of a write that finds no worker's way is ENOSPC.
R3  A flush goes through the queue, too. A kernel before 4.18 has no FDSYNC for Linux AIO: there it
    goes to the thread pool.
R4  The queue is the node's. It moves with the node (patch 13), and goes with it (patch 14).

Reads that the page cache can answer at once do not come here: driver.py answers them by
try_preadv, up to `fast_read` bytes, with each engine but O_DIRECT. aio= chooses how the disk is
waited for, and there is nothing to wait for.

Requests are submitted in the thread of the node's context.
Source: block/file-posix.c (raw_co_prw, raw_aio_attach_aio_context).
"""

from __future__ import annotations

import errno
import os

from block.aio.coroutine import current
from block.aio.kernel_queue import FLUSH, READ, TRY_AGAIN, WRITE, KernelQueue, KernelRequest
from block.core.error import BlockError
from block.protocols.file.state import Engine
from block.protocols.file.syscalls import read_all, skip_bytes, write_all
from block.protocols.file.threads import flush, in_pool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator

    from block.aio.context import AioContext
    from block.core.node import BlockDriverState
    from block.protocols.file.state import FileState

NO_VECTOR: list[memoryview] = []


class FileRequest(KernelRequest):
    """A read or a write; awaited at once, it raises BlockError.

    It is an awaitable of its own, which saves two frames a request.
    """

    __slots__ = ("engine",)

    def __init__(
        self, engine: KernelEngine, kind: int, offset: int, nbytes: int, qiov: list[memoryview]
    ) -> None:
        co = current()
        assert co is not None, "a request outside of a coroutine"
        self.engine = engine
        self.co = co
        self.kind = kind
        self.fd = engine.state.fd
        self.offset = offset
        self.nbytes = nbytes
        self.qiov = qiov
        self.kept = None
        self.ret = 0

    def __await__(self) -> Generator[None, None, None]:
        yield
        if self.ret != self.nbytes:
            yield from self.engine.go_on(self).__await__()


class KernelEngine(Engine):
    """What both engines do; `queue` is where they differ."""

    queue: KernelQueue

    def __init__(self, bs: BlockDriverState, state: FileState) -> None:
        super().__init__(bs, state)
        self.has_flush = True

    def start(self, queue: KernelQueue) -> None:
        """Takes over a queue that has just been made."""
        self.queue = queue
        queue.attach(self.bs.aio_context)

    def co_preadv(self, offset: int, nbytes: int, qiov: list[memoryview]) -> Awaitable[None]:
        return self.queue.submit(FileRequest(self, READ, offset, nbytes, qiov))

    def co_pwritev(self, offset: int, nbytes: int, qiov: list[memoryview]) -> Awaitable[None]:
        return self.queue.submit(FileRequest(self, WRITE, offset, nbytes, qiov))

    async def go_on(self, request: FileRequest) -> None:
        """Does what the kernel left undone (R2). Raises BlockError."""
        fd, direct, done = request.fd, self.state.direct, request.ret
        if done < 0:
            if -done not in TRY_AGAIN and not (direct and done == -errno.EINVAL):
                raise self.failed(done, request.offset)
            done = 0
        offset, nbytes = request.offset + done, request.nbytes - done
        qiov = skip_bytes(request.qiov, done)
        move = read_all if request.kind == READ else write_all
        try:
            await in_pool(self.bs, lambda: move(fd, offset, nbytes, qiov, direct))
        except BlockError as error:
            if done and error.errno == errno.EINVAL and request.kind == WRITE:
                raise self.failed(-errno.ENOSPC, offset) from None
            raise

    def failed(self, ret: int, offset: int) -> BlockError:
        """The error of a request that the kernel answered with -errno."""
        return BlockError(-ret, os.strerror(-ret), self.bs.node_name, "file", offset)

    async def co_flush(self) -> None:
        state = self.state
        if state.flush_error:
            raise self.failed(-state.flush_error, 0)
        if self.has_flush:
            co = current()
            assert co is not None, "a flush outside of a coroutine"
            request = KernelRequest(co, FLUSH, state.fd, 0, 0, NO_VECTOR)
            await self.queue.submit(request)
            if request.ret != -errno.EINVAL:
                self.flushed(request.ret)
                return
            self.has_flush = False  # R3
        await in_pool(self.bs, lambda: flush(state, state.fd))

    def flushed(self, ret: int) -> None:
        """Raises if the flush has failed; for cached data all later ones fail, too (threads.py)."""
        if ret < 0:
            if not self.state.direct:
                self.state.flush_error = -ret
            raise self.failed(ret, 0)

    def detach(self) -> None:
        """Leaves the old loop (raw_detach_aio_context; patch 13)."""
        self.queue.detach()

    def attach(self, ctx: AioContext) -> None:
        """Comes into the new one (raw_attach_aio_context; patch 13)."""
        self.queue.attach(ctx)

    def close(self) -> None:
        """Frees the queue, what it has in the kernel, and its eventfd (raw_close; patch 14)."""
        self.queue.detach()
        self.queue.cleanup()


def unable(what: str, error: OSError) -> BlockError:
    """'Unable to use native AIO: failed to create linux AIO context: Resource ...'."""
    number = error.errno or errno.EIO
    return BlockError(number, f"Unable to use {what}: {error.strerror or os.strerror(number)}")


class NativeEngine(KernelEngine):
    """aio=native: Linux AIO."""

    def __init__(self, bs: BlockDriverState, state: FileState) -> None:
        super().__init__(bs, state)
        from block.aio.linux_aio import LinuxAioState

        try:
            self.start(LinuxAioState(bs.aio_context.world, bs))
        except OSError as error:
            raise unable("native AIO: failed to create linux AIO context", error) from None


class UringEngine(KernelEngine):
    """aio=io_uring.

    Of cached data the ring makes the loop's thread the copy, inside io_uring_enter; so nothing is
    gained by the way there, and the fast path takes them first.
    """

    def __init__(self, bs: BlockDriverState, state: FileState) -> None:
        super().__init__(bs, state)
        from block.aio.io_uring import LuringState

        try:
            self.start(LuringState(bs.aio_context.world, bs))
        except OSError as error:
            raise unable("io_uring: failed to init linux io_uring ring", error) from None
