# SPDX-License-Identifier: GPL-2.0-only
"""How many threads this process has, those included that Python's `threading` does not know."""

from __future__ import annotations

import _thread
import threading
import time

from block.aio.world import the_world

PATIENCE = 5.0


def count() -> int:
    """Returns the number of threads besides the main one."""
    return _thread._count()


def count_without_idle() -> int:
    """Ends the main loop's workers, which earlier tests left idle; returns the number of threads.

    Left alone, they would end in the middle of a test that counts threads, and with them the
    time of quick switches (block/aio/switch_interval.py).
    """
    the_world().main_context.thread_pool.end_workers()
    return count_after_ends(0)


def count_after_ends(expected: int) -> int:
    """Waits for the last instructions of threads that were joined already; returns the number."""
    end = time.monotonic() + PATIENCE
    while count() > expected and time.monotonic() < end:
        threading.Event().wait(0.001)
    return count()
