# SPDX-License-Identifier: GPL-2.0-only
"""Drivers with one mistake each: the audit must name it, and its line.

Each is a disk in memory that is right but for the line that is marked `# MISTAKE`.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from block.aio.context import AioContext
from block.aio.coroutine import Coroutine, co_yield, current
from block.aio.world import ClockType, the_world
from block.core.driver import BlockDriver
from block.core.iov import Iov, iov_from_bytes, iov_to_bytes
from block.core.node import BlockDriverState

LENGTH = 1 << 20


class State:
    """Bytes, and what a mistake needs."""

    def __init__(self, ctx: AioContext) -> None:
        self.data = bytearray(LENGTH)
        self.first_context = ctx  # no driver should remember this
        self.thing: Any = None
        self.n_requests = 0
        self.fds: list[int] = []


async def answer_later(bs: BlockDriverState) -> None:
    """Yields once, as a driver does that waits for somebody."""
    co = current()
    assert co is not None
    bs.aio_context.bh_schedule_oneshot(co.wake, owner=bs)
    await co_yield()


class Memory(BlockDriver):
    """The driver that is right."""

    format_name = protocol_name = "right"

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        bs.opaque = State(bs.aio_context)
        self.begin(bs)

    def begin(self, bs: BlockDriverState) -> None:
        """What a mistake does when its node is opened."""

    def close(self, bs: BlockDriverState) -> None:
        for fd in bs.opaque.fds:
            os.close(fd)

    def getlength(self, bs: BlockDriverState) -> int:
        return LENGTH

    async def wait(self, bs: BlockDriverState) -> None:
        """What a request does before it is answered."""
        await answer_later(bs)

    async def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        await self.wait(bs)
        iov_from_bytes(qiov, 0, bs.opaque.data[offset : offset + nbytes])

    async def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        await self.wait(bs)
        bs.opaque.data[offset : offset + nbytes] = iov_to_bytes(qiov, 0, nbytes)


def nothing() -> None:
    """Is a callback."""


class LeavesFd(Memory):
    format_name = protocol_name = "leaves-fd"

    def begin(self, bs: BlockDriverState) -> None:
        bs.opaque.fds = list(os.pipe())
        bs.aio_context.set_fd_handler(bs.opaque.fds[0], nothing, None, owner=bs)  # MISTAKE


class LeavesTimer(Memory):
    format_name = protocol_name = "leaves-timer"

    def begin(self, bs: BlockDriverState) -> None:
        bs.aio_context.timer_new(ClockType.REALTIME, nothing, owner=bs)  # MISTAKE


class LeavesBh(Memory):
    format_name = protocol_name = "leaves-bh"

    def begin(self, bs: BlockDriverState) -> None:
        bs.aio_context.bh_new(nothing, owner=bs)  # MISTAKE


class LeavesAio(Memory):
    format_name = protocol_name = "leaves-aio"

    def begin(self, bs: BlockDriverState) -> None:
        until_closed = bs.opaque.thing = threading.Event()

        def work() -> int:
            until_closed.wait()
            return 0

        bs.aio_context.thread_pool.submit_aio(work, owner=bs)  # MISTAKE

    def close(self, bs: BlockDriverState) -> None:
        bs.opaque.thing.set()


class LeavesCoroutine(Memory):
    format_name = protocol_name = "leaves-coroutine"

    def begin(self, bs: BlockDriverState) -> None:
        async def look_after_it() -> None:
            while True:
                await co_yield()

        ctx = bs.aio_context
        bs.opaque.thing = Coroutine(look_after_it(), ctx=ctx, owner=bs)  # MISTAKE
        bs.opaque.thing.enter()


class CompletesTwice(Memory):
    format_name = protocol_name = "completes-twice"

    async def wait(self, bs: BlockDriverState) -> None:
        co = current()
        assert co is not None

        def complete() -> None:
            co.wake()
            co.wake()  # MISTAKE

        bs.aio_context.bh_schedule_oneshot(complete, owner=bs)
        await co_yield()


class WrongThread(Memory):
    """A library with a thread and a loop of its own answers from there: once in a hundred times."""

    format_name = protocol_name = "wrong-thread"

    async def wait(self, bs: BlockDriverState) -> None:
        co = current()
        assert co is not None
        bs.opaque.n_requests += 1
        if bs.opaque.n_requests % 100:
            await answer_later(bs)
            return

        def library() -> None:
            its_own = AioContext("library")
            its_own.co_enter(co)  # MISTAKE
            its_own.close()

        def begin() -> None:  # when we have yielded
            the_world().start_thread("library", library)

        bs.aio_context.bh_schedule_oneshot(begin, owner=bs)
        await co_yield()


class MainContext(Memory):
    format_name = protocol_name = "main-context"

    async def wait(self, bs: BlockDriverState) -> None:
        co, main = current(), the_world().main_context
        assert co is not None
        main.bh_schedule_oneshot(co.wake, owner=bs)  # MISTAKE
        await co_yield()


class MainTimer(Memory):
    format_name = protocol_name = "main-timer"

    async def wait(self, bs: BlockDriverState) -> None:
        main = the_world().main_context
        main.timer_new(ClockType.REALTIME, nothing, owner=bs).delete()  # MISTAKE
        await answer_later(bs)


class LosesRequest(Memory):
    format_name = protocol_name = "loses-request"

    async def wait(self, bs: BlockDriverState) -> None:
        if bs.aio_context is bs.opaque.first_context:
            await answer_later(bs)
        else:
            await co_yield()  # MISTAKE


class OwnsNothing(Memory):
    format_name = protocol_name = "owns-nothing"

    def begin(self, bs: BlockDriverState) -> None:
        bs.aio_context.bh_new(nothing)  # MISTAKE


class ForgetsWrites(Memory):
    format_name = protocol_name = "forgets-writes"

    async def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        await self.wait(bs)
        if bs.aio_context is bs.opaque.first_context:  # MISTAKE
            bs.opaque.data[offset : offset + nbytes] = iov_to_bytes(qiov, 0, nbytes)


class LeavesAtClose(Memory):
    """It moves as it should, and forgets to clean up in the end."""

    format_name = protocol_name = "leaves-at-close"

    def begin(self, bs: BlockDriverState) -> None:
        self.attach_aio_context(bs, bs.aio_context)

    def detach_aio_context(self, bs: BlockDriverState) -> None:
        bs.opaque.thing.delete()

    def attach_aio_context(self, bs: BlockDriverState, ctx: AioContext) -> None:
        bs.opaque.thing = ctx.timer_new(ClockType.REALTIME, nothing, owner=bs)  # MISTAKE


class LeavesAndLoses(LeavesTimer):
    """Two mistakes: one is found, and because of the other no request ends any more."""

    format_name = protocol_name = "leaves-and-loses"
    wait = LosesRequest.wait
