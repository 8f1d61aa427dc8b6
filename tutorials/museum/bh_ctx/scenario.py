# SPDX-License-Identifier: GPL-2.0-only
"""A bottom half that deletes itself, scheduled by another thread."""

from __future__ import annotations

from block.aio.errors import UsedAfterFree
from block.aio.iothread import IOThread
from block.testing.world import DeterministicWorld

FIX = "924fe1293c"
DATE = "2014-06-03"
MISTAKE = "`bh.schedule` read `bh.ctx` after it had made the bottom half visible to its thread"
SEEN = "QEMU crashes in aio_notify, once in many hours"
FAILS_WITH = UsedAfterFree
SHOWN = ("before", "scenario")


def scenario(world: DeterministicWorld) -> None:
    with IOThread("io0", world) as iothread:
        with iothread.ctx as ctx:
            bh = ctx.bh_new(lambda: bh.delete())
        bh.schedule()
