# SPDX-License-Identifier: GPL-2.0-only
"""Two disks in one IOThread: the firmware resets the one, and then reads from the other."""

from __future__ import annotations

from block.aio.iothread import IOThread
from block.aio.notifier import EventNotifier
from block.core.backend import BlockBackend
from block.core.open import bdrv_open
from block.protocols.null import NullCoDriver
from block.testing.failures import Deadlock
from block.testing.world import DeterministicWorld

FIX = "b37548fcd1"
DATE = "2018-08-09"
MISTAKE = "a poll that did not sleep took away the notify that another thread's sleep was to end by"
SEEN = "of many machines that boot together one hangs: the firmware waits for its first sector"
FAILS_WITH = Deadlock
SHOWN = ("scenario",)
PREEMPTIONS = 1
WATCHED = ("block.core", "block.protocols.null")


class Disk:
    """A disk whose requests are announced by an ioeventfd, and answered in the main loop."""

    def __init__(self, world: DeterministicWorld, iothread: IOThread) -> None:
        self.main = world.main_context
        self.ctx = iothread.ctx
        self.kick = world.new_notifier()
        self.answered = False
        with self.ctx:
            self.ctx.set_event_notifier(self.kick, self.serve, is_external=True)

    def serve(self, kick: EventNotifier) -> None:
        with self.ctx:
            if kick.test_and_clear():
                self.main.bh_schedule_oneshot(self.answer)

    def answer(self) -> None:
        self.answered = True

    def close(self) -> None:
        with self.ctx:
            self.ctx.set_event_notifier(self.kick, None)
        self.kick.close()


def scenario(world: DeterministicWorld) -> None:
    main = world.main_context
    blk = BlockBackend()
    bs = bdrv_open(options={"driver": NullCoDriver.format_name})
    blk.insert_bs(bs)
    bs.unref()
    with IOThread("io0", world) as iothread:
        disk = Disk(world, iothread)
        blk.set_aio_context(iothread.ctx)
        blk.set_aio_context(main)  # reset
        disk.kick.set()
        while not disk.answered:
            main.poll(True)
        disk.close()
    blk.close()
    main.close()
