# SPDX-License-Identifier: GPL-2.0-only
"""The event loop against asyncio, with uvloop's figures beside it, all in one process.

Each comparison does the same work with the same callbacks in both loops:

* persistent: a batch of 1,000 callbacks is scheduled and run. Ours are bottom halves that
  were made once, theirs is `call_soon`, which makes a handle each time.
* one-shot: the same with bh_schedule_oneshot.
* descriptor: a handler reads an eventfd and sets it again; one round trip is one wait.
* timers: 1,000 timers are armed, all become due (that time is not counted), all fire.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Callable, Coroutine

from benchmarks.harness import Case, Missing, Other
from block.aio.context import AioContext
from block.aio.world import ClockType

BATCH = 1000
TIMER_DELAY_NS = 3_000_000
Driver = Callable[[int], Coroutine[None, None, float]]


def cases(quick: bool) -> list[Case]:
    """Returns the four comparisons."""
    scale = 1 if quick else 6
    return [
        _case("persistent BHs, batches of 1,000", ours_persistent, call_soon, 50 * scale, 3.0),
        _case("one-shot BHs, batches of 1,000", ours_oneshot, call_soon, 50 * scale, 1.5),
        _case("eventfd round trips", ours_descriptor, add_reader, 5_000 * scale, 1.5),
        _case("1,000 timers, armed and fired", ours_timers, call_later, 15 * scale, 2.0),
    ]


def _case(name: str, ours: Callable[[int], float], theirs: Driver, n: int, goal: float) -> Case:
    return Case(
        name=name,
        unit="million/s",
        better="higher",
        ours=functools.partial(ours, n),
        others=(
            Other("asyncio", functools.partial(run_asyncio, theirs, n), goal),
            Other("uvloop", functools.partial(run_uvloop, theirs, n)),
        ),
    )


def run_asyncio(driver: Driver, n: int) -> float:
    """Measures a driver in asyncio's own loop."""
    return asyncio.run(driver(n))


def run_uvloop(driver: Driver, n: int) -> float:
    """Measures a driver in uvloop."""
    try:
        import uvloop
    except ImportError:
        raise Missing("uvloop: pip install uvloop") from None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(driver(n))


def callback() -> None:
    """Is what both loops call."""


def million_per_s(n: int, ns: int) -> float:
    return n * 1e3 / ns


def ours_persistent(n: int) -> float:
    """Schedules and runs n batches of bottom halves."""
    ctx = AioContext("bench")
    bhs = [ctx.bh_new(callback) for _ in range(BATCH)]
    start = time.perf_counter_ns()
    for _ in range(n):
        for bh in bhs:
            bh.schedule()
        ctx.poll(True)
    elapsed = time.perf_counter_ns() - start
    ctx.close()
    return million_per_s(n * BATCH, elapsed)


def ours_oneshot(n: int) -> float:
    """Schedules and runs n batches of one-shot bottom halves."""
    ctx = AioContext("bench")
    start = time.perf_counter_ns()
    for _ in range(n):
        for _ in range(BATCH):
            ctx.bh_schedule_oneshot(callback)
        ctx.poll(True)
    elapsed = time.perf_counter_ns() - start
    ctx.close()
    return million_per_s(n * BATCH, elapsed)


async def call_soon(n: int) -> float:
    """Schedules and runs n batches by call_soon."""
    loop = asyncio.get_running_loop()
    start = time.perf_counter_ns()
    for _ in range(n):
        for _ in range(BATCH):
            loop.call_soon(callback)
        await asyncio.sleep(0)
    return million_per_s(n * BATCH, time.perf_counter_ns() - start)


class Echo:
    """Reads an eventfd and sets it again, `left` times."""

    def __init__(self, left: int, at_end: Callable[[], None] = callback) -> None:
        self.fd = os.eventfd(1, os.EFD_NONBLOCK)
        self.left = left
        self.at_end = at_end

    def on_read(self) -> None:
        os.eventfd_read(self.fd)
        self.left -= 1
        if self.left:
            os.eventfd_write(self.fd, 1)
        else:
            self.at_end()


def ours_descriptor(n: int) -> float:
    """Makes n round trips over an eventfd."""
    ctx = AioContext("bench")
    echo = Echo(n)
    ctx.set_fd_handler(echo.fd, echo.on_read, None)
    start = time.perf_counter_ns()
    while echo.left:
        ctx.poll(True)
    elapsed = time.perf_counter_ns() - start
    ctx.close()
    os.close(echo.fd)
    return million_per_s(n, elapsed)


async def add_reader(n: int) -> float:
    """Makes n round trips over an eventfd."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    echo = Echo(n, lambda: done.set_result(None))
    start = time.perf_counter_ns()
    loop.add_reader(echo.fd, echo.on_read)
    await done
    elapsed = time.perf_counter_ns() - start
    loop.remove_reader(echo.fd)
    os.close(echo.fd)
    return million_per_s(n, elapsed)


class Countdown:
    """Counts timers down, in batches of BATCH."""

    def __init__(self) -> None:
        self.left = 0
        self.at_end = callback

    def fire(self) -> None:
        self.left -= 1
        if not self.left:
            self.at_end()


def ours_timers(n: int) -> float:
    """Arms and fires n batches of timers."""
    ctx = AioContext("bench")
    countdown = Countdown()
    timers = [ctx.timer_new(ClockType.REALTIME, countdown.fire) for _ in range(BATCH)]
    elapsed = 0
    for _ in range(n):
        countdown.left = BATCH
        start = time.perf_counter_ns()
        now = ctx.clock_ns(ClockType.REALTIME)
        for timer in timers:
            timer.mod(now + TIMER_DELAY_NS)
        elapsed += time.perf_counter_ns() - start
        time.sleep(TIMER_DELAY_NS * 1e-9)
        start = time.perf_counter_ns()
        while countdown.left:
            ctx.poll(True)
        elapsed += time.perf_counter_ns() - start
    ctx.close()
    return million_per_s(n * BATCH, elapsed)


async def call_later(n: int) -> float:
    """Arms and fires n batches of timers."""
    loop = asyncio.get_running_loop()
    countdown = Countdown()
    elapsed = 0
    for _ in range(n):
        countdown.left = BATCH
        done = loop.create_future()
        countdown.at_end = functools.partial(done.set_result, None)
        start = time.perf_counter_ns()
        now = loop.time()
        for _ in range(BATCH):
            loop.call_at(now + TIMER_DELAY_NS * 1e-9, countdown.fire)
        elapsed += time.perf_counter_ns() - start
        time.sleep(TIMER_DELAY_NS * 1e-9)
        start = time.perf_counter_ns()
        await done
        elapsed += time.perf_counter_ns() - start
    return million_per_s(n * BATCH, elapsed)
