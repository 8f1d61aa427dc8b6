# SPDX-License-Identifier: GPL-2.0-only
"""`pytest --portable`: this machine, as if its system were not Linux.

What only Linux has is taken out of Python's own modules, before the tests are collected, so
that the block layer finds out by itself what is missing and falls back:

    without                     instead
    epoll                       poll
    eventfd                     a pipe
    RWF_NOWAIT                  each read goes to a worker thread
    locks of open files (OFD)   no locks; POSIX locks where they are asked for
    Linux AIO, io_uring         refused by name; aio=threads serves
    binding to a processor      an ordinary worker thread

Tests of these things themselves bear the mark `linux` (tests/support/needs.py), and are left out.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
from types import ModuleType

ABSENT: dict[ModuleType, tuple[str, ...]] = {
    select: ("epoll",),
    os: (
        "eventfd",
        "eventfd_read",
        "eventfd_write",
        "RWF_NOWAIT",
        "sched_getaffinity",
        "sched_setaffinity",
    ),
    fcntl: ("F_OFD_GETLK", "F_OFD_SETLK", "F_OFD_SETLKW"),
}
ABSENT_PACKAGES = ("liburing",)


def leave_linux() -> None:
    """Takes away what only Linux has; for the rest of this process."""
    for module, names in ABSENT.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    for package in ABSENT_PACKAGES:
        sys.modules[package] = None  # type: ignore[assignment]  # so that an import fails
    from block.aio.world import set_world
    from tests.support.plain_world import PlainWorld

    set_world(PlainWorld())
