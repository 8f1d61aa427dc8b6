# SPDX-License-Identifier: GPL-2.0-only
"""Signals: an exception while the machine is being made, an event of the main loop afterwards; for
the tools, the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from block.aio.context import AioContext
from miniqemu.cli.signals import Signals, Terminated, end_by_ctrl_c

ROOT = Path(__file__).parents[3]
ASKED = """
import os, signal, sys
from miniqemu.cli.{0} import main as tool
tool.main = lambda argv: os.kill(os.getpid(), signal.SIGUSR1) or 3
tool.console()
"""
INTERRUPTED = """
import os, signal
from miniqemu.cli.signals import CtrlC, end_by_ctrl_c
end_by_ctrl_c()
with_bar = CtrlC(lambda: print("put back", flush=True))
os.kill(os.getpid(), signal.SIGINT)
print("not reached", flush=True)
"""


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


def started(*arguments: str) -> subprocess.Popen[str]:
    """A program that hears Ctrl-C, whoever started the tests."""
    return subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=ROOT, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def test_ctrl_c_ends_a_tool_without_a_word() -> None:
    endless = ["bench", "-c", str(1 << 30), "--image-opts", "driver=null-co"]
    with started("bin/miniqemu-img", *endless) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Sending")
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "")
        assert process.returncode == -signal.SIGINT


def test_what_a_tool_changed_is_put_back_before_ctrl_c_ends_it() -> None:
    with started("-c", INTERRUPTED) as process:
        assert process.communicate(timeout=60) == ("put back\n", "")
        assert process.returncode == -signal.SIGINT


def test_who_starts_it_with_ctrl_c_switched_off_has_it_switched_off() -> None:
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        end_by_ctrl_c()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, old)


@pytest.mark.parametrize("tool", ["img", "io"])
def test_a_tool_that_cannot_tell_how_far_it_is_goes_on(tool: str) -> None:
    command = [sys.executable, "-c", ASKED.format(tool)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
