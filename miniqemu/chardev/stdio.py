# SPDX-License-Identifier: GPL-2.0-only
"""The terminal, or the pipes, that the program was started on (QEMU: char-stdio.c).

Standard input may be a terminal (made raw), a pipe, a file, /dev/null, or closed; the end of
input ends nothing. One of them in a program: two would take each other's keys.
"""

from __future__ import annotations

import atexit
import os
import sys

from .base import ChardevError
from .fd import FdChardev

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.context import AioContext

    from .terminal import Terminal

STDIN, STDOUT, STDERR = 0, 1, 2
STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def fill_standard_descriptors() -> None:
    """Opens /dev/null where one of the three is closed, before anything else takes its number:
    else the guest's keys would be read from an event loop's own descriptor. Python has no stream
    for such a one (sys.stdout is None then); it gets one, too."""
    for fd, (name, mode) in enumerate(STREAMS):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # open() takes the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(fd, mode, errors="surrogateescape", closefd=False))


class StdioChardev(FdChardev):
    """Standard input and output. `signals`: Ctrl-C ends the program, as without a terminal."""

    in_use: StdioChardev | None = None

    def __init__(self, ctx: AioContext, signals: bool, label: str = "serial0") -> None:
        if StdioChardev.in_use is not None:
            raise ChardevError("cannot use stdio by multiple character devices")
        super().__init__(ctx, STDIN, STDOUT, label)
        StdioChardev.in_use = self
        atexit.register(self.restore)
        self.terminal: Terminal | None = None
        if os.isatty(STDIN):
            from .terminal import take_over

            self.terminal = take_over(STDIN, signals)

    def resume(self) -> None:
        """The program goes on after a stop: the shell has changed the terminal meanwhile."""
        if self.terminal is not None and not self.closed:
            self.terminal.take()

    def restore(self) -> None:
        """Terminal and descriptors as they were found. Twice does no harm."""
        if self.terminal is not None:
            self.terminal.restore()
        self.release()

    def close(self) -> None:
        """Sends what is left, then restores everything."""
        if not self.closed:
            self.flush()
            super().close()
            self.restore()
            atexit.unregister(self.restore)
            StdioChardev.in_use = None
