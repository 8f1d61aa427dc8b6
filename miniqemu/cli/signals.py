# SPDX-License-Identifier: GPL-2.0-only
"""Signals that end the program, or wake it after a stop (QEMU: os-posix.c, runstate.c).

A handler that Python runs may come between any two instructions of the main thread, so while
the machine runs it does nothing. The interpreter's C handler has already written the signal's
number into a pipe; the main loop reads it there and acts at a safe place. This also wakes a
main loop that is about to sleep, and works when another thread got the signal.

Before the machine runs there is no loop that could act: the handler raises `Terminated`.

The tools have nothing to end in order: they die of Ctrl-C, and at worst an image has leaks.
"""

from __future__ import annotations

import os

from block.lean import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.aio.context import AioContext

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_by_ctrl_c() -> None:
    """Lets Ctrl-C end the process at once, as it ends QEMU's tools: by the signal, with no word
    from Python. Whoever started it with the signal ignored has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def ignore_usr1() -> None:
    """Lets no tool die of being asked how far it is: commands that tell it take the signal for
    themselves (miniqemu/cli/img/progress.py), QEMU's others have it blocked."""
    if signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


class CtrlC:
    """Lets Ctrl-C call `clean_up` before it ends the process, until `close`.

    Where the signal does something else, for whoever called us inside of another program, it
    goes on doing that.
    """

    def __init__(self, clean_up: Callable[[], object]) -> None:
        self.clean_up = clean_up
        self.old = signal.getsignal(signal.SIGINT)
        if self.old == signal.SIG_DFL:
            signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        self.clean_up()
        self.close()
        signal.raise_signal(number)

    def close(self) -> None:
        """Puts back what was there."""
        signal.signal(signal.SIGINT, self.old)


class Terminated(BaseException):
    """A signal ended the program before the machine ran."""

    def __init__(self, number: int) -> None:
        self.number = number


class Signals:
    """Takes the signals over, until `close`."""

    def __init__(self, ctx: AioContext) -> None:
        self.ctx = ctx
        self.on_end: Callable[[int], None] | None = None
        self.on_continue: Callable[[], None] | None = None
        self.pipe_in, self.pipe_out = os.pipe()
        for fd in (self.pipe_in, self.pipe_out):
            os.set_blocking(fd, False)
        self.old_wakeup = signal.set_wakeup_fd(self.pipe_out, warn_on_full_buffer=False)
        self.old = {
            number: signal.signal(number, self._handle) for number in (*ENDING, signal.SIGCONT)
        }
        ctx.set_fd_handler(self.pipe_in, self.receive, None, owner=self)

    def _handle(self, number: int, frame: object) -> None:
        if self.on_end is None and number in ENDING:
            raise Terminated(number)

    def receive(self) -> None:
        """Acts on the signals that have come. In the main loop."""
        try:
            numbers = os.read(self.pipe_in, 512)
        except BlockingIOError:
            return
        for number in numbers:
            if number in ENDING and self.on_end is not None:
                self.on_end(number)
            elif number == signal.SIGCONT and self.on_continue is not None:
                self.on_continue()

    def close(self) -> None:
        """Puts back what was there."""
        self.ctx.set_fd_handler(self.pipe_in, None, None, owner=self)
        signal.set_wakeup_fd(self.old_wakeup)
        for number, handler in self.old.items():
            signal.signal(number, handler)
        os.close(self.pipe_in)
        os.close(self.pipe_out)
