# SPDX-License-Identifier: GPL-2.0-only
"""A program on a terminal of its own, as a person would run it: type, read, look at the settings.

The terminal is a pty whose other end the test holds open, so its settings can be read before
and after the program's life.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import termios
import time
from typing import Any

PATIENCE = 30.0


class TerminalSession:
    """A running program whose standard input, output and errors are a new terminal."""

    def __init__(self, argv: list[str], **popen: Any) -> None:
        self.master, self.slave = pty.openpty()
        self.before = self.settings()
        self.text = ""
        self.process = subprocess.Popen(
            argv,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
            **popen,
        )

    def settings(self) -> list[Any]:
        """What `stty -a` would show, and whether reads would block."""
        return [*termios.tcgetattr(self.slave), os.get_blocking(self.slave)]

    def restore(self) -> None:
        """Puts the first settings back, as a shell does when a job stops."""
        termios.tcsetattr(self.slave, termios.TCSANOW, self.before[:-1])

    def type(self, keys: str) -> None:
        """Presses keys."""
        os.write(self.master, keys.encode())

    def expect(self, text: str) -> str:
        """Reads until `text` has appeared; returns all that came since the last time."""
        end = time.monotonic() + PATIENCE
        while text not in self.text:
            left = end - time.monotonic()
            assert left > 0, f"{text!r} did not appear; there was {self.text!r}"
            if select.select([self.master], [], [], min(left, 0.2))[0]:
                self.text += os.read(self.master, 65536).decode(errors="replace")
            elif self.process.poll() is not None:
                raise AssertionError(f"ended without {text!r}; there was {self.text!r}")
        seen, self.text = self.text, ""
        return seen

    def wait(self) -> int:
        """The program's exit status; reads what it says meanwhile into `text`."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < end:
            self._read(0.02)
        while self._read(0):
            pass
        return self.process.wait(timeout=1)

    def _read(self, patience: float) -> bool:
        if not select.select([self.master], [], [], patience)[0]:
            return False
        self.text += os.read(self.master, 65536).decode(errors="replace")
        return True

    def close(self) -> None:
        """Ends whatever still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for fd in (self.master, self.slave):
            with contextlib.suppress(OSError):
                os.close(fd)

    def __enter__(self) -> TerminalSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
