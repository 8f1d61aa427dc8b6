# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's tests/test-thread-pool.c under its names, and the rules of thread_pool.py.

Where theirs let workers sleep for seconds, ours hold them at a gate.
"""

from __future__ import annotations

import errno
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from block.aio.context import AioContext
from block.aio.coroutine import Coroutine
from block.aio.thread_pool import MAX_THREADS, PoolRequest, ThreadPool


class WorkerData:
    """Counts calls, as WorkerTestData."""

    def __init__(self) -> None:
        self.n = 0
        self.ret = -errno.EINPROGRESS

    def work(self) -> int:
        self.n += 1
        return self.n - 1

    def done(self, ret: int) -> None:
        assert self.ret == -errno.EINPROGRESS
        self.ret = ret


class Gate:
    """Work that goes on when the test lets it."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.open = threading.Event()

    def work(self) -> int:
        self.begun.release()
        self.open.wait()
        return 0


@contextmanager
def all_workers_busy(ctx: AioContext) -> Iterator[Gate]:
    """Keeps as many workers at a gate as there may be."""
    pool = ctx.thread_pool
    gate = Gate()
    datas = [WorkerData() for _ in range(pool.max_threads)]
    for data in datas:
        pool.submit_aio(gate.work, data.done)
    for _ in datas:
        gate.begun.acquire()
    yield gate
    gate.open.set()
    wait_for(ctx, datas)


def wait_for(ctx: AioContext, datas: list[WorkerData]) -> None:
    while any(data.ret == -errno.EINPROGRESS for data in datas):
        ctx.poll(True)


def test_submit(ctx: AioContext) -> None:
    data = WorkerData()
    ctx.thread_pool.submit_aio(data.work)
    while ctx.registrations() and data.n == 0:
        ctx.poll(True)
    assert data.n == 1
    while any(entry.kind == "aio" for entry in ctx.registrations()):
        ctx.poll(True)


def test_submit_aio(ctx: AioContext) -> None:
    data = WorkerData()
    ctx.thread_pool.submit_aio(data.work, data.done)
    assert data.ret == -errno.EINPROGRESS  # never before we return (rule 4)
    wait_for(ctx, [data])
    assert (data.n, data.ret) == (1, 0)


def test_submit_co(ctx: AioContext) -> None:
    rets: list[int] = []

    async def co_test() -> None:
        rets.append(await ctx.thread_pool.submit_co(lambda: 7))

    Coroutine(co_test(), ctx=ctx).enter()
    assert rets == []
    while not rets:
        ctx.poll(True)
    assert rets == [7]


def test_submit_many(ctx: AioContext) -> None:
    datas = [WorkerData() for _ in range(100)]
    for data in datas:
        ctx.thread_pool.submit_aio(data.work, data.done)
    wait_for(ctx, datas)
    assert [(data.n, data.ret) for data in datas] == [(1, 0)] * 100


def test_cancel(ctx: AioContext) -> None:
    datas = [WorkerData() for _ in range(100)]
    requests: list[PoolRequest] = []
    with all_workers_busy(ctx):
        for data in datas:
            requests.append(ctx.thread_pool.submit_aio(data.work, data.done))
        for request in requests:
            request.cancel()
        wait_for(ctx, datas)
        assert [(data.n, data.ret) for data in datas] == [(0, -errno.ECANCELED)] * 100


def test_work_that_has_begun_is_not_cancelled(ctx: AioContext) -> None:
    data, gate = WorkerData(), Gate()
    request = ctx.thread_pool.submit_aio(gate.work, data.done)
    gate.begun.acquire()
    request.cancel()
    gate.open.set()
    wait_for(ctx, [data])
    assert data.ret == 0


def test_there_are_never_more_than_64_workers(ctx: AioContext) -> None:
    late = WorkerData()
    with all_workers_busy(ctx):
        ctx.thread_pool.submit_aio(late.work, late.done)
        assert ctx.thread_pool.n_threads == MAX_THREADS == 64
        assert late.n == 0
    wait_for(ctx, [late])
    assert late.ret == 0


@contextmanager
def all_processors_busy(ctx: AioContext, processors: int) -> Iterator[Gate]:
    """Keeps as many workers at a gate as may compute."""
    ctx.thread_pool.max_computing = processors
    gate = Gate()
    datas = [WorkerData() for _ in range(processors)]
    for data in datas:
        ctx.thread_pool.submit_aio(gate.work, data.done, computes=True)
    for _ in datas:
        gate.begun.acquire()
    yield gate
    gate.open.set()
    wait_for(ctx, datas)


def test_no_more_workers_compute_than_there_are_processors(ctx: AioContext) -> None:
    late = [WorkerData() for _ in range(5)]
    with all_processors_busy(ctx, 2):
        for data in late:
            ctx.thread_pool.submit_aio(data.work, data.done, computes=True)
        assert ctx.thread_pool.n_threads == 2
        other = WorkerData()
        ctx.thread_pool.submit_aio(other.work, other.done)
        wait_for(ctx, [other])  # a call that waits overtakes them
        assert [data.n for data in late] == [0] * 5
    wait_for(ctx, late)
    assert [data.ret for data in late] == [0] * 5
    assert ctx.thread_pool.n_threads == 3


def test_a_computation_that_has_not_begun_is_cancelled_and_the_next_one_begins(
    ctx: AioContext,
) -> None:
    datas = [WorkerData() for _ in range(3)]
    with all_processors_busy(ctx, 1):
        requests = [
            ctx.thread_pool.submit_aio(data.work, data.done, computes=True) for data in datas
        ]
        for request in requests[:2]:
            request.cancel()
        wait_for(ctx, datas[:2])
    wait_for(ctx, datas)
    assert [(data.n, data.ret) for data in datas] == [(0, -errno.ECANCELED)] * 2 + [(1, 0)]


def test_computations_that_end_make_room_for_as_many_others(ctx: AioContext) -> None:
    """What is counted in is counted out: however often, and whatever comes between."""
    ctx.thread_pool.max_computing = 2
    for _ in range(50):
        datas = [WorkerData() for _ in range(6)]
        for number, data in enumerate(datas):
            ctx.thread_pool.submit_aio(data.work, data.done, computes=number % 3 > 0)
        wait_for(ctx, datas)
    with all_processors_busy(ctx, 2):
        assert ctx.thread_pool._computing == 2
    assert ctx.thread_pool._computing == 0


def test_no_thread_is_started_before_there_is_work(ctx: AioContext) -> None:
    assert ctx.thread_pool.n_threads == 0


def test_an_idle_worker_is_used_again(ctx: AioContext) -> None:
    for _ in range(5):
        data = WorkerData()
        ctx.thread_pool.submit_aio(data.work, data.done)
        wait_for(ctx, [data])
        idle = ctx.thread_pool._idle
        while not idle:
            pass  # the worker is on its way to its gate
    assert ctx.thread_pool.n_threads == 1


def test_an_idle_worker_ends_when_its_time_is_up(ctx: AioContext) -> None:
    ctx.thread_pool.idle_seconds = 0.001
    data = WorkerData()
    ctx.thread_pool.submit_aio(data.work, data.done)
    threads = [worker.thread for worker in ctx.thread_pool._workers]
    wait_for(ctx, [data])
    for thread in threads:
        if thread is not None:
            thread.join()
    assert ctx.thread_pool.n_threads == 0
    again = WorkerData()
    ctx.thread_pool.submit_aio(again.work, again.done)
    wait_for(ctx, [again])


def test_an_oserror_arrives_as_a_negative_number(ctx: AioContext) -> None:
    def full() -> int:
        raise OSError(errno.ENOSPC, "no space")

    data = WorkerData()
    ctx.thread_pool.submit_aio(full, data.done)
    wait_for(ctx, [data])
    assert data.ret == -errno.ENOSPC


def test_a_mistake_in_the_work_is_raised_at_home(ctx: AioContext) -> None:
    ctx.thread_pool.submit_aio(lambda: 1 // 0)
    while not ctx.thread_pool._done:
        pass  # the worker does not need us
    with pytest.raises(ZeroDivisionError):
        ctx.poll(True)


def test_all_that_is_done_is_completed_in_one_pass(ctx: AioContext) -> None:
    datas = [WorkerData() for _ in range(10)]
    for data in datas:
        ctx.thread_pool.submit_aio(data.work, data.done)
    while len(ctx.thread_pool._done) < 10:
        pass  # the workers do not need us
    ctx.poll(False)
    assert [data.ret for data in datas] == [0] * 10


def test_a_nested_poll_in_a_callback_completes_the_others(ctx: AioContext) -> None:
    other = WorkerData()
    order: list[str] = []

    def first_done(ret: int) -> None:
        order.append("first begins")
        wait_for(ctx, [other])
        order.append("first ends")

    ctx.thread_pool.submit_aio(lambda: 0, first_done)
    ctx.thread_pool.submit_aio(other.work, other.done)
    while len(order) < 2:
        ctx.poll(True)
    assert other.ret == 0


def test_close_with_work_in_flight_is_an_error(ctx: AioContext) -> None:
    data = WorkerData()
    ctx.thread_pool.submit_aio(data.work, data.done)
    with pytest.raises(AssertionError, match="work in flight"):
        ctx.thread_pool.close()
    wait_for(ctx, [data])


def test_close_ends_all_threads(ctx: AioContext) -> None:
    before = threading.active_count()
    pool = ThreadPool(ctx)
    data = WorkerData()
    pool.submit_aio(data.work, data.done)
    wait_for(ctx, [data])
    pool.close()
    assert threading.active_count() == before


def test_the_workers_can_be_ended_and_new_work_starts_new_ones(ctx: AioContext) -> None:
    for _ in range(2):
        data = WorkerData()
        ctx.thread_pool.submit_aio(data.work, data.done)
        ctx.thread_pool.end_workers()
        assert ctx.thread_pool.n_threads == 0
        assert data.n == 1
        wait_for(ctx, [data])


def test_python_switches_threads_quickly_while_there_are_workers(ctx: AioContext) -> None:
    before = sys.getswitchinterval()
    data = WorkerData()
    ctx.thread_pool.submit_aio(data.work, data.done)
    assert sys.getswitchinterval() == pytest.approx(20e-6)
    wait_for(ctx, [data])
    ctx.close()
    assert sys.getswitchinterval() == before


def test_the_audit_shows_work_in_flight(ctx: AioContext) -> None:
    ctx.world.audit = True
    owner, gate, data = object(), Gate(), WorkerData()
    ctx.thread_pool.submit_aio(gate.work, data.done, owner=owner)
    (entry,) = ctx.registrations(owner)
    assert entry.kind == "aio"
    assert entry.where.startswith(__file__)
    gate.open.set()
    wait_for(ctx, [data])
    assert ctx.registrations(owner) == []


def test_an_idle_worker_keeps_nothing_of_its_last_request_alive(ctx: AioContext) -> None:
    """Its buffers may be windows into a guest's memory, which is to be unmapped."""
    data = WorkerData()
    opened = Gate()
    opened.open.set()
    request = ctx.thread_pool.submit_aio(opened.work, data.done)
    wait_for(ctx, [data])
    while not ctx.thread_pool._idle:
        pass  # the worker is on its way to its gate
    gone: list[weakref.ref[object]] = [weakref.ref(request), weakref.ref(opened)]
    del request, opened
    assert [reference() for reference in gone] == [None, None]
