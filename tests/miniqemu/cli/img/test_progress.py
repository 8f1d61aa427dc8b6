# SPDX-License-Identifier: GPL-2.0-only
"""How far a command is: QEMU's line, a bar on a terminal, or one line for a signal."""

from __future__ import annotations

import os
import signal

import pytest

from miniqemu.cli.img import progress
from miniqemu.cli.img.progress import Progress
from tests.support import needs


def test_the_line_is_printed_for_every_step_and_for_the_end(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with Progress(True, 2.0) as tell:
        for percent in (0, 1, 2, 3, 4, 6, 100):
            tell(percent)
    said = capfd.readouterr()
    assert said.out == "".join(f"    ({percent:.2f}/100%)\r" for percent in (0, 3, 6, 100)) + "\n"
    assert said.err == ""


def test_who_did_not_ask_hears_nothing_before_a_signal(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with Progress(False, 1.0) as tell:
        tell(10)
        os.kill(os.getpid(), signal.SIGUSR1)
        tell(20)
        tell(30)
    assert capfd.readouterr() == ("", "    (20.00/100%)\n")
    assert signal.getsignal(signal.SIGUSR1) == before


def test_on_a_terminal_there_is_a_bar(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs.module("rich", "bench")
    monkeypatch.setattr(progress.os, "isatty", lambda fd: True)
    with Progress(True, 1.0, "convert") as tell:
        tell(50)
        assert tell.bar is not None
        assert tell.bar.tasks[0].completed == 50
        tell(100)
    said = capfd.readouterr().out
    assert "convert" in said
    assert "100.00%" in said
    assert "/100%" not in said.replace("100.00%", "")
