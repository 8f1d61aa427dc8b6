# SPDX-License-Identifier: GPL-2.0-only
"""Copy-on-read while others write: who must wait for whom, so that no old data go over new."""

from __future__ import annotations

import random

import pytest

from block.aio.co_sleep import co_sleep_ns
from block.aio.context import AioContext
from block.aio.world import ClockType
from block.core.iov import Iov
from block.core.node import BlockDriverState
from block.core.wait import poll_while
from tests.support.copying import BASE, CLUSTER, LENGTH, Chain, chain
from tests.support.drivers import Outcome, Overlay
from tests.support.virtual_tree import world
from tests.support.virtual_world import VirtualWorld

__all__ = ["chain", "world"]


def test_a_write_waits_while_its_cluster_is_being_copied(chain: Chain, main: AioContext) -> None:
    """The base is slow; without R1 the old data that came late would go over the new."""
    chain.disk.parked = True
    read, write, elsewhere = Outcome(), Outcome(), Outcome()
    buffer = bytearray(512)
    chain.blk.aio_preadv(0, [memoryview(buffer)], read)
    chain.blk.aio_pwritev(0, [memoryview(b"n" * CLUSTER)], write)
    chain.blk.aio_pwritev(CLUSTER, [memoryview(b"m" * CLUSTER)], elsewhere)
    poll_while(main, lambda: elsewhere.pending)
    assert (read.pending, write.pending, chain.held) == (True, True, [1])
    chain.disk.release()
    poll_while(main, lambda: read.pending or write.pending)
    assert buffer == BASE[:512]
    assert chain.blk.pread(0, CLUSTER) == b"n" * CLUSTER


def test_a_copying_read_waits_for_a_write_of_its_cluster(chain: Chain, main: AioContext) -> None:
    chain.disk.parked = True
    read, write = Outcome(), Outcome()
    buffer = bytearray(3)
    chain.blk.aio_pwritev(0, [memoryview(b"new")], write)  # reads the rest of the cluster first
    chain.blk.aio_preadv(0, [memoryview(buffer)], read)
    assert len(chain.disk.asked("preadv")) == 1
    chain.disk.release()
    poll_while(main, lambda: read.pending or write.pending)
    assert (bytes(buffer), len(chain.disk.asked("preadv"))) == (b"new", 1)


def test_two_reads_of_one_cluster_copy_it_once(chain: Chain, main: AioContext) -> None:
    chain.disk.parked = True
    reads = [Outcome(), Outcome()]
    buffers = [bytearray(100), bytearray(200)]
    for outcome, buffer in zip(reads, buffers, strict=True):
        chain.blk.aio_preadv(50, [memoryview(buffer)], outcome)
    chain.disk.release()
    poll_while(main, lambda: any(outcome.pending for outcome in reads))
    assert [bytes(buffer) for buffer in buffers] == [BASE[50:150], BASE[50:250]]
    assert len(chain.disk.asked("preadv")) == 1


class Slow(Overlay):
    """An overlay whose requests take a random time, in virtual nanoseconds."""

    dice = random.Random(0)

    async def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        await co_sleep_ns(ClockType.REALTIME, self.dice.randrange(1, 50), owner=bs)
        await super().co_preadv(bs, offset, nbytes, qiov, flags)
        await co_sleep_ns(ClockType.REALTIME, self.dice.randrange(1, 50), owner=bs)

    async def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        await co_sleep_ns(ClockType.REALTIME, self.dice.randrange(1, 50), owner=bs)
        await super().co_pwritev(bs, offset, nbytes, qiov, flags)
        await co_sleep_ns(ClockType.REALTIME, self.dice.randrange(1, 50), owner=bs)


OPS = 160


class Guest:
    """Keeps reads and writes in flight; no two writes overlap, reads may overlap anything."""

    def __init__(self, chain: Chain, seed: int) -> None:
        self.chain = chain
        self.random = random.Random(seed)
        self.model = bytearray(BASE)
        self.busy: list[tuple[int, int]] = []
        self.left = OPS
        self.in_flight = 0
        self.failed = 0

    def submit(self) -> None:
        while self.left and self.in_flight < 6:
            self.left -= 1
            self.in_flight += 1
            span = self.somewhere()
            overlaps = any(span[0] < end and start < span[1] for start, end in self.busy)
            if overlaps or self.random.random() < 0.5:
                buffer = bytearray(span[1] - span[0])
                self.chain.blk.aio_preadv(span[0], [memoryview(buffer)], self.ended)
            else:
                self.write(span)

    def somewhere(self) -> tuple[int, int]:
        """Whole clusters, or whatever bytes: those go another way, by reading first.

        It goes slowly through the disk, where clusters are fresh and everybody wants them.
        """
        step = (LENGTH - 3 * CLUSTER) * (OPS - self.left) // OPS
        offset = step + self.random.randrange(2 * CLUSTER)
        size = self.random.randrange(1, CLUSTER)
        if self.random.random() < 0.5:
            offset, size = offset // CLUSTER * CLUSTER, CLUSTER
        return offset, offset + size

    def write(self, span: tuple[int, int]) -> None:
        data = self.random.randbytes(span[1] - span[0])
        self.model[span[0] : span[1]] = data
        self.busy.append(span)
        self.chain.blk.aio_pwritev(span[0], [memoryview(data)], lambda ret: self.wrote(span, ret))

    def wrote(self, span: tuple[int, int], ret: int) -> None:
        self.busy.remove(span)
        self.ended(ret)

    def ended(self, ret: int) -> None:
        self.failed += bool(ret)
        self.in_flight -= 1
        self.submit()


@pytest.mark.parametrize("seed", range(8))
def test_old_data_never_goes_over_new(world: VirtualWorld, seed: int) -> None:
    Slow.dice.seed(seed)
    chain = Chain(Slow)
    guest = Guest(chain, seed)
    guest.submit()
    poll_while(chain.top.aio_context, lambda: bool(guest.in_flight))
    assert guest.failed == 0
    assert chain.blk.pread(0, LENGTH) == guest.model
    assert chain.clusters.data == guest.model
    chain.blk.unref()
