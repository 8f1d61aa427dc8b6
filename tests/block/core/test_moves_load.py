# SPDX-License-Identifier: GPL-2.0-only
"""Moving trees between event loops while they are used."""

from __future__ import annotations

import errno
import random

import pytest

from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.aio.world import the_world
from block.core import drain, edge, graph, replace
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.wait import poll_while
from tests.support.drivers import (
    Clusters,
    Disk,
    Outcome,
    Overlay,
    backend_on,
    make_node,
    pass_node,
    ram_node,
)


class Writer:
    """Keeps `depth` requests in flight, from callbacks alone, and checks what it reads."""

    def __init__(self, blk: BlockBackend, seed: int, base: int, size: int, depth: int = 4) -> None:
        self.blk = blk
        self.random = random.Random(seed)
        self.base, self.size = base, size
        self.model = bytearray(size)
        self.busy: set[int] = set()
        self.left = 300
        self.in_flight = 0
        self.depth = depth
        self.wrong: list[int] = []

    def start(self) -> None:
        while self.in_flight < self.depth and self.left:
            self.submit()

    def submit(self) -> None:
        block = self.random.choice([b for b in range(self.size // 512) if b not in self.busy])
        self.busy.add(block)
        self.left -= 1
        self.in_flight += 1
        at = block * 512
        if self.random.random() < 0.5:
            data = self.random.randbytes(512)
            self.model[at : at + 512] = data
            self.blk.aio_pwritev(
                self.base + at, [memoryview(data)], lambda ret: self.done(block, ret)
            )
        else:
            buffer = bytearray(512)
            self.blk.aio_preadv(
                self.base + at, [memoryview(buffer)], lambda ret: self.check(block, ret, buffer)
            )

    def check(self, block: int, ret: int, buffer: bytearray) -> None:
        if buffer != self.model[block * 512 : block * 512 + 512]:
            self.wrong.append(block)
        self.done(block, ret)

    def done(self, block: int, ret: int) -> None:
        if ret:
            self.wrong.append(block)
        self.busy.discard(block)
        self.in_flight -= 1
        self.start()

    @property
    def finished(self) -> bool:
        return not self.left and not self.in_flight


def test_a_tree_moves_under_load_and_loses_nothing(
    iothread: IOThread, second_iothread: IOThread, main: AioContext
) -> None:
    """Two users of the root keep submitting while the tree visits three loops in turn."""
    disk = Disk(1 << 16, request_alignment=1024)
    clusters = Clusters(1 << 16)
    overlay = make_node(Overlay(), clusters, "overlay")
    base = ram_node(disk, "base")
    edge.set_backing_hd(overlay, base)
    base.unref()
    top = pass_node(overlay, "top")
    blk, other = backend_on(top.ref()), backend_on(top)
    other.allow_aio_context_change = True
    writers = [Writer(blk, 1, 0, 1 << 15), Writer(other, 2, 1 << 15, 1 << 15)]
    for writer in writers:
        writer.start()
    contexts = [iothread.ctx, main, second_iothread.ctx]
    moves = 0
    while moves <= 3 or not all(writer.finished for writer in writers):
        blk.set_aio_context(contexts[moves % 3])
        moves += 1
        main.poll(False)
    assert [writer.wrong for writer in writers] == [[], []]
    for ctx in contexts:
        with ctx:
            for bs in graph.all_states:
                if bs.aio_context is not ctx:
                    assert ctx.registrations(owner=bs) == []
    blk.unref()
    other.unref()


def test_a_chain_of_200_nodes_moves(iothread: IOThread) -> None:
    bs = ram_node(Disk())
    for _ in range(199):
        bs = pass_node(bs)
    blk = backend_on(bs)
    blk.set_aio_context(iothread.ctx)
    assert blk.pread(0, 3) == bytes(3)
    blk.unref()


def test_a_tree_is_closed_while_it_lives_elsewhere(iothread: IOThread) -> None:
    disk = Disk()
    blk = backend_on(pass_node(ram_node(disk)))
    blk.set_aio_context(iothread.ctx)
    outcome = Outcome()
    with iothread.ctx:
        blk.aio_pwritev(0, [memoryview(b"x")], outcome)
    blk.unref()
    assert outcome.ret == 0
    assert ("close",) in disk.log
    with iothread.ctx:
        poll_while(iothread.ctx, lambda: iothread.ctx.poll(False))
        assert not iothread.ctx.external_disabled


def test_requests_that_are_parked_when_the_tree_goes_end_without_a_medium(
    iothread: IOThread, main: AioContext
) -> None:
    blk, outcome = backend_on(ram_node(Disk())), Outcome()
    bs = blk.bs
    assert bs is not None
    blk.set_aio_context(iothread.ctx)
    with iothread.ctx:
        drain.drained_begin(bs)
        blk.aio_preadv(0, [memoryview(bytearray(512))], outcome)
        drain.drained_end(bs)  # the IOThread has been told to go on, and has not done so yet
        blk.remove_bs()
    while outcome.pending and main.poll(False):
        pass
    assert outcome.ret == -errno.ENOMEDIUM
    blk.unref()


def test_a_request_that_is_cancelled_after_a_move_ends_in_the_new_home(
    iothread: IOThread, main: AioContext
) -> None:
    bs = ram_node(Disk())
    blk, outcome = backend_on(bs.ref()), Outcome()
    drain.drained_begin(bs)
    acb = blk.aio_preadv(0, [memoryview(bytearray(512))], outcome)
    blk.set_aio_context(iothread.ctx)
    iothread.ctx.bh_schedule_oneshot(acb.cancel_async)
    while outcome.pending:
        main.poll(False)
    assert outcome.ret == -errno.ECANCELED
    assert outcome.thread != the_world().current()
    drain.drained_end(bs)
    blk.unref()
    bs.unref()


def test_an_overlay_comes_to_a_node_that_cannot_leave_its_loop(iothread: IOThread) -> None:
    base, overlay = ram_node(Disk(), "base"), ram_node(Disk(), "overlay")
    blk = backend_on(base.ref(), name="drive0")
    blk.set_aio_context(iothread.ctx)
    with iothread.ctx:
        replace.append_node(overlay, base)
    assert blk.bs is overlay
    assert overlay.aio_context is base.aio_context is iothread.ctx
    blk.unref()
    overlay.unref()
    base.unref()


def test_two_nodes_that_cannot_leave_their_loops_do_not_come_together(
    iothread: IOThread, second_iothread: IOThread
) -> None:
    parent, child = ram_node(Disk()), ram_node(Disk())
    above = backend_on(parent.ref(), name="drive0")
    below = backend_on(child.ref(), name="drive1")
    above.set_aio_context(iothread.ctx)
    below.set_aio_context(second_iothread.ctx)
    with pytest.raises(BlockError, match="Cannot change iothread"):
        edge.set_backing_hd(parent, child)
    assert (parent.backing, len(child.parents)) == (None, 1)
    above.unref()
    below.unref()
    parent.unref()
    child.unref()
