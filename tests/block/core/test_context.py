# SPDX-License-Identifier: GPL-2.0-only
"""Moving trees between event loops; the cases of QEMU's tests/test-block-iothread.c first."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterable

import pytest

from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.aio.world import the_world
from block.core import drain, edge, graph, replace
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.node import BlockDriverState
from block.core.wait import poll_while
from tests.support.drivers import (
    Clusters,
    Disk,
    Fan,
    Log,
    Outcome,
    Overlay,
    Pass,
    backend_on,
    make_node,
    pass_node,
    put_below,
    ram_node,
    settle,
)

# -- trees


def fan_over(children: Iterable[BlockDriverState]) -> BlockDriverState:
    """Returns a node over many, whose references it takes."""
    top = make_node(Fan(), Log())
    for number, bs in enumerate(children):
        edge.attach_child(top, bs, f"child{number}", f.BDRV_CHILD_DATA)
    settle(top)
    return top


def small_node() -> BlockDriverState:
    return ram_node(Disk(512))


# -- test-block-iothread.c


@pytest.mark.parametrize(
    "request_of",
    [
        lambda blk: blk.pread(0, 512),
        lambda blk: blk.pwrite(0, bytes(512)),
        lambda blk: blk.pwrite_zeroes(0, 512),
        lambda blk: blk.pdiscard(0, 512),
        lambda blk: blk.truncate(65536),
        lambda blk: blk.flush(),
        lambda blk: blk.bs.block_status(0, 512),
        lambda blk: blk.root.pread(0, 512),
        lambda blk: blk.root.pwrite(0, bytes(512)),
    ],
    ids=["pread", "pwrite", "pwrite_zeroes", "pdiscard", "truncate", "flush", "block_status",
         "edge_pread", "edge_pwrite"],
)  # fmt: skip
def test_sync_op(
    request_of: Callable[[BlockBackend], object], iothread: IOThread, main: AioContext
) -> None:
    """The main thread waits for an operation of a tree that lives in an IOThread."""
    blk = backend_on(ram_node(Disk(65536)))
    blk.set_aio_context(iothread.ctx)
    request_of(blk)
    blk.set_aio_context(main)
    blk.unref()


def test_attach_second_node(iothread: IOThread) -> None:
    """A child comes to its parent's context when it is attached, and goes home afterwards."""
    parent = pass_node(ram_node(Disk()))
    blk = backend_on(parent)
    blk.set_aio_context(iothread.ctx)
    with iothread.ctx:
        second = ram_node(Disk())
        put_below(parent, second.ref(), "second", f.BDRV_CHILD_DATA)
        assert second.aio_context is iothread.ctx
        edge.unref_child(parent, parent.child("second"))
    assert second.aio_context is second.aio_context.world.main_context
    second.unref()
    blk.unref()


def test_attach_preserve_blk_ctx(iothread: IOThread, main: AioContext) -> None:
    """A node without users goes home; a backend finds it there again."""
    bs = ram_node(Disk())
    blk = backend_on(bs.ref())
    blk.set_aio_context(iothread.ctx)
    blk.remove_bs()
    assert bs.aio_context is main
    assert blk.aio_context is main
    bs.unref()
    blk.unref()


def test_propagate_basic(iothread: IOThread, main: AioContext) -> None:
    """A move by one user takes along the nodes above and beside."""
    a, b = ram_node(Disk()), ram_node(Disk())
    blk = backend_on(a.ref(), f.BLK_PERM_CONSISTENT_READ)
    top = make_node(Fan(), Log())
    put_below(top, a, "test", f.BDRV_CHILD_FILTERED)
    put_below(top, b, "raw", f.BDRV_CHILD_DATA)
    for ctx in (iothread.ctx, main):
        blk.set_aio_context(ctx)
        assert {blk.aio_context, a.aio_context, b.aio_context, top.aio_context} == {ctx}
    top.unref()
    blk.unref()


def test_propagate_diamond(iothread: IOThread, main: AioContext) -> None:
    """A node below two others moves once: detached after both, attached before both."""
    disk = Disk()
    bottom = ram_node(disk, "bottom")
    left, right = pass_node(bottom.ref(), "left"), pass_node(bottom, "right")
    top = make_node(Fan(), Log(), "top")
    put_below(top, left, "left", f.BDRV_CHILD_DATA)
    put_below(top, right, "right", f.BDRV_CHILD_DATA)
    blk = backend_on(top, f.BLK_PERM_CONSISTENT_READ)
    order: list[str] = []
    for bs in (left, right, bottom):
        bs.add_aio_context_notifier(
            lambda ctx, bs=bs: order.append(f"attach {bs.node_name}"),  # type: ignore[misc]  # a lambda's default
            lambda bs=bs: order.append(f"detach {bs.node_name}"),  # type: ignore[misc]  # a lambda's default
        )
    for ctx in (iothread.ctx, main):
        blk.set_aio_context(ctx)
        assert {bs.aio_context for bs in (top, left, right, bottom)} == {ctx}
    assert order[:6] == ["detach left", "detach right", "detach bottom",
                         "attach bottom", "attach left", "attach right"]  # fmt: skip
    assert disk.asked("attach", "detach") == [
        ("detach", "main"),
        ("attach", "iothread0"),
        ("detach", "iothread0"),
        ("attach", "main"),
    ]
    blk.unref()


# -- orders


class Trace:
    """Lets several nodes write into one log."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []

    def of(self, name: str) -> _Part:
        return _Part(self, name)


class _Part:
    def __init__(self, trace: Trace, name: str) -> None:
        self.trace = trace
        self.name = name

    def append(self, entry: tuple[str, str]) -> None:
        if entry[0] in ("attach", "detach"):
            self.trace.log.append((entry[0], self.name))


def test_parents_detach_first_and_children_attach_first(iothread: IOThread) -> None:
    trace = Trace()
    disk, clusters, filter_log = Disk(), Clusters(1 << 20), Log()
    base = ram_node(disk, "base")
    disk.log = trace.of("base")  # type: ignore[assignment]  # a log that tells the order, too
    overlay = make_node(Overlay(), clusters, "overlay")
    clusters.log = trace.of("overlay")  # type: ignore[assignment]  # a log that tells the order, too
    edge.set_backing_hd(overlay, base)
    base.unref()
    top = put_below(make_node(Pass(), filter_log, "top"), overlay)
    filter_log.log = trace.of("top")  # type: ignore[assignment]  # a log that tells the order, too
    top.add_aio_context_notifier(
        lambda ctx: trace.log.append(("attach", "notifier")),
        lambda: trace.log.append(("detach", "notifier")),
    )
    blk = backend_on(top, f.BLK_PERM_CONSISTENT_READ)
    blk.set_aio_context(iothread.ctx)
    down = ["notifier", "top", "overlay", "base"]
    assert trace.log == [("detach", name) for name in down] + [
        ("attach", name) for name in reversed(down)
    ]
    filter_log.log, clusters.log, disk.log = [], [], []
    blk.unref()


def test_a_notifier_that_was_removed_is_not_called(iothread: IOThread) -> None:
    bs = ram_node(Disk())
    calls: list[object] = []
    notifier = bs.add_aio_context_notifier(calls.append, lambda: calls.append(None))
    bs.set_aio_context(iothread.ctx)
    assert calls == [None, iothread.ctx]
    bs.remove_aio_context_notifier(notifier)
    bs.set_aio_context(iothread.ctx.world.main_context)
    assert len(calls) == 2
    bs.unref()


def test_a_move_to_where_it_is_does_nothing(main: AioContext) -> None:
    disk = Disk()
    bs = ram_node(disk)
    bs.set_aio_context(main)
    assert disk.asked("detach", "attach") == []
    bs.unref()


# -- moves under load


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
