# SPDX-License-Identifier: GPL-2.0-only
"""A gate at which one worker thread waits for work.

    worker   gate.wait()      sleeps until somebody has opened it; it is closed behind the worker
    home     gate.open()      lets the worker through, now or when it comes

R1  One thread waits. Opening it twice before the worker has come is opening it once.
R2  Whoever closes it (`close`) has ended the worker before.

Discussion: a bare lock does the same, but its release is a call that keeps the interpreter's lock.
The worker wakes up, on the same processor at once, and finds the interpreter taken by
whoever woke it: ten calls of futex(2) for one 4 KiB write, counted by strace. A write to
an eventfd is made without the interpreter's lock, so the worker finds it free: no futex at all.
"""

from __future__ import annotations

import os


class Gate:
    """A gate made of an eventfd."""

    __slots__ = ("_fd",)

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC)

    def open(self) -> None:
        """Lets the worker through; any thread."""
        os.eventfd_write(self._fd, 1)

    def wait(self) -> None:
        """Sleeps until the gate is open, and closes it; the worker."""
        os.eventfd_read(self._fd)

    def close(self) -> None:
        """Gives the descriptor back (R2)."""
        os.close(self._fd)


class PipeGate(Gate):
    """The same by a pipe, where the system has no eventfd."""

    __slots__ = ("_write_fd",)

    def __init__(self) -> None:
        self._fd, self._write_fd = os.pipe()

    def open(self) -> None:
        os.write(self._write_fd, b"\1")

    def wait(self) -> None:
        os.read(self._fd, 512)

    def close(self) -> None:
        super().close()
        os.close(self._write_fd)
