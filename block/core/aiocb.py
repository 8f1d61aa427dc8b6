# SPDX-License-Identifier: GPL-2.0-only
"""A request of a device, on its way (QEMU's BlkAioEmAIOCB).

R1  The callback runs exactly once, never inside the call that submitted (DESIGN.md, rule 4):
    a request is its own bottom half, and that half is its completion.
R2  It runs in the home thread of the backend's context, outside of any coroutine.
R3  As long as a request lives, it keeps its vector alive: the kernel may be writing there.

    state        what it waits for
    PARKED       the end of a drained section; the queue of the BlockBackend holds it
    IN_FLIGHT    the tree
    DONE         its bottom half, and then nobody
"""

from __future__ import annotations

import errno

from block.aio.bh import BottomHalf
from block.aio.coroutine import Coroutine
from block.core.error import errno_of
from block.core.wait import poll_while

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from block.aio.context import AioContext
    from block.core.backend_io import BackendRequests
    from block.core.iov import Iov

PARKED, IN_FLIGHT, DONE = range(3)


class BlkAIOCB(BottomHalf):
    """One request; `cb(ret)` gets 0 or -errno.

    `kind` is the type that accounting knows; `work(request)` the coroutine function of
    BlockBackend that does it.
    """

    __slots__ = (
        "blk",
        "cb",
        "flags",
        "kind",
        "nbytes",
        "offset",
        "qiov",
        "ret",
        "stage",
        "start_ns",
        "work",
    )  # fmt: skip

    def __init__(
        self,
        blk: BackendRequests,
        ctx: AioContext,
        kind: int,
        offset: int,
        nbytes: int,
        qiov: Iov | None,
        flags: int,
        cb: Callable[[int], None],
        work: Callable[[BlkAIOCB], Awaitable[None]],
    ) -> None:
        super().__init__(ctx, blk)
        self.blk = blk
        self.kind = kind
        self.offset = offset
        self.nbytes = nbytes
        self.qiov = qiov
        self.flags = flags
        self.cb = cb
        self.work = work
        self.ret = 0
        self.stage = IN_FLIGHT
        self.start_ns = blk.stats.now()

    def start(self, ctx: AioContext) -> None:
        """Sends the request into the tree, in a coroutine of its own."""
        self.ctx = ctx
        self.stage = IN_FLIGHT
        self.blk.in_flight += 1
        Coroutine(self._run(), name="request", ctx=ctx).enter()

    async def _run(self) -> None:
        try:
            await self.work(self)
        except OSError as error:
            self.ret = -errno_of(error)
        except MemoryError:
            self.ret = -errno.ENOMEM
        except BaseException:
            self.ret = -errno.EIO
            self.schedule()
            raise
        self.schedule()

    def callback(self) -> None:
        """Completes the request; this is the bottom half (R1)."""
        blk = self.blk
        self.stage = DONE
        ret = self.ret
        try:
            blk.stats.done(self.kind, self.nbytes, self.start_ns, ret < 0)
            self.cb(ret)
        finally:
            blk.in_flight -= 1

    def cancel_async(self) -> None:
        """Asks for an early end: what has not begun ends with -ECANCELED (bdrv_aio_cancel_async).

        What the tree has already, goes on; the callback comes in either case.
        """
        if self.stage == PARKED:
            self.blk.unpark(self)
            self.ret = -errno.ECANCELED
            self.stage = IN_FLIGHT
            self.blk.in_flight += 1
            self.schedule()

    def cancel(self) -> None:
        """Asks for an early end and waits for the callback (bdrv_aio_cancel)."""
        self.cancel_async()
        poll_while(self.ctx, lambda: self.stage != DONE)
