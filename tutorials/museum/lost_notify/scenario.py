# SPDX-License-Identifier: GPL-2.0-only
"""Two threads take a context: the IOThread that sleeps in it, and one that only has a question."""

from __future__ import annotations

from block.aio.iothread import IOThread
from block.testing.failures import Deadlock
from block.testing.world import DeterministicWorld

FIX = "ca96ac44dc"
DATE = "2015-07-28"
MISTAKE = "two threads race for a context's lock; the winner sleeps and knows nothing of the other"
SEEN = "QEMU hangs at its start, now and then"
FAILS_WITH = Deadlock
SHOWN = ("before", "scenario")


def scenario(world: DeterministicWorld) -> None:
    with IOThread("io0", world) as iothread, iothread.ctx as ctx:
        assert ctx.is_home()
