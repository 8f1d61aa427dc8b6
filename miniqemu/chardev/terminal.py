# SPDX-License-Identifier: GPL-2.0-only
"""The terminal on standard input: raw while a guest has it, then as it was (QEMU: char-stdio.c).

R1  Whatever ends the program restores the terminal: `restore` is called by `close`, and by
    `atexit` where nobody called it (an exception, sys.exit anywhere).
R2  After Ctrl-Z and `fg` the shell has put its own settings in: SIGCONT makes it raw again.

Output stays processed (OPOST): a guest that sends "\\n" alone is still readable.
"""

from __future__ import annotations

import atexit
import termios

TYPE_CHECKING = False  # `typing` costs 3 ms of a start
if TYPE_CHECKING:
    from typing import Any

IFLAG, OFLAG, CFLAG, LFLAG, _ISPEED, _OSPEED, CC = range(7)
INPUT_OFF = (
    termios.IGNBRK
    | termios.BRKINT
    | termios.PARMRK
    | termios.ISTRIP
    | termios.INLCR
    | termios.IGNCR
    | termios.ICRNL
    | termios.IXON
)
LOCAL_OFF = termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN


class Terminal:
    """One terminal that we took over. `signals`: Ctrl-C and Ctrl-Z keep their meaning."""

    def __init__(self, fd: int, signals: bool) -> None:
        self.fd = fd
        self.saved = termios.tcgetattr(fd)
        self.raw = self._raw(signals)
        self.taken = False

    def _raw(self, signals: bool) -> list[Any]:
        attributes = termios.tcgetattr(self.fd)
        attributes[IFLAG] &= ~INPUT_OFF
        attributes[OFLAG] |= termios.OPOST
        attributes[CFLAG] = attributes[CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        attributes[LFLAG] &= ~(LOCAL_OFF if signals else LOCAL_OFF | termios.ISIG)
        attributes[CC][termios.VMIN] = 1
        attributes[CC][termios.VTIME] = 0
        return attributes

    def take(self) -> None:
        """Makes it raw; also again, after a stop (R2)."""
        if not self.taken:
            atexit.register(self.restore)
        self.taken = True
        self._set(self.raw)

    def restore(self) -> None:
        """Puts back what was there (term_exit). Twice does no harm."""
        if self.taken:
            self.taken = False
            self._set(self.saved)
            atexit.unregister(self.restore)

    def _set(self, attributes: list[Any]) -> None:
        try:
            termios.tcsetattr(self.fd, termios.TCSANOW, attributes)
        except termios.error:
            pass  # the terminal has been closed: nothing to restore


def take_over(fd: int, signals: bool) -> Terminal | None:
    """The raw terminal on `fd`, or None where there is no terminal."""
    try:
        terminal = Terminal(fd, signals)
    except termios.error:
        return None
    terminal.take()
    return terminal
