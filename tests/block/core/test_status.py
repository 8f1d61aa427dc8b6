# SPDX-License-Identifier: GPL-2.0-only
"""Block status through layers: who holds what, and what reads as zeroes."""

from __future__ import annotations

import pytest

from block.core import edge, status, wait
from block.core import flags as f
from block.core.node import BlockDriverState
from tests.support.drivers import Clusters, Disk, Overlay, Ram, make_node, pass_node, ram_node

DATA, ZERO, VALID = f.BDRV_BLOCK_DATA, f.BDRV_BLOCK_ZERO, f.BDRV_BLOCK_OFFSET_VALID
ALLOCATED, EOF = f.BDRV_BLOCK_ALLOCATED, f.BDRV_BLOCK_EOF
K = 1024


class Chain:
    """top (64 KiB, holds cluster 1) over middle (32 KiB, holds cluster 2) over base (16 KiB)."""

    def __init__(self) -> None:
        self.base = ram_node(Disk(16 * K), "base")
        self.middle = make_node(Overlay(), Clusters(32 * K), "middle")
        self.top = make_node(Overlay(), Clusters(64 * K), "top")
        self.middle.opaque.held.add(2)
        self.top.opaque.held.add(1)
        edge.set_backing_hd(self.middle, self.base)
        edge.set_backing_hd(self.top, self.middle)
        self.base.unref()
        self.middle.unref()

    def ask(self, offset: int, nbytes: int) -> status.Status:
        return self.top.block_status(offset, nbytes)


@pytest.fixture
def chain() -> Chain:
    return Chain()


def test_each_range_is_answered_by_the_layer_that_holds_it(chain: Chain) -> None:
    assert chain.ask(0, 64 * K) == (DATA | VALID | ALLOCATED, 4 * K, 0, chain.base)
    assert chain.ask(4 * K, 60 * K)[:2] == (DATA | ALLOCATED, 4 * K)
    assert chain.ask(8 * K, 56 * K)[:2] == (DATA | ALLOCATED, 4 * K)
    assert chain.ask(12 * K, 4 * K) == (DATA | VALID | ALLOCATED, 4 * K, 12 * K, chain.base)
    chain.top.unref()


def test_beyond_the_end_of_a_short_backing_file_are_zeroes(chain: Chain) -> None:
    ret, pnum, _, _ = chain.ask(16 * K, 48 * K)
    assert (ret & (DATA | ZERO), pnum) == (ZERO, 16 * K)
    ret, pnum, _, _ = chain.ask(32 * K, 32 * K)
    assert (ret & (DATA | ZERO), pnum, ret & EOF) == (ZERO, 32 * K, EOF)
    chain.top.unref()


def test_at_the_end_there_is_nothing(chain: Chain) -> None:
    assert chain.ask(64 * K, 512) == (EOF, 0, 0, None)
    assert chain.ask(0, 0)[1] == 0
    chain.top.unref()


def test_an_unaligned_question_gets_an_answer_for_itself(chain: Chain) -> None:
    assert chain.ask(5000, 1000)[:2] == (DATA | ALLOCATED, 1000)
    assert chain.ask(3 * K, 64 * K)[1:3] == (1 * K, 3 * K)
    chain.top.unref()


def test_is_allocated_asks_one_layer_alone(chain: Chain) -> None:
    assert chain.top.is_allocated(0, 64 * K) == (False, 4 * K)
    assert chain.top.is_allocated(4 * K, 64 * K) == (True, 4 * K)
    assert chain.top.is_allocated(8 * K, 64 * K) == (False, 56 * K)
    chain.top.unref()


def allocated_above(chain: Chain, base: BlockDriverState, include: bool, at: int) -> bool:
    ctx = chain.top.aio_context
    return wait.run_sync(
        ctx, lambda: status.co_is_allocated_above(chain.top, base, include, at, 4 * K)
    )[0]


def test_is_allocated_above_asks_down_to_the_base(chain: Chain) -> None:
    assert not allocated_above(chain, chain.middle, False, 8 * K)
    assert allocated_above(chain, chain.middle, True, 8 * K)
    assert not allocated_above(chain, chain.base, False, 0)
    assert allocated_above(chain, chain.base, True, 0)
    chain.top.unref()


def test_a_filter_answers_with_what_is_below() -> None:
    top = pass_node(pass_node(ram_node(Disk(8 * K), "base")))
    base = top.file.bs.file.bs  # type: ignore[union-attr]  # it is there
    assert top.block_status(512, 8 * K) == (DATA | VALID | ALLOCATED | EOF, 7680, 512, base)
    top.unref()


class Placed(Overlay):
    """A format that maps everything one to one into its file, and lets it be asked there."""

    async def co_block_status(
        self, bs: BlockDriverState, want_zero: bool, offset: int, nbytes: int
    ) -> tuple[int, int, int, BlockDriverState | None]:
        assert bs.file is not None
        return DATA | VALID | f.BDRV_BLOCK_RECURSE, nbytes, offset, bs.file.bs


class Holes(Ram):
    """Knows that its second half is a hole."""

    async def co_block_status(
        self, bs: BlockDriverState, want_zero: bool, offset: int, nbytes: int
    ) -> tuple[int, int, int, BlockDriverState | None]:
        half = len(bs.opaque.data) // 2
        if offset >= half:
            return ZERO | VALID, nbytes, offset, bs
        return DATA | VALID, min(nbytes, half - offset), offset, bs


def test_the_file_is_asked_for_zeroes_inside_data() -> None:
    bs = make_node(Placed(), Clusters(32 * K))
    bs.file = edge.attach_child(bs, ram_node(Disk(16 * K), driver=Holes), "file",
                                f.BDRV_CHILD_IMAGE)  # fmt: skip
    assert bs.block_status(0, 32 * K)[:2] == (DATA | VALID | ALLOCATED, 8 * K)
    ret, pnum, _, _ = bs.block_status(8 * K, 8 * K)
    assert (ret & (DATA | ZERO), pnum) == (DATA | ZERO, 8 * K)
    ret, pnum, _, _ = bs.block_status(16 * K, 16 * K)
    assert (ret & ZERO, pnum) == (ZERO, 16 * K), "a file shorter than the image reads as zeroes"
    bs.unref()
