# SPDX-License-Identifier: GPL-2.0-only
"""aio=threads: calls that may block run in the thread pool of the node's context.

R1  A request's memory is kept alive by the work that names it, until its completion.
R2  Everything is asked from `bs.aio_context` at the moment of the request (DESIGN.md, rule 1).
R3  Small aligned writes into the page cache that arrive in one pass of the loop go to a worker
    together: one batch, one hop. Others go alone, so that disks see them in parallel.
    A batch of no more than NEAR_BYTES goes to the near worker (near.py): a longer one would keep
    the loop's processor busy, while another could copy.
R4  Within a batch, writes that continue one another in file and order become one pwritev. Where
    that fails or ends short, each is done again by itself and gets its own outcome.

R5  A long write where nothing has been stored yet (REQ_ALLOCATING) first gets its room in one piece
    (fallocate). Otherwise the file system looks for room block by block as the pages come, and once
    more when they go to the disk: 2 MiB take it 480 us so, and 290 with their room (ext4).
R6  All such writes and all batches of a node are one worker's. The kernel lets one write into the
    page cache of a file at a time: a second worker would wait for the first with its processor
    busy, and the two and the loop would want the interpreter by turns. Devices have no such lock.

Discussion: measured on ext4, 4 KiB: one pwritev 3.8 us, 32 of them joined 0.24 us each; a hop to a
worker and back 30 to 40 us, and more when a worker and the loop want the interpreter at once, as
they do when each write completes by itself. A page that is not cached needs no read when it is
written whole, so a batch of whole pages does not wait for the disk, one for another.

Requests are submitted in the thread of the node's context. Source: block/file-posix.c (raw_co_prw).
"""

from __future__ import annotations

import errno
import os

from block.aio.coroutine import current
from block.core.error import BlockError
from block.core.flags import IOV_MAX, REQ_ALLOCATING
from block.protocols.file.near import NearWorker
from block.protocols.file.state import Engine
from block.protocols.file.syscalls import read_all, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from block.aio.bh import BH
    from block.aio.context import AioContext
    from block.aio.coroutine import Coroutine
    from block.aio.thread_pool import ThreadPool
    from block.core.node import BlockDriverState
    from block.protocols.file.state import FileState

PAGE_MASK = 4095
SMALL_WRITE = 65536
BATCH_WRITES = 64
BATCH_BYTES = 1 << 20
NEAR_BYTES = 128 << 10
ALLOCATED_FIRST = 256 << 10  # shorter writes gain nothing by it


async def in_pool(
    bs: BlockDriverState, func: Callable[[], int], pool: ThreadPool | None = None
) -> None:
    """Runs a blocking function in the thread pool of the node's context, or in another one; its
    exception becomes ours.

    Raises BlockError with the function's own text where it raised one.
    """
    caught: list[BlockError] = []

    def run() -> int:
        try:
            return func()
        except BlockError as error:
            caught.append(error)
            raise

    ret = await (pool or bs.aio_context.thread_pool).submit_co(run, owner=bs)
    if caught:
        raise caught[0]
    if ret < 0:
        raise BlockError(-ret, node=bs.node_name, driver="file")


class PendingWrite:
    """A small write that waits for its batch; awaited at once by the coroutine `co`.

    Raises BlockError. It is an awaitable of its own, which saves two frames a request.
    """

    __slots__ = ("co", "nbytes", "offset", "qiov", "ret")

    def __init__(self, offset: int, nbytes: int, qiov: list[memoryview], co: Coroutine) -> None:
        self.offset = offset
        self.nbytes = nbytes
        self.qiov = qiov
        self.co = co
        self.ret = 0

    def __await__(self) -> Generator[None, None, None]:
        yield
        if self.ret < 0:
            raise BlockError(-self.ret, driver="file", offset=self.offset)


class ThreadsEngine(Engine):
    """The default engine; works on any file and any system."""

    supported_write_flags = REQ_ALLOCATING

    def __init__(self, bs: BlockDriverState, state: FileState) -> None:
        super().__init__(bs, state)
        self.pending: list[PendingWrite] = []
        self.batch_bh: BH | None = None
        self.near: NearWorker | None = None
        self.writer: ThreadPool | None = None  # R6

    async def co_preadv(self, offset: int, nbytes: int, qiov: list[memoryview]) -> None:
        fd, direct = self.state.fd, self.state.direct
        await in_pool(self.bs, lambda: read_all(fd, offset, nbytes, qiov, direct))

    def co_pwritev(self, offset: int, nbytes: int, qiov: list[memoryview]) -> Awaitable[None]:
        fd, direct = self.state.fd, self.state.direct
        if direct or nbytes > SMALL_WRITE or (offset | nbytes) & PAGE_MASK:
            return in_pool(self.bs, lambda: write_all(fd, offset, nbytes, qiov, direct))
        me = current()
        assert me is not None, "a write outside of a coroutine"
        write = PendingWrite(offset, nbytes, qiov, me)
        if not self.pending:
            self.schedule_batch()
        self.pending.append(write)
        return write

    def co_pwritev_new(self, offset: int, nbytes: int, qiov: list[memoryview]) -> Awaitable[None]:
        state = self.state
        if nbytes < ALLOCATED_FIRST or state.direct or not state.has_fallocate:
            return self.co_pwritev(offset, nbytes, qiov)
        fd = state.fd
        pool = self.writers()
        return in_pool(self.bs, lambda: write_new(state, fd, offset, nbytes, qiov), pool)

    def writers(self) -> ThreadPool:
        """Those who write into the page cache (R6)."""
        ctx = self.bs.aio_context
        if self.state.is_device:
            return ctx.thread_pool
        if self.writer is None:
            from block.aio.thread_pool import ThreadPool

            self.writer = ThreadPool(ctx)
            self.writer.max_threads = 1
        return self.writer

    def schedule_batch(self) -> None:
        """Sees to it that what comes in this pass is submitted at its end."""
        if self.batch_bh is None:
            self.batch_bh = self.bs.aio_context.bh_new(self.submit_pending, owner=self.bs)
        self.batch_bh.schedule()

    def submit_pending(self) -> None:
        """Hands what came together in this pass to workers, in batches (R3)."""
        pending, self.pending = self.pending, []
        batch: list[PendingWrite] = []
        room = BATCH_BYTES
        for write in pending:
            if len(batch) == BATCH_WRITES or write.nbytes > room:
                self.submit(batch)
                batch, room = [], BATCH_BYTES
            batch.append(write)
            room -= write.nbytes
        if batch:
            self.submit(batch)

    def submit(self, batch: list[PendingWrite]) -> None:
        fd = self.state.fd

        def complete(ret: int) -> None:
            for write in batch:
                if ret < 0:
                    write.ret = ret
                # At home, and in no coroutine: no need to ask, as wake() does.
                write.co.enter()

        ctx = self.bs.aio_context
        if self.near is None:
            self.near = NearWorker(ctx)
        if self.near.busy or sum(write.nbytes for write in batch) > NEAR_BYTES:
            self.writers().submit_aio(lambda: write_batch(fd, batch), complete, owner=self.bs)
        else:
            self.near.submit(lambda: write_batch(fd, batch), complete)

    async def co_flush(self) -> None:
        state = self.state
        await in_pool(self.bs, lambda: flush(state, state.fd))

    def detach(self) -> None:
        if self.batch_bh is not None:
            assert not self.pending, "R2: detached with writes in flight"
            self.batch_bh.delete()
            self.batch_bh = None
        if self.near is not None:
            self.near.close()
            self.near = None
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def attach(self, ctx: AioContext) -> None:
        """The bottom half is made anew by the first write."""

    def close(self) -> None:
        self.detach()


def write_batch(fd: int, batch: list[PendingWrite]) -> int:
    """Does a batch of writes, in a worker thread; outcomes are left in each `ret`. Returns 0."""
    first = 0
    while first < len(batch):
        run, qiov = contiguous_run(batch, first)
        first += len(run)
        if len(run) == 1 or not _written_at_once(fd, run, qiov):
            for write in run:
                write.ret = _write_alone(fd, write)
    return 0


def contiguous_run(
    batch: list[PendingWrite], first: int
) -> tuple[list[PendingWrite], list[memoryview]]:
    """The writes from `first` on that continue one another, and their joined vector (R4)."""
    run = [batch[first]]
    qiov = list(batch[first].qiov)
    end = batch[first].offset + batch[first].nbytes
    for write in batch[first + 1 :]:
        if write.offset != end or len(qiov) + len(write.qiov) > IOV_MAX:
            break
        run.append(write)
        qiov += write.qiov
        end += write.nbytes
    return run, qiov


def _written_at_once(fd: int, run: list[PendingWrite], qiov: list[memoryview]) -> bool:
    total = run[-1].offset + run[-1].nbytes - run[0].offset
    try:
        return os.pwritev(fd, qiov, run[0].offset) == total
    except OSError:
        return False


def _write_alone(fd: int, write: PendingWrite) -> int:
    try:
        return write_all(fd, write.offset, write.nbytes, write.qiov)
    except OSError as error:
        return -(error.errno or errno.EIO)


def write_new(state: FileState, fd: int, offset: int, nbytes: int, qiov: list[memoryview]) -> int:
    """Gets room and fills it, in a worker thread (R5). Returns 0; raises OSError."""
    from block.protocols.file.zero import allocate

    allocate(state, fd, offset, nbytes)
    return write_all(fd, offset, nbytes, qiov)


def flush(state: FileState, fd: int) -> int:
    """fdatasync, in a worker thread (handle_aiocb_flush). Returns 0; raises OSError.

    After a failed one the kernel may have marked lost pages as clean: the next would "succeed".
    So with the page cache in play all later flushes fail with the same errno.
    """
    if state.flush_error:
        raise OSError(state.flush_error, os.strerror(state.flush_error))
    try:
        sync_data(fd)
    except OSError as error:
        if not state.direct:
            state.flush_error = error.errno or errno.EIO
        raise
    return 0


# macOS has no fdatasync.
sync_data = getattr(os, "fdatasync", os.fsync)
