# SPDX-License-Identifier: GPL-2.0-only
"""The prompt on a terminal: a line can be edited, the end of input ends the program."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from miniqemu.cli.io.commands import starting_with
from tests.support import needs

ROOT = Path(__file__).parents[4]
CTRL_A, CTRL_D, TAB = "\x01", "\x04", "\t"
PATIENCE_S = 60


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, disk: Path) -> None:
        self.side, self.other = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "bin/miniqemu-io"), "-f", "raw", str(disk)],
            stdin=self.other, stdout=self.other, stderr=self.other, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            env={**os.environ, "TERM": "dumb", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.side, text.encode())

    def read_until(self, text: str) -> str:
        """Reads on until a text has come, and returns what came before; what comes later is
        looked for behind it."""
        while text not in self.seen:
            ready, _, _ = select.select([self.side], [], [], PATIENCE_S)
            assert ready, f"no {text!r} in {self.seen!r}"
            self.seen += os.read(self.side, 4096).decode()
        before, _, self.seen = self.seen.partition(text)
        return before

    def interrupt(self) -> int:
        """Ctrl-C; again if it came in the moment before readline began to wait for a key, which
        Python notices only after the next one. The exit status."""
        while True:
            self.process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                return self.process.wait(0.2)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self.side)
        os.close(self.other)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    needs.module("readline", "test")
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    terminal = Terminal(disk)
    yield terminal
    terminal.close()


def test_a_line_can_be_edited(terminal: Terminal) -> None:
    terminal.read_until("miniqemu-io> ")
    terminal.type(f"ngth{CTRL_A}le\n")
    terminal.read_until("1 MiB")
    terminal.read_until("miniqemu-io> ")
    terminal.type(CTRL_D)
    assert terminal.process.wait(PATIENCE_S) == 0


def test_what_is_typed_is_shown_once(terminal: Terminal) -> None:
    terminal.read_until("miniqemu-io> ")
    terminal.type("length")
    assert terminal.read_until("length") == "\rminiqemu-io> "
    terminal.type("\n")
    assert terminal.read_until("1 MiB") == "\r\n"


def test_ctrl_c_ends_it_without_a_word_and_leaves_the_terminal_as_it_was(
    terminal: Terminal,
) -> None:
    before = termios.tcgetattr(terminal.other)
    terminal.read_until("miniqemu-io> ")
    terminal.type("le")
    terminal.read_until("le")
    assert terminal.interrupt() == -signal.SIGINT
    assert termios.tcgetattr(terminal.other) == before
    terminal.type("typed to nobody")
    assert terminal.read_until("typed to nobody") == ""


def test_a_name_can_be_completed(terminal: Terminal) -> None:
    terminal.read_until("miniqemu-io> ")
    terminal.type(f"le{TAB}\n")
    terminal.read_until("1 MiB")
    terminal.read_until("miniqemu-io> ")
    terminal.type("quit\n")
    assert terminal.process.wait(PATIENCE_S) == 0


def test_names_that_begin_so() -> None:
    assert list(starting_with("re")) == ["read", "readv", "remove_break", "reopen", "resume"]
    assert list(starting_with("x")) == []
