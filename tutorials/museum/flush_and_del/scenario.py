# SPDX-License-Identifier: GPL-2.0-only
"""A guest flushes its disk, and a person says `drive_del`."""

from __future__ import annotations

from block.aio.errors import UsedAfterFree
from block.core.backend import BlockBackend
from block.core.node import BlockDriverState
from block.protocols.null import NullDriver
from block.testing.world import DeterministicWorld

FIX = "f45280cbf6"
DATE = "2018-05-28"
MISTAKE = "a disk's tree was taken out while a flush had yielded, and the flush came back to it"
SEEN = "QEMU crashes when a busy disk is removed with drive_del"
FAILS_WITH = UsedAfterFree
SHOWN = ("before", "scenario")
WATCHED = ("block.core", "block.protocols.null")


class WorkerDisk(NullDriver):
    """A disk whose flush is done by a thread of the pool, as that of a file is."""

    format_name = "worker-disk"

    async def co_flush(self, bs: BlockDriverState) -> None:
        await bs.aio_context.thread_pool.submit_co(lambda: 0, owner=bs)


class Device:
    """A SCSI disk: each completion asks in which event loop it is (scsi_aio_complete)."""

    def __init__(self, blk: BlockBackend) -> None:
        self.blk = blk
        self.answers: list[int] = []

    def flushed(self, ret: int) -> None:
        assert self.blk.aio_context.is_home()
        self.answers.append(ret)


def disk() -> BlockBackend:
    """Returns a backend over a node of its own."""
    bs = BlockDriverState()
    bs.drv = WorkerDisk()
    blk = BlockBackend()
    blk.insert_bs(bs)
    bs.unref()
    return blk


def scenario(world: DeterministicWorld) -> None:
    blk = disk()
    device = Device(blk)
    blk.aio_flush(device.flushed)
    blk.remove_bs()  # drive_del
    assert device.answers == [0], "the tree is gone, and the flush is not through"
    blk.close()
    world.main_context.close()
