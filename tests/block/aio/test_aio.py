# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's tests/test-aio.c, the 14 cases with a context of its own, each under its name.

Where theirs sleep for a second, ours use virtual time. All others run with epoll and eventfd
and again without. Since 2015 a thread does not wake itself up for what it schedules, so where
the test of 2014 polls until poll(True) says "nothing", ours, as QEMU's own since then, polls until
the count is right. Two later cases of the same file are at the end.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from block.aio.bh import BH
from block.aio.context import AioContext
from block.aio.notifier import EventNotifier
from block.aio.timer import Timer
from block.aio.world import ClockType
from tests.support.virtual_world import VirtualWorld

MS = 1_000_000


class BHData:
    """A bottom half that schedules itself until it has run `max` times (BHTestData)."""

    def __init__(self, ctx: AioContext, max: int = 0, delete: bool = False) -> None:
        self.n = 0
        self.max = max
        self.delete = delete
        self.bh: BH | None = ctx.bh_new(self.callback)

    def callback(self) -> None:
        assert self.bh is not None
        self.n += 1
        if self.n < self.max:
            self.bh.schedule()
        elif self.delete:
            self.bh.delete()
            self.bh = None


class NotifierData:
    """A notifier that counts, and sets itself again while active (EventNotifierTestData)."""

    def __init__(
        self,
        ctx: AioContext,
        active: int = 0,
        auto_set: bool = False,
        is_external: bool = False,
    ) -> None:
        self.ctx = ctx
        self.n = 0
        self.active = active
        self.auto_set = auto_set
        self.e = ctx.world.new_notifier()
        ctx.set_event_notifier(self.e, self.ready, is_external=is_external)

    def ready(self, e: EventNotifier) -> None:
        assert e is self.e
        assert e.test_and_clear()
        self.n += 1
        if self.active > 0:
            self.active -= 1
        if self.auto_set and self.active:
            e.set()

    def remove(self) -> None:
        self.ctx.set_event_notifier(self.e, None)


class TimerData:
    """A timer that arms itself again until it has fired `max` times (TimerTestData)."""

    def __init__(self, ctx: AioContext, ns: int, max: int, clock: ClockType) -> None:
        self.n = 0
        self.ns = ns
        self.max = max
        self.ctx = ctx
        self.timer: Timer = ctx.timer_new(clock, self.callback)

    def arm(self) -> None:
        self.timer.mod(self.ctx.clock_ns(self.timer.clock) + self.ns)

    def callback(self) -> None:
        self.n += 1
        if self.n < self.max:
            self.arm()


@contextmanager
def a_silent_pipe(ctx: AioContext) -> Iterator[None]:
    """Gives the context a descriptor to wait for on which nothing ever comes."""
    read_end, write_end = os.pipe()
    ctx.set_fd_handler(read_end, lambda: None, None)
    yield
    ctx.set_fd_handler(read_end, None, None)
    os.close(read_end)
    os.close(write_end)


def wait_until_inactive(ctx: AioContext, data: NotifierData) -> None:
    while data.active > 0:
        ctx.poll(True)


def test_notify(ctx: AioContext) -> None:
    assert not ctx.poll(False)
    ctx.notify()
    assert not ctx.poll(True)
    assert not ctx.poll(False)


def test_acquire(ctx: AioContext) -> None:
    acquired: list[bool] = []

    def take_it() -> None:
        start.acquire()
        ctx.acquire()
        ctx.release()
        acquired.append(True)

    def never(e: EventNotifier) -> None:
        raise AssertionError("should never be called")

    notifier = ctx.world.new_notifier()
    ctx.set_event_notifier(notifier, never)
    assert not ctx.poll(False)
    start = threading.Lock()
    start.acquire()
    thread = threading.Thread(target=take_it)
    thread.start()

    ctx.acquire()
    start.release()
    assert not ctx.poll(True)  # the other thread kicks us out of the wait
    ctx.release()

    thread.join()
    ctx.set_event_notifier(notifier, None)
    notifier.close()
    assert acquired


def test_bh_schedule(ctx: AioContext) -> None:
    data = BHData(ctx)
    assert data.bh is not None
    data.bh.schedule()
    assert data.n == 0
    assert ctx.poll(True)
    assert data.n == 1
    assert not ctx.poll(False)
    assert data.n == 1
    data.bh.delete()


def test_bh_schedule10(ctx: AioContext) -> None:
    data = BHData(ctx, max=10)
    assert data.bh is not None
    data.bh.schedule()
    assert data.n == 0
    assert ctx.poll(False)
    assert data.n == 1
    assert ctx.poll(True)
    assert data.n == 2
    while data.n < 10:
        ctx.poll(True)
    assert not ctx.poll(False)
    assert data.n == 10
    data.bh.delete()


def test_bh_cancel(ctx: AioContext) -> None:
    data = BHData(ctx)
    assert data.bh is not None
    data.bh.schedule()
    assert data.n == 0
    data.bh.cancel()
    assert data.n == 0
    assert not ctx.poll(False)
    assert data.n == 0
    data.bh.delete()


def test_bh_delete(ctx: AioContext) -> None:
    data = BHData(ctx)
    assert data.bh is not None
    data.bh.schedule()
    assert data.n == 0
    data.bh.delete()
    assert data.n == 0
    assert not ctx.poll(False)
    assert data.n == 0


def test_bh_delete_from_cb(ctx: AioContext) -> None:
    data = BHData(ctx, max=1, delete=True)
    assert data.bh is not None
    data.bh.schedule()
    assert data.n == 0
    assert ctx.poll(True)
    assert data.n == data.max
    assert data.bh is None
    assert not ctx.poll(False)


def test_bh_delete_from_cb_many(ctx: AioContext) -> None:
    datas = [BHData(ctx, max=n, delete=True) for n in (1, 3, 2, 4)]
    for data in datas:
        assert data.bh is not None
        data.bh.schedule()
    assert [data.n for data in datas] == [0, 0, 0, 0]
    assert ctx.poll(False)
    assert [data.n for data in datas] == [1, 1, 1, 1]
    assert datas[0].bh is None
    while ctx.poll(False):
        pass
    assert [data.n for data in datas] == [1, 3, 2, 4]
    assert [data.bh for data in datas] == [None] * 4


def test_bh_flush(ctx: AioContext) -> None:
    data = BHData(ctx)
    assert data.bh is not None
    data.bh.schedule()
    assert data.n == 0
    assert ctx.poll(True)
    assert data.n == 1
    assert not ctx.poll(False)
    assert data.n == 1
    data.bh.delete()


def test_set_event_notifier(ctx: AioContext) -> None:
    data = NotifierData(ctx)
    assert not ctx.poll(False)
    assert data.n == 0
    data.remove()
    assert not ctx.poll(False)
    assert data.n == 0
    data.e.close()


def test_wait_event_notifier(ctx: AioContext) -> None:
    data = NotifierData(ctx, active=1)
    assert not ctx.poll(False)
    assert (data.n, data.active) == (0, 1)
    data.e.set()
    assert ctx.poll(False)
    assert (data.n, data.active) == (1, 0)
    assert not ctx.poll(False)
    assert (data.n, data.active) == (1, 0)
    data.remove()
    assert not ctx.poll(False)
    assert data.n == 1
    data.e.close()


def test_flush_event_notifier(ctx: AioContext) -> None:
    data = NotifierData(ctx, active=10, auto_set=True)
    assert not ctx.poll(False)
    assert (data.n, data.active) == (0, 10)
    data.e.set()
    assert ctx.poll(False)
    assert (data.n, data.active) == (1, 9)
    assert ctx.poll(False)
    wait_until_inactive(ctx, data)
    assert (data.n, data.active) == (10, 0)
    assert not ctx.poll(False)
    data.remove()
    assert not ctx.poll(False)
    data.e.close()


def test_wait_event_notifier_noflush(ctx: AioContext) -> None:
    data = NotifierData(ctx)
    assert not ctx.poll(False)
    assert data.n == 0
    data.e.set()
    assert ctx.poll(True)
    data.n = 0

    dummy = NotifierData(ctx, active=1)
    for n in (1, 2):
        data.e.set()
        assert ctx.poll(False)
        assert data.n == n
        assert not ctx.poll(False)
        assert data.n == n

    dummy.e.set()
    wait_until_inactive(ctx, dummy)
    assert (data.n, dummy.n, dummy.active) == (2, 1, 0)
    dummy.remove()
    dummy.e.close()
    data.remove()
    assert not ctx.poll(False)
    assert data.n == 2
    data.e.close()


def test_timer_schedule(virtual_ctx: AioContext, virtual_world: VirtualWorld) -> None:
    ctx = virtual_ctx
    data = TimerData(ctx, ns=750 * MS, max=2, clock=ClockType.VIRTUAL)
    with a_silent_pipe(ctx):
        data.arm()
        assert not ctx.poll(False)
        assert data.n == 0

        virtual_world.advance(1000 * MS)
        assert data.n == 0
        assert ctx.poll(False)
        assert data.n == 1

        assert not ctx.poll(False)  # the callback has armed it again
        assert data.n == 1
        assert ctx.poll(True)
        assert data.n == 2
        assert not ctx.poll(False)
        assert data.n == 2
    data.timer.delete()


def test_aio_external_client(ctx: AioContext) -> None:
    for n_disabled in (1, 2, 3):
        data = NotifierData(ctx, active=1, is_external=True)
        data.e.set()
        for _ in range(n_disabled):
            ctx.disable_external()
        for _ in range(n_disabled):
            assert not ctx.poll(False)
            assert data.n == 0
            ctx.enable_external()
        assert ctx.poll(False)
        assert data.n == 1
        data.remove()
        data.e.close()


def test_queue_chaining(ctx: AioContext) -> None:
    """A nested poll runs what the outer one has left, then what it finds itself."""
    ran: list[str] = []
    oneshot = ctx.bh_schedule_oneshot

    def outer() -> None:
        ran.append("outer")
        oneshot(lambda: ran.append("scheduled by outer"))
        assert ctx.poll(False)
        assert ran == ["outer", "left by outer", "scheduled by outer"]

    oneshot(outer)
    oneshot(lambda: ran.append("left by outer"))
    assert ctx.poll(False)
    assert not ctx.poll(False)
