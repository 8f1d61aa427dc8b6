# SPDX-License-Identifier: GPL-2.0-only
"""Copy-on-read in the core: what is kept, what is not, and who must wait for whom."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator

import pytest

from block.aio.co_sleep import co_sleep_ns
from block.aio.context import AioContext
from block.aio.world import ClockType
from block.core import edge, reopen
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.copy_on_read import disable_copy_on_read, enable_copy_on_read
from block.core.driver import BlockDriver, BlockDriverInfo
from block.core.error import BlockError
from block.core.iov import Iov, iov_from_bytes
from block.core.node import BlockDriverState
from block.core.open import open_backend
from block.core.open_node import apply_auto_read_only
from block.core.wait import poll_while, run_sync
from tests.support.drivers import (
    Clusters,
    Disk,
    FastRam,
    Outcome,
    Overlay,
    backend_on,
    make_node,
    ram_node,
)
from tests.support.virtual_tree import world
from tests.support.virtual_world import VirtualWorld

__all__ = ["world"]

LENGTH = 1 << 16
CLUSTER = 4096
BASE = bytes(n // 256 % 251 + 1 for n in range(LENGTH))  # no two clusters are alike


class Fine(Overlay):
    """An overlay that takes sectors, and holds clusters; only whole ones may be written."""

    def refresh_limits(self, bs: BlockDriverState) -> None:
        bs.bl.request_alignment = f.SECTOR_SIZE

    def get_info(self, bs: BlockDriverState) -> BlockDriverInfo:
        return BlockDriverInfo(bs.opaque.cluster)

    async def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        assert bs.backing is not None
        for at in range(offset, offset + nbytes, f.SECTOR_SIZE):
            part = bytearray(bs.opaque.data[at : at + f.SECTOR_SIZE])
            if at // bs.opaque.cluster not in bs.opaque.held:
                await bs.backing.co_preadv(at, f.SECTOR_SIZE, [memoryview(part)])
            iov_from_bytes(qiov, at - offset, part)

    async def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        assert not (offset | nbytes) % bs.opaque.cluster
        await super().co_pwritev(bs, offset, nbytes, qiov, flags)


class Zeroing(Overlay):
    """An overlay that knows zero clusters: it writes down where they are."""

    async def co_pwrite_zeroes(
        self, bs: BlockDriverState, offset: int, nbytes: int, flags: int
    ) -> None:
        size = bs.opaque.cluster
        bs.opaque.log.append(("zeroes", offset, nbytes))
        bs.opaque.held.update(range(offset // size, (offset + nbytes) // size))


class Full(Overlay):
    """An overlay that cannot be written to any more."""

    async def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        raise BlockError(errno.ENOSPC, "the overlay is full")


class Forgetful(Overlay):
    """An overlay that cannot tell what it holds, when it is asked a second time."""

    async def co_block_status(
        self, bs: BlockDriverState, want_zero: bool, offset: int, nbytes: int
    ) -> tuple[int, int, int, BlockDriverState | None]:
        bs.opaque.log.append(("status",))
        if len(bs.opaque.log) > 1:
            raise BlockError(errno.EIO, "no status today")
        return await super().co_block_status(bs, want_zero, offset, nbytes)


class Chain:
    """An overlay with copy-on-read over a disk in memory, and a backend on top."""

    def __init__(self, driver: type[BlockDriver] = Overlay) -> None:
        self.disk = Disk(LENGTH)
        self.disk.data[:] = BASE
        self.clusters = Clusters(LENGTH, CLUSTER)
        self.top = make_node(driver(), self.clusters)
        base = ram_node(self.disk)
        edge.set_backing_hd(self.top, base)
        base.unref()
        enable_copy_on_read(self.top)
        self.blk: BlockBackend = backend_on(self.top)

    @property
    def held(self) -> list[int]:
        """The numbers of the clusters that the overlay holds."""
        return sorted(self.clusters.held)

    def prefetch(self, offset: int, nbytes: int, flags: int) -> None:
        root = self.blk.root
        assert root is not None
        run_sync(self.top.aio_context, lambda: root.co_preadv(offset, nbytes, [], flags))


@pytest.fixture
def chain() -> Iterator[Chain]:
    made = Chain()
    yield made
    made.blk.unref()


# -- what is kept


@pytest.mark.parametrize("driver", [Overlay, Fine])
@pytest.mark.parametrize(
    ("offset", "nbytes", "held"),
    [
        (0, CLUSTER, [0]),
        (CLUSTER + 7, 1, [1]),
        (2 * CLUSTER - 1, 2, [1, 2]),
        (CLUSTER - 1, 2 * CLUSTER + 2, [0, 1, 2, 3]),
        (LENGTH - 1, 1, [15]),
        (0, LENGTH, list(range(16))),
    ],
)
def test_a_read_keeps_whole_clusters(
    driver: type[BlockDriver], offset: int, nbytes: int, held: list[int]
) -> None:
    chain = Chain(driver)
    assert chain.blk.pread(offset, nbytes) == BASE[offset : offset + nbytes]
    assert chain.held == held
    for n in held:
        at = n * CLUSTER
        assert chain.clusters.data[at : at + CLUSTER] == BASE[at : at + CLUSTER]
    chain.blk.unref()


def test_a_second_read_does_not_go_below(chain: Chain) -> None:
    first = chain.blk.pread(100, 10000)
    chain.disk.log.clear()
    assert chain.blk.pread(100, 10000) == first
    assert chain.disk.log == []


def test_what_is_here_already_is_read_and_not_written_again(chain: Chain) -> None:
    chain.blk.pwrite(CLUSTER, b"n" * CLUSTER)
    wanted = BASE[:CLUSTER] + b"n" * CLUSTER + BASE[2 * CLUSTER : 3 * CLUSTER]
    assert chain.blk.pread(0, 3 * CLUSTER) == wanted
    assert chain.clusters.data[CLUSTER : 2 * CLUSTER] == b"n" * CLUSTER
    assert chain.held == [0, 1, 2]


def test_it_goes_piece_by_piece_where_requests_must_be_short() -> None:
    chain = Chain()
    chain.top.bl.max_transfer = 2 * CLUSTER
    chain.top.bl.complete()
    assert chain.blk.pread(5, 5 * CLUSTER) == BASE[5 : 5 * CLUSTER + 5]
    assert chain.held == [0, 1, 2, 3, 4, 5]
    assert [entry[2] for entry in chain.disk.asked("preadv")] == [CLUSTER] * 6
    chain.blk.unref()


def test_zeroes_are_kept_as_zeroes() -> None:
    chain = Chain(Zeroing)
    chain.disk.data[CLUSTER : 3 * CLUSTER] = bytes(2 * CLUSTER)
    assert chain.blk.pread(CLUSTER, CLUSTER) == bytes(CLUSTER)
    chain.blk.pread(4 * CLUSTER, 1)
    assert [entry for entry in chain.clusters.log if entry[0] == "zeroes"] == [
        ("zeroes", CLUSTER, CLUSTER)
    ]
    assert chain.held == [1, 4]
    chain.blk.unref()


def test_prefetch_keeps_the_data_and_needs_no_memory_of_the_reader(chain: Chain) -> None:
    chain.prefetch(CLUSTER, 2 * CLUSTER, f.REQ_PREFETCH)
    assert chain.held == [1, 2]
    chain.disk.log.clear()
    chain.prefetch(CLUSTER + 1, 5, f.REQ_PREFETCH)
    assert chain.disk.log == []


def test_prefetch_without_anybody_who_copies_does_nothing(chain: Chain) -> None:
    disable_copy_on_read(chain.top)
    chain.prefetch(0, CLUSTER, f.REQ_PREFETCH)
    assert (chain.held, chain.disk.asked("preadv")) == ([], [])
    chain.prefetch(0, CLUSTER, f.REQ_PREFETCH | f.REQ_COPY_ON_READ)
    assert chain.held == [0]


def test_an_inactive_node_copies_nothing(chain: Chain) -> None:
    chain.top.open_flags |= f.BDRV_O_INACTIVE
    assert chain.blk.pread(0, 10) == BASE[:10]
    assert chain.held == []
    chain.top.open_flags &= ~f.BDRV_O_INACTIVE


# -- failures


def test_a_failure_below_fails_the_read_and_keeps_nothing(chain: Chain) -> None:
    chain.disk.errors["preadv"] = BlockError(errno.EIO, "bad sector")
    with pytest.raises(BlockError, match="bad sector"):
        chain.blk.pread(0, 10)
    assert chain.held == []
    del chain.disk.errors["preadv"]
    assert chain.blk.pread(0, 10) == BASE[:10]


def test_a_failure_to_keep_it_fails_the_read() -> None:
    chain = Chain(Full)
    with pytest.raises(BlockError, match="the overlay is full"):
        chain.blk.pread(0, 10)
    assert not chain.top.tracked_requests
    chain.blk.unref()


def test_where_nobody_knows_what_is_here_it_is_copied() -> None:
    chain = Chain(Forgetful)
    assert chain.blk.pread(7, 10) == BASE[7:17]
    assert chain.held == [0]
    chain.blk.unref()


# -- reads and writes at the same time


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


# -- on and off


def test_the_fast_path_is_closed_while_it_is_on(main: AioContext) -> None:
    bs = ram_node(Disk(), driver=FastRam)
    blk = backend_on(bs)
    assert blk.root is not None
    answers = []
    for switch in (enable_copy_on_read, enable_copy_on_read, disable_copy_on_read,
                   disable_copy_on_read):  # fmt: skip
        switch(bs)
        answers.append(blk.root.try_preadv(0, 512, [memoryview(bytearray(512))]))
    assert answers == [None, None, None, 0]
    blk.unref()


def test_it_is_on_at_the_top_of_what_is_opened_with_it_and_nowhere_else() -> None:
    options = {"driver": "raw", "file": {"driver": "null-co", "size": 4096}}
    flags = f.BDRV_O_RDWR | f.BDRV_O_COPY_ON_READ
    with open_backend(options=options, flags=flags) as blk:
        assert blk.bs is not None
        assert [blk.bs.copy_on_read, blk.bs.children[0].bs.copy_on_read] == [1, 0]


def test_a_read_only_disk_cannot_copy() -> None:
    with pytest.raises(BlockError) as error:
        open_backend(options={"driver": "null-co"}, flags=f.BDRV_O_COPY_ON_READ)
    assert str(error.value) == "Can't use copy-on-read on read-only device"


def test_a_disk_that_copies_cannot_become_read_only(chain: Chain) -> None:
    options = {"driver": "null-co", "node-name": "cor", "auto-read-only": True}
    flags = f.BDRV_O_RDWR | f.BDRV_O_COPY_ON_READ
    with open_backend(options=options, flags=flags) as blk:
        assert blk.bs is not None
        blk.set_perm(f.BLK_PERM_CONSISTENT_READ, f.BLK_PERM_ALL)
        with pytest.raises(BlockError) as error:
            reopen.set_read_only(blk.bs, True)
        assert str(error.value) == "Can't set node 'cor' to r/o with copy-on-read enabled"
        with pytest.raises(BlockError, match="Image is read-only"):
            apply_auto_read_only(blk.bs)
