# SPDX-License-Identifier: GPL-2.0-only
"""Warnings to the person at the terminal (util/qemu-error.c).

R1  An error is raised, never reported here: whoever called decides. This is for what goes on
    in spite of a doubt.
R2  A program sets `program` to the name it was called by; the lines then begin with it, as QEMU's.
R3  A program that cannot go on where two copies differ sets `on_mismatch` to `die`
    (block/core/verify.py).
R4  A program for whoever exercises images by hand sets `on_line`: what a node tells then.
R5  Where standard error cannot be written, on a full disk or in a pipe that nobody reads, the work
    goes on: a warning that nobody hears is no error.

Called from any thread; one write per line.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

program = ""
"""The name that warnings begin with, '' for none."""

on_mismatch: Callable[[str], None] | None = None
"""What is done with the message when two copies differ, before the exception (R3)."""


on_line: Callable[[str], None] | None = None
"""What is done with a line from a node that is no warning (R4)."""


def tell(line: str) -> None:
    """Says what a node has done, where somebody wants to hear it; printf in QEMU's drivers."""
    if on_line is not None:
        on_line(line)


def prefixed(message: str) -> str:
    """The message behind the program's name, as a program says what was wrong (R2)."""
    return f"{program}: {message}" if program else message


def warn_report(message: str, where: str = "") -> None:
    """Prints 'program: where: warning: message' on standard error (warn_report).

    `where` is the option on the command line that gave rise to it.
    """
    prefix = "".join(f"{part}: " for part in (program, where) if part)
    to_stderr(f"{prefix}warning: {message}\n")


def to_stderr(lines: str) -> None:
    """Prints whole lines on standard error as they stand, or nowhere (R5)."""
    try:
        sys.stderr.write(lines)
        sys.stderr.flush()
    except OSError:
        pass


def die(message: str) -> None:
    """Prints a line as it stands and ends the process with status 1, from whatever thread.

    As C's exit: what was registered with atexit is done, other threads stop where they are.
    """
    import atexit

    to_stderr(f"{message}\n")
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1)
