# SPDX-License-Identifier: GPL-2.0-only
"""Signals: an exception while the machine is being made, an event of the main loop afterwards."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from block.aio.context import AioContext
from miniqemu.cli.signals import Signals, Terminated


@pytest.fixture
def signals(ctx: AioContext) -> Iterator[Signals]:
    signals = Signals(ctx)
    yield signals
    signals.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_before_the_machine_runs_a_signal_is_an_exception(
    signals: Signals, number: signal.Signals
) -> None:
    with pytest.raises(Terminated) as caught:
        os.kill(os.getpid(), number)
    assert caught.value.number == number


def test_while_it_runs_the_main_loop_hears_of_it(signals: Signals, ctx: AioContext) -> None:
    heard: list[tuple[int, int]] = []
    signals.on_end = lambda number: heard.append((number, threading.get_ident()))
    os.kill(os.getpid(), signal.SIGTERM)
    assert heard == []
    while not heard:
        ctx.poll(True)
    assert heard == [(signal.SIGTERM, threading.get_ident())]


def test_a_signal_wakes_a_loop_that_sleeps(signals: Signals, ctx: AioContext) -> None:
    heard: list[int] = []
    signals.on_end = heard.append
    thread = threading.Thread(target=lambda: os.kill(os.getpid(), signal.SIGINT))
    thread.start()
    while not heard:
        ctx.poll(True)
    thread.join()
    assert heard == [signal.SIGINT]


def test_a_continued_program_is_told(signals: Signals, ctx: AioContext) -> None:
    told: list[bool] = []
    signals.on_continue = lambda: told.append(True)
    os.kill(os.getpid(), signal.SIGCONT)
    while not told:
        ctx.poll(True)


def test_close_puts_the_old_handlers_back(ctx: AioContext) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    Signals(ctx).close()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1
