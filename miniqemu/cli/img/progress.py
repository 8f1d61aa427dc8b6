# SPDX-License-Identifier: GPL-2.0-only
"""How far a command is: QEMU's line, or a bar on a terminal (util/qemu-progress.c).

R1  With -p the line `    (12.34/100%)` is printed whenever `min_skip` percent are done. On a
    terminal, where the package `rich` is there, it is a bar instead.
R2  Without -p the line is printed once after each SIGUSR1, on standard error; with it the signal
    means nothing.
R3  A bar hides the cursor. It is shown again when the work ends, also by Ctrl-C.
"""

from __future__ import annotations

import os

from block.lean import signal
from miniqemu.cli.output import write
from miniqemu.cli.signals import CtrlC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


SHOW_CURSOR = "\x1b[?25h\n"


class Progress:
    """A context manager; call it with the percents that are done, first with 0."""

    def __init__(self, enabled: bool, min_skip: float, title: str = "") -> None:
        self.enabled = enabled
        self.min_skip = min_skip
        self.percent = 0.0
        self.printed = 0.0
        self.asked = False
        self.bar = _bar(title) if enabled and os.isatty(1) else None
        self.ctrl_c: CtrlC | None = None
        self.usr1 = signal.getsignal(signal.SIGUSR1)

    def __enter__(self) -> Progress:
        if not self.enabled:
            signal.signal(signal.SIGUSR1, self._on_signal)
        elif self.bar is not None:
            self.ctrl_c = CtrlC(lambda: write(1, SHOW_CURSOR))  # R3
            self.bar.start()
        return self

    def _on_signal(self, *_: object) -> None:
        self.asked = True

    def __call__(self, percent: float) -> None:
        """Tells how far the work is (qemu_progress_print)."""
        self.percent = min(percent, 100.0)
        moved = abs(self.percent - self.printed) > self.min_skip
        if moved or self.percent in (0, 100):
            self.printed = self.percent
            self._print()
        elif self.asked:
            self._print()

    def _print(self) -> None:
        line = f"    ({self.percent:3.2f}/100%)"
        if self.bar is not None:
            self.bar.update(0, completed=self.percent)
        elif self.enabled:
            write(1, f"{line}\r")
        elif self.asked:
            self.asked = False
            write(2, f"{line}\n")

    def __exit__(self, *exc: object) -> None:
        if not self.enabled:
            signal.signal(signal.SIGUSR1, self.usr1)
        elif self.bar is not None:
            self.bar.stop()
            if self.ctrl_c is not None:
                self.ctrl_c.close()
        else:
            write(1, "\n")


def _bar(title: str) -> Any:
    """A bar of `rich`, or None where that is missing."""
    try:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        return None
    bar = Progress(
        TextColumn(title),
        BarColumn(),
        TextColumn("{task.percentage:6.2f}%"),
        TimeRemainingColumn(),
    )
    bar.add_task(title, total=100)
    return bar
