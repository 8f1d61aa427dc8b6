# SPDX-License-Identifier: GPL-2.0-only
"""Standard input and output: raw while we have them, as they were whatever ends us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from block.aio.world import the_world
from miniqemu.chardev.base import ChardevError
from miniqemu.chardev.create import new_chardev
from tests.support.terminal import TerminalSession

ROOT = Path(__file__).parents[3]
ECHO = [sys.executable, str(Path(__file__).with_name("echo.py"))]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def on_terminal(spec: str, how: str = "return") -> TerminalSession:
    session = TerminalSession([*ECHO, spec, how], env=ENVIRONMENT)
    session.expect("ready")
    return session


def local_modes(session: TerminalSession) -> int:
    modes = session.settings()[3]
    assert isinstance(modes, int)
    return modes


@pytest.mark.parametrize("how", ["return", "exit", "raise"])
def test_the_terminal_is_raw_while_it_runs_and_as_before_afterwards(how: str) -> None:
    with on_terminal("stdio", how) as session:
        assert not local_modes(session) & (termios.ECHO | termios.ICANON)
        session.type("aq")
        session.wait()
        assert session.settings() == session.before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_the_terminal_as_before(number: signal.Signals) -> None:
    with on_terminal("stdio") as session:
        session.process.send_signal(number)
        assert session.wait() == 0
        assert session.settings() == session.before


def test_ctrl_c_ends_a_plain_stdio_and_is_a_key_for_a_mux() -> None:
    with on_terminal("stdio") as session:
        assert local_modes(session) & termios.ISIG
    with on_terminal("mon:stdio") as session:
        assert not local_modes(session) & termios.ISIG
        session.type("\x03")
        session.expect("<3>")


def test_after_a_stop_the_terminal_is_made_raw_again() -> None:
    with on_terminal("stdio") as session:
        session.process.send_signal(signal.SIGSTOP)
        os.waitpid(session.process.pid, os.WUNTRACED)
        termios.tcsetattr(session.slave, termios.TCSANOW, session.before[:-1])
        session.process.send_signal(signal.SIGCONT)
        while local_modes(session) & termios.ICANON:
            assert session.process.poll() is None
        session.type("\r")  # cooked, this would arrive as a newline
        session.expect("<13>")
        assert not local_modes(session) & termios.ECHO


def test_the_escape_key_ends_a_mux_and_restores_the_terminal() -> None:
    with on_terminal("mon:stdio") as session:
        session.type("a\x01x")
        assert session.wait() == 0
        assert "<97>echo: Terminated" in session.text
        assert session.settings() == session.before


def run(spec: str, **popen: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]  # a test's keywords
        [*ECHO, spec, "return"], env=ENVIRONMENT, capture_output=True, timeout=30, **popen
    )


def test_input_may_be_a_pipe(tmp_path: Path) -> None:
    done = run("stdio", input=b"hiq")
    assert done.stdout == b"ready\n<104><105><113>"
    assert done.returncode == 0


def test_input_may_be_a_file(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_bytes(b"q")
    with keys.open("rb") as stdin:
        assert run("stdio", stdin=stdin).stdout == b"ready\n<113>"


@pytest.mark.parametrize("how_closed", ["</dev/null", "<&-", "<&- >&-"])
def test_the_end_of_input_or_none_at_all_ends_nothing(how_closed: str) -> None:
    command = f'exec "{ECHO[0]}" "{ECHO[1]}" stdio return {how_closed}'
    process = subprocess.Popen(
        ["sh", "-c", command], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    if ">&-" not in how_closed:
        assert process.stdout.readline() == b"ready\n"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.3)
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert errors == b"ended\n"
    assert process.returncode == 0


def test_only_one_line_can_have_stdio() -> None:
    ctx = the_world().main_context
    source, sink = os.pipe()
    keep = os.dup(0)
    os.dup2(source, 0)
    first = new_chardev("stdio", ctx, lambda: None, "test", 1)
    with pytest.raises(ChardevError, match="cannot use stdio by multiple character devices"):
        new_chardev("stdio", ctx, lambda: None, "test", 1)
    first.close()
    new_chardev("stdio", ctx, lambda: None, "test", 1).close()
    os.dup2(keep, 0)
    for fd in (keep, source, sink):
        os.close(fd)
