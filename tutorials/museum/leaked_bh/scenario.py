# SPDX-License-Identifier: GPL-2.0-only
"""A disk goes away with a bottom half that was scheduled, and its context goes after it."""

from __future__ import annotations

import gc
import weakref

from block.aio.context import AioContext
from block.testing.world import DeterministicWorld

FIX = "a076972a4d"
DATE = "2015-07-28"
MISTAKE = "deleted bottom halves were freed by the next poll, and a context may have no next poll"
SEEN = "each IOThread that goes leaves some memory behind"
FAILS_WITH = AssertionError
IN_ONE_RUN = True


class Disk:
    """Has a bottom half, as drivers have; whoever keeps that keeps the disk."""

    def __init__(self, ctx: AioContext) -> None:
        self.bh = ctx.bh_new(self.complete, owner=self)

    def complete(self) -> None:
        """Would complete a request."""

    def close(self) -> None:
        self.bh.delete()


def scenario(world: DeterministicWorld) -> None:
    ctx = AioContext("io0", world)
    disk = Disk(ctx)
    disk.bh.schedule()
    disk.close()
    ctx.close()
    watched = weakref.ref(disk.bh)
    del disk
    gc.collect()
    assert watched() is None, "a deleted bottom half outlives its context, and its disk with it"
