# SPDX-License-Identifier: GPL-2.0-only
"""A limited disk leaves its IOThread with reads waiting, as at `stop`; then one more read."""

from __future__ import annotations

from block.aio.iothread import IOThread
from block.core.backend import BlockBackend
from block.core.backend_limits import io_limits_enable, set_io_limits
from block.core.open import bdrv_open
from block.objects.throttle_bucket import BucketType, ThrottleConfig
from block.protocols.null import NullCoDriver
from block.testing.failures import Deadlock
from block.testing.world import DeterministicWorld

FIX = "dc868fb03b"
DATE = "2017-11-10"
MISTAKE = "a limited disk's timers left their event loop while requests waited for them"
SEEN = "after `stop` and `cont` the guest's disk stands still; only with -drive iops=..."
FAILS_WITH = Deadlock
SHOWN = ("scenario",)
PREEMPTIONS = 1
STEPS = ("block.objects",)
WATCHED = ("block.aio", "block.core", "block.protocols.null")


class Guest:
    """Reads, and counts what it has got."""

    def __init__(self, blk: BlockBackend) -> None:
        self.blk = blk
        self.asked = 0
        self.got = 0

    def read_twice(self) -> None:
        if self.blk.aio_context.is_home():
            self.read()
            self.read()

    def read(self) -> None:
        self.asked += 1
        self.blk.aio_preadv(0, [memoryview(bytearray(512))], self.done)

    def done(self, ret: int) -> None:
        assert ret == 0, f"a read has failed: {ret}"
        self.got += 1


def limited_disk() -> BlockBackend:
    """Returns a disk that serves one request a second."""
    blk = BlockBackend()
    bs = bdrv_open(options={"driver": NullCoDriver.format_name})
    blk.insert_bs(bs)
    bs.unref()
    config = ThrottleConfig()
    config.buckets[BucketType.OPS_TOTAL].avg = 1
    io_limits_enable(blk, "slow")
    set_io_limits(blk, config)
    return blk


def scenario(world: DeterministicWorld) -> None:
    main = world.main_context
    blk = limited_disk()
    guest = Guest(blk)
    with IOThread("io0", world) as iothread:
        blk.set_aio_context(iothread.ctx)
        iothread.ctx.bh_schedule_oneshot(guest.read_twice)
        blk.set_aio_context(main)  # stop
    guest.read()  # cont
    while guest.got < guest.asked:
        main.poll(True)
    blk.close()
    main.close()
