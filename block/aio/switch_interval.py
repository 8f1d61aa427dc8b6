# SPDX-License-Identifier: GPL-2.0-only
"""How soon a thread that waits for the interpreter gets it.

Python lets a running thread go on for 5 ms before it makes room for another. A thread that comes
back from a blocking call, as IOThreads and workers do all the time, waits that long. So while any
of them live the interval is 20 µs: they wait 88 µs instead of 5 ms, and the rest loses at
most 5% throughput. This is about latency only; nothing here is made correct by it.

State that several threads write: the count, under `_lock`.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock

SHORT = 20e-6

_lock = allocate_lock()
_n_users = 0
_before = 0.0


def shorten_switch_interval() -> None:
    """Begins a time of quick switches; counts."""
    global _n_users, _before
    with _lock:
        _n_users += 1
        if _n_users == 1:
            _before = sys.getswitchinterval()
            sys.setswitchinterval(SHORT)


def restore_switch_interval() -> None:
    """Ends it; the last one puts the old interval back."""
    global _n_users
    with _lock:
        _n_users -= 1
        if _n_users == 0:
            sys.setswitchinterval(_before)
