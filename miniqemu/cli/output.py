# SPDX-License-Identifier: GPL-2.0-only
"""What every program of ours needs to talk, and to stop: its own name, lines that arrive whole,
and an end that takes no time."""

from __future__ import annotations

import os
import sys

from block.core import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

STDOUT, STDERR = 1, 2


def program_name(path: str, default: str = "miniqemu") -> str:
    """How messages begin: what the program was called as."""
    name = os.path.basename(path)
    return default if name == "__main__.py" else name


def nobody_reads() -> None:
    """From here on standard output goes nowhere: its reader is gone. (Python would complain once
    more at its end.)"""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, STDOUT)
    os.close(nowhere)


def lost(error: OSError) -> int:
    """Standard output cannot be written, and goes nowhere from here on; what became of it.

    0 where its reader has seen enough and is gone, as `head` does: the work goes on, as with QEMU's
    tools. 1 for all else, such as a full disk: the person is told. QEMU's say nothing there.
    """
    nobody_reads()
    if isinstance(error, BrokenPipeError):
        return 0
    write(STDERR, report.prefixed(f"standard output: {error.strerror}\n"))
    return 1


def write(fd: int, text: str) -> int:
    """Writes it all, also to a descriptor that somebody made non-blocking; 0, or 1 where it is
    lost."""
    data = text.encode(errors="surrogateescape")
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            os.set_blocking(fd, True)
        except OSError as error:
            return lost(error) if fd == STDOUT else 1
    return 0


def leave(status: int) -> NoReturn:
    """Ends the process. All images are closed by now; what Python would still do is to take itself
    apart, object by object. The kernel takes all at once, which saves 6 ms of 40."""
    try:
        sys.stdout.flush()
    except OSError:
        sys.exit(status)  # Python knows what to say
    os._exit(status)
