# SPDX-License-Identifier: GPL-2.0-only
"""A machine with a thousand disks in two event loops, one request in flight, and a drain_all."""

from __future__ import annotations

from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.core import drain
from block.core.backend import BlockBackend
from block.core.open import bdrv_open
from block.testing.world import DeterministicWorld

FIX = "f406c03c09"
DATE = "2015-06-10"
MISTAKE = "drain_all polled the event loop of each node, though a thousand nodes share one loop"
SEEN = "with thousands of disks, everything that drains all of them takes seconds"
FAILS_WITH = AssertionError
IN_ONE_RUN = True

DISKS = 1000
ENOUGH = 10  # polls of a loop: some for the request, and one that finds nothing


def scenario(world: DeterministicWorld) -> None:
    nodes = [bdrv_open(options={"driver": "null-co"}) for _ in range(DISKS - 1)]
    blk = BlockBackend()
    nodes.append(bdrv_open(options={"driver": "null-co", "latency-ns": "1000000"}))
    blk.insert_bs(nodes[-1])
    rets: list[int] = []
    with IOThread("io0", world) as iothread:
        for bs in nodes[::2]:
            bs.set_aio_context(iothread.ctx)
        blk.aio_preadv(0, [memoryview(bytearray(512))], rets.append)
        loops: list[AioContext] = [world.main_context, iothread.ctx]
        before = [passes(loop) for loop in loops]
        drain.drain_all()
        polls = [passes(loop) - n for loop, n in zip(loops, before, strict=True)]
        for bs in nodes:
            bs.set_aio_context(world.main_context)
            bs.unref()
    blk.close()
    world.main_context.close()
    assert rets == [0], "drained, and a request is in flight"
    assert max(polls) <= ENOUGH, f"drain_all polled two loops {sum(polls)} times"


def passes(ctx: AioContext) -> int:
    """Returns how often a context has been polled."""
    return ctx.fds.pass_number
