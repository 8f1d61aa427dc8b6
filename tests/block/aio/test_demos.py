# SPDX-License-Identifier: GPL-2.0-only
"""`python -m block.aio.bh` and its like: each demo runs and prints a timeline."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

DEMOS = {  # a regular expression each
    "bh": "once, although scheduled twice",
    "timer": "the alarm",
    "fd_handler": "readable: b'hello'",
    "notifier": "set: True",
    "context": "5: the timer fires",
    "lock": "its turn",
    "coroutine": "done: True, result: 42",
    "co_lock": "third let it go",
    "co_sleep": "slept 15 ms",
    "co_parallel": "all three have ended",
    "iothread": "rule 5",
    "thread_pool": r"completed so far: \[(10, 20|20, 10)\]",  # a busy machine may turn them round
    "embed": "asyncio got 'done'",
}


@pytest.mark.parametrize("module", DEMOS)
def test_a_demo_shows_what_it_is_about(module: str) -> None:
    command = [sys.executable, "-m", f"block.aio.{module}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.search(DEMOS[module], done.stdout)
    assert done.stderr == ""
