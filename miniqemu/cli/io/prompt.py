# SPDX-License-Identifier: GPL-2.0-only
"""Commands that are typed, or come from a pipe: prompt, line, command (qemu-io.c, command_loop).

R1  While nobody types, the main loop runs: asynchronous requests go on, and print. From the first
    key to the end of the line they wait, as with QEMU's.
R2  On a terminal the line can be edited, with a history; Tab completes the command's name.
R3  The terminal hands over each key as it is typed, and shows none, also while nobody reads a
    line: else it would keep what is typed before the editing begins, and its Ctrl-D would be lost.
R4  Where a terminal shows no keys, readline shows none either: it takes that for a password. So
    just before it begins, they are to be shown.
"""

from __future__ import annotations

import os
import termios

from block.core.wait import poll_while
from block.lean import partial
from miniqemu.cli.signals import CtrlC

from .commands import starting_with

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .session import Session

STDIN = 0
CHUNK = 4096
LFLAG = 3  # among the attributes that termios hands out


class Prompt:
    """A conversation on standard input."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.text = f"{session.program}> "
        self.terminal = os.isatty(STDIN)
        self.keys: list[Any] = []  # the terminal's attributes while lines are edited
        self.readable = False
        self.pending = b""
        self.ended = False

    def loop(self) -> bool:
        """Does line after line, up to quit or the end; False: one of them has failed."""
        if not (self.terminal and _enable_editing()):
            return self._loop()
        before = termios.tcgetattr(STDIN)
        self.keys = termios.tcgetattr(STDIN)
        self.keys[LFLAG] &= ~termios.ICANON
        self._show_keys(False)
        restore = partial(termios.tcsetattr, STDIN, termios.TCSANOW, before)
        ctrl_c = CtrlC(restore)
        try:
            return self._loop()
        finally:
            ctrl_c.close()
            restore()

    def _show_keys(self, shown: bool) -> None:
        """Whether the terminal shows what is typed (R3, R4)."""
        if self.keys:
            self.keys[LFLAG] &= ~termios.ECHO
            self.keys[LFLAG] |= termios.ECHO * shown
            termios.tcsetattr(STDIN, termios.TCSANOW, self.keys)

    def _loop(self) -> bool:
        fine = True
        while not self.session.over:
            self.session.put(self.text)
            self.session.flush()
            line = self._edited_line() if self.terminal else self._plain_line()
            if line is None:
                break
            fine = self.session.run(line) and fine
        return fine

    def _edited_line(self) -> str | None:
        """A line from the terminal; None at its end."""
        self._wait()
        self._show_keys(True)
        try:
            return input(f"\r{self.text}")
        except EOFError:
            self.session.say("")
            return None
        finally:
            self._show_keys(False)

    def _plain_line(self) -> str | None:
        """A line from a pipe or a file; the last one may lack its newline."""
        while b"\n" not in self.pending and not self.ended:
            self._wait()
            data = os.read(STDIN, CHUNK)
            self.pending += data
            self.ended = not data
        if not self.pending:
            return None
        line, _, self.pending = self.pending.partition(b"\n")
        return line.decode(errors="surrogateescape")

    def _wait(self) -> None:
        """Runs the main loop until there is something to read (R1)."""
        ctx = self.session.world.main_context
        self.readable = False
        ctx.set_fd_handler(STDIN, self._on_readable, None, owner=self)
        try:
            poll_while(ctx, lambda: not self.readable)
        finally:
            ctx.set_fd_handler(STDIN, None, None, owner=self)

    def _on_readable(self) -> None:
        self.readable = True


def _enable_editing() -> bool:
    """Lets input() edit lines (R2); False where Python has no module for it."""
    try:
        import readline
    except ImportError:
        return False
    readline.set_completer(_complete)
    readline.parse_and_bind("tab: complete")
    return True


def _complete(text: str, state: int) -> str | None:
    """The completion with a number, for the module readline."""
    return next((name for i, name in enumerate(starting_with(text)) if i == state), None)
