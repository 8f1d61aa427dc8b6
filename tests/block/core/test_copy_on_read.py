# SPDX-License-Identifier: GPL-2.0-only
"""Copy-on-read in the core: what is kept, what is not, and for whom it is on."""

from __future__ import annotations

import errno

import pytest

from block.aio.context import AioContext
from block.core import flags as f
from block.core import reopen
from block.core.copy_on_read import disable_copy_on_read, enable_copy_on_read
from block.core.driver import BlockDriver, BlockDriverInfo
from block.core.error import BlockError
from block.core.iov import Iov, iov_from_bytes
from block.core.node import BlockDriverState
from block.core.open import open_backend
from block.core.open_node import apply_auto_read_only
from tests.support.copying import BASE, CLUSTER, LENGTH, Chain, chain
from tests.support.drivers import Disk, FastRam, Overlay, backend_on, ram_node

__all__ = ["chain"]


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


def test_a_disk_that_copies_cannot_become_read_only() -> None:
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
