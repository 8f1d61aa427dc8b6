# SPDX-License-Identifier: GPL-2.0-only
"""A device reads beyond the end of its disk, in its IOThread, and a vCPU resets it."""

from __future__ import annotations

from block.aio.errors import UsedAfterFree
from block.aio.iothread import IOThread
from block.core.aiocb import DONE, BlkAIOCB
from block.core.backend import BlockBackend
from block.core.open import open_backend
from block.testing.world import DeterministicWorld

FIX = "b11a24dee6"
DATE = "2011-06-07"
MISTAKE = "a driver called the completion callback before the call that had submitted returned"
SEEN = "a device comes back into its own code before that is done, and uses a request that is freed"
FAILS_WITH = UsedAfterFree
SHOWN = ("before", "scenario")
STEPS = ("block.core.aiocb",)
WATCHED = ("block.aio", "block.core", "block.protocols.null")


class Device:
    """Has one request at a time, and remembers it, since a reset must cancel it (as IDE has it)."""

    def __init__(self, blk: BlockBackend) -> None:
        self.blk = blk
        self.request: BlkAIOCB | None = None
        self.answered = False

    def read(self) -> None:
        self.request = self.blk.aio_preadv(1 << 20, [memoryview(bytearray(512))], self.read_done)

    def read_done(self, ret: int) -> None:
        assert ret < 0, "there is nothing at that place"
        self.request = None
        self.answered = True

    def reset(self) -> None:
        request = self.request
        if request is not None:
            # In C the request is free memory after its callback.
            if request.stage == DONE:
                raise UsedAfterFree("the device cancels a request that has ended")
            request.cancel()


def scenario(world: DeterministicWorld) -> None:
    blk = open_backend(options={"driver": "null-co", "size": 1 << 20})
    with IOThread("io0", world) as iothread:
        blk.set_aio_context(iothread.ctx)
        device = Device(blk)
        iothread.ctx.bh_schedule_oneshot(device.read)
        with iothread.ctx as ctx:
            device.reset()
            while not device.answered:
                ctx.poll(True)
        blk.set_aio_context(world.main_context)
    blk.close()
    world.main_context.close()
