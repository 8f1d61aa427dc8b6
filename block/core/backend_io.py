# SPDX-License-Identifier: GPL-2.0-only
"""A device's requests to its disk: the request half of BlockBackend (block-backend.c).

R1  Callbacks never run before the call returns; they get 0 or -errno (DESIGN.md, rules 4, 10).
R2  While the root is drained, new requests are parked; afterwards they run in the order
    in which they came, before newer ones, in the context that the tree then has.
R3  A request must lie within the disk; else EIO. One that is refused counts as failed. One
    that finds no tree any more ends with ENOMEDIUM.
R4  `in_flight` counts until the callback has returned; a drain waits for that.
R5  Without a write cache (enable_write_cache) each write is made durable: REQ_FUA.
Who may call it: aio_* and co_* from the home thread of `aio_context`; the synchronous ones
from there and from the main thread, but from no coroutine (rule 14).

Discussion: aio_preadv has a path of its own. When a driver can answer at once (a page-cache
hit), a coroutine would cost more than the read. So the checks are written out flat, the
drivers are asked by try_preadv, and only if they decline a coroutine begins. Either way
the completion is the request's own bottom half.
"""

from __future__ import annotations

import errno

from block.aio.coroutine import co_yield, current
from block.aio.world import the_world
from block.core import drain, wait
from block.core import flags as f
from block.core.accounting import FLUSH, READ, UNMAP, WRITE, BlockAcctStats
from block.core.aiocb import (
    PARKED,
    BlkAIOCB,
    DiscardRequest,
    FlushRequest,
    ReadRequest,
    WriteRequest,
    ZeroesRequest,
)
from block.core.error import BlockError, no_medium
from block.core.io import try_preadv
from block.core.iov import as_iov, iov_size
from block.lean import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from _typeshed import ReadableBuffer

    from block.aio.context import AioContext
    from block.aio.coroutine import Coroutine
    from block.aio.world import World
    from block.core.backend_limits import BackendLimits
    from block.core.edge import BdrvChild
    from block.core.iov import Iov
    from block.core.node import BlockDriverState

    Callback = Callable[[int], None]


class _ParkedCoroutine:
    """A coroutine that came while the root was drained."""

    __slots__ = ("co",)

    def __init__(self, co: Coroutine) -> None:
        self.co = co

    def start(self, ctx: AioContext) -> None:
        ctx.co_enter(self.co)


class BackendRequests:
    """What a backend needs to serve requests; offsets and lengths in bytes."""

    def __init__(self, world: World | None = None) -> None:
        self._world = world or the_world()
        self.name = ""
        self.root: BdrvChild | None = None
        self.allow_write_beyond_eof = False
        self.enable_write_cache = True
        self.stats = BlockAcctStats(self._world)
        self.in_flight = 0
        self.quiesce_counter = 0
        self.limits: BackendLimits | None = None  # see backend_limits.py
        self.try_read = try_preadv  # the fast path; limits put their own here
        self._parked: deque[BlkAIOCB | _ParkedCoroutine] = deque()

    @property
    def aio_context(self) -> AioContext:
        """Where the tree lives (blk_get_aio_context)."""
        return self.root.bs.aio_context if self.root is not None else self._world.main_context

    def _bs(self) -> BlockDriverState:
        if self.root is None:
            raise no_medium(self.name)
        return self.root.bs

    def check_request(self, offset: int, nbytes: int) -> BdrvChild:
        """Returns the edge for a request, or raises (blk_check_byte_request, R4)."""
        root = self.root
        if root is None or root.bs.drv is None:
            raise no_medium(self.name)
        if nbytes < 0 or offset < 0:
            message = f"Request of {nbytes} bytes at offset {offset}"
            raise BlockError(errno.EIO, message, root.bs.node_name, offset=offset)
        if not self.allow_write_beyond_eof and offset + nbytes > root.bs.getlength():
            message = f"Request of {nbytes} bytes at offset {offset} goes beyond the end"
            raise BlockError(errno.EIO, message, root.bs.node_name, offset=offset)
        return root

    # -- requests with a callback

    def aio_preadv(self, offset: int, qiov: Iov, cb: Callback, flags: int = 0) -> BlkAIOCB:
        """Reads into a vector (blk_aio_preadv)."""
        nbytes = len(qiov[0]) if len(qiov) == 1 else iov_size(qiov)
        root = self.root
        ctx = root.bs.aio_context if root is not None else self._world.main_context
        acb = ReadRequest(self, ctx, offset, nbytes, qiov, flags, cb)
        if flags or root is None or self.quiesce_counter or self._parked:
            return self._submit(acb)
        # The fast path: the same checks as in the coroutine, or it declines.
        assert ctx.is_home(), ctx.stranger()
        try_read = self.try_read
        if try_read(root, offset, nbytes, qiov) is None:
            acb.start(ctx)
        else:
            self.in_flight += 1
            acb.schedule()
        return acb

    def aio_pwritev(self, offset: int, qiov: Iov, cb: Callback, flags: int = 0) -> BlkAIOCB:
        """Writes a vector (blk_aio_pwritev)."""
        nbytes = iov_size(qiov)
        return self._submit(WriteRequest(self, self.aio_context, offset, nbytes, qiov, flags, cb))

    def aio_pwrite_zeroes(self, offset: int, nbytes: int, cb: Callback, flags: int = 0) -> BlkAIOCB:
        """Writes zeroes (blk_aio_pwrite_zeroes)."""
        return self._submit(ZeroesRequest(self, self.aio_context, offset, nbytes, None, flags, cb))

    def aio_pdiscard(self, offset: int, nbytes: int, cb: Callback) -> BlkAIOCB:
        """Discards (blk_aio_pdiscard)."""
        return self._submit(DiscardRequest(self, self.aio_context, offset, nbytes, None, 0, cb))

    def aio_flush(self, cb: Callback) -> BlkAIOCB:
        """Makes everything durable that was written before (blk_aio_flush)."""
        return self._submit(FlushRequest(self, self.aio_context, 0, 0, None, 0, cb))

    def _submit(self, acb: BlkAIOCB) -> BlkAIOCB:
        """Starts a request in a coroutine, or parks it (R2)."""
        assert acb.ctx.is_home(), acb.ctx.stranger()
        if self.quiesce_counter or self._parked:
            acb.stage = PARKED
            self._parked.append(acb)
        else:
            acb.start(acb.ctx)
        return acb

    def io_plug(self) -> None:
        """Lets requests come together, to reach the kernel in one batch (blk_io_plug)."""
        self.aio_context.plug()

    def io_unplug(self) -> None:
        """Sends them off (blk_io_unplug)."""
        self.aio_context.unplug()

    def write_flags(self, flags: int) -> int:
        """Adds what the write cache mode asks of every write (R5)."""
        return flags if self.enable_write_cache else flags | f.REQ_FUA

    # -- drained sections

    def resume(self) -> None:
        """Lets parked requests go on, from a bottom half of the tree's context (R2)."""
        if self._parked:
            self.aio_context.bh_schedule_oneshot(self._resume_parked, owner=self)

    def _resume_parked(self) -> None:
        ctx = self.aio_context
        if not ctx.is_home():
            return  # the tree has moved on since; its new context has been told, too
        try:
            while self._parked and not self.quiesce_counter:
                self._parked.popleft().start(ctx)
        except BaseException:
            self.resume()  # a driver's mistake keeps nobody else waiting
            raise

    def unpark(self, acb: BlkAIOCB) -> None:
        """Takes a request out of the queue, to be cancelled."""
        self._parked.remove(acb)

    def drain(self) -> None:
        """Waits for all requests of this backend and its node (blk_drain)."""
        if self.root is not None:
            drain.drain(self.root.bs)
        else:
            wait.poll_while(self.aio_context, lambda: self.in_flight > 0 or bool(self._parked))

    # -- requests of coroutines

    async def _co(
        self,
        kind: int,
        offset: int,
        nbytes: int,
        work: Callable[[BdrvChild], Awaitable[None]],
    ) -> None:
        """Does a request inside the caller's coroutine, with the same rules."""
        start_ns = self.stats.now()
        try:
            await self._co_uncounted(offset, nbytes, work, kind)
        except BaseException:
            self.stats.failed(kind, start_ns)
            raise
        self.stats.done(kind, nbytes, start_ns)

    async def _co_uncounted(
        self,
        offset: int,
        nbytes: int,
        work: Callable[[BdrvChild], Awaitable[None]],
        kind: int = FLUSH,
    ) -> None:
        if self.quiesce_counter or self._parked:
            co = current()
            assert co is not None, "co_* outside a coroutine"
            self._parked.append(_ParkedCoroutine(co))
            await co_yield()
        self.in_flight += 1
        try:
            root = self.check_request(offset, nbytes)
            if self.limits is not None:
                await self.limits.co_wait(kind, nbytes)
            await work(root)
        finally:
            self.in_flight -= 1

    def co_preadv(self, offset: int, nbytes: int, qiov: Iov, flags: int = 0) -> Awaitable[None]:
        """Reads into a vector (blk_co_preadv)."""
        return self._co(
            READ, offset, nbytes, lambda root: root.co_preadv(offset, nbytes, qiov, flags)
        )

    def co_pwritev(self, offset: int, nbytes: int, qiov: Iov, flags: int = 0) -> Awaitable[None]:
        """Writes a vector (blk_co_pwritev)."""
        flags = self.write_flags(flags)
        return self._co(
            WRITE, offset, nbytes, lambda root: root.co_pwritev(offset, nbytes, qiov, flags)
        )

    async def co_copy_range(
        self, offset: int, target: BackendRequests, to: int, nbytes: int
    ) -> None:
        """Copies to another backend in the same context, without reading (blk_co_copy_range).

        Raises ENOTSUP where that cannot be done (copy_range.py, R1).
        """
        from block.core.copy_range import CopyRange, co_copy_range_from

        def begin(root: BdrvChild, other: BdrvChild) -> Awaitable[None]:
            return co_copy_range_from(CopyRange(root, offset, other, to, nbytes))

        await self._co_uncounted(
            offset,
            nbytes,
            lambda root: target._co(WRITE, to, nbytes, lambda other: begin(root, other)),
        )

    def co_pwrite_zeroes(self, offset: int, nbytes: int, flags: int = 0) -> Awaitable[None]:
        """Writes zeroes (blk_co_pwrite_zeroes)."""
        flags = self.write_flags(flags)
        return self._co(
            WRITE, offset, nbytes, lambda root: root.co_pwrite_zeroes(offset, nbytes, flags)
        )

    def co_pdiscard(self, offset: int, nbytes: int) -> Awaitable[None]:
        """Discards (blk_co_pdiscard)."""
        return self._co(UNMAP, offset, nbytes, lambda root: root.co_pdiscard(offset, nbytes))

    def co_flush(self) -> Awaitable[None]:
        """Makes everything durable (blk_co_flush)."""
        return self._co(FLUSH, 0, 0, lambda root: root.co_flush())

    def co_truncate(
        self, offset: int, exact: bool = False, prealloc: str = "off"
    ) -> Awaitable[None]:
        """Changes the length (blk_co_truncate)."""
        return self._co_uncounted(0, 0, lambda root: root.co_truncate(offset, exact, prealloc))

    # -- requests of those who may wait

    def _wait(self, work: Callable[[], Awaitable[None]]) -> None:
        assert not self.quiesce_counter, "a synchronous request within a drained section"
        wait.run_sync(self.aio_context, work)

    def pread(self, offset: int, nbytes: int) -> bytes:
        """Reads and returns bytes (blk_pread)."""
        buffer = bytearray(max(nbytes, 0))
        self._wait(lambda: self.co_preadv(offset, nbytes, [memoryview(buffer)]))
        return bytes(buffer)

    def preadv_into(self, offset: int, qiov: Iov) -> None:
        """Reads into a vector, without a copy (blk_preadv)."""
        self._wait(lambda: self.co_preadv(offset, iov_size(qiov), qiov))

    def pwrite(self, offset: int, data: ReadableBuffer | Iov, flags: int = 0) -> None:
        """Writes bytes, or a vector (blk_pwrite)."""
        qiov = as_iov(data)
        self._wait(lambda: self.co_pwritev(offset, iov_size(qiov), qiov, flags))

    def pwrite_zeroes(self, offset: int, nbytes: int, flags: int = 0) -> None:
        """Writes zeroes (blk_pwrite_zeroes)."""
        self._wait(lambda: self.co_pwrite_zeroes(offset, nbytes, flags))

    def pdiscard(self, offset: int, nbytes: int) -> None:
        """Discards (blk_pdiscard)."""
        self._wait(lambda: self.co_pdiscard(offset, nbytes))

    def flush(self) -> None:
        """Makes everything durable (blk_flush)."""
        self._wait(self.co_flush)

    def truncate(self, offset: int, exact: bool = False, prealloc: str = "off") -> None:
        """Changes the length (blk_truncate)."""
        self._wait(lambda: self.co_truncate(offset, exact, prealloc))
