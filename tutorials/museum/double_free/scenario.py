# SPDX-License-Identifier: GPL-2.0-only
"""A guest reads a sector from a disk that an IOThread serves."""

from __future__ import annotations

from block.aio.errors import UsedAfterFree
from block.aio.iothread import IOThread
from block.core.open import open_backend
from block.testing.world import DeterministicWorld
from miniqemu.hw.virtio_blk_layout import S_OK, T_IN
from tests.support.virtio_rig import Rig

FIX = "0a21ea3289"
DATE = "2014-07-09"
MISTAKE = "the data plane freed a request when it was complete; the common path frees it again"
SEEN = "QEMU crashes when a request of a data-plane disk completes"
FAILS_WITH = UsedAfterFree
SHOWN = ("before", "scenario")
STEPS = ("miniqemu.hw.virtio_blk_request",)
WATCHED = ("block.aio", "block.core", "block.protocols.null")


def scenario(world: DeterministicWorld) -> None:
    blk = open_backend(options={"driver": "null-co", "size": 1 << 20, "read-zeroes": True})
    interrupts: list[bool] = []
    with IOThread("io0", world) as iothread:
        rig = Rig(blk, ctx=world.main_context, iothread=iothread)
        rig.driver.start()
        irqfd = rig.irqs.irqfd
        assert irqfd is not None
        rig.ctx.set_event_notifier(irqfd, lambda it: interrupts.append(it.test_and_clear()))
        read = rig.chain(T_IN, into=512)
        rig.driver.queues[0].submit(read)
        rig.driver.kick()
        while not any(interrupts):
            rig.ctx.poll(True)
        assert rig.status_of(read) == S_OK
        rig.ctx.set_event_notifier(irqfd, None)
        rig.driver.close()
        rig.transport.close()  # the memory is left to Python: requests in cycles point to it
    blk.close()
    world.main_context.close()
