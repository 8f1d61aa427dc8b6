# SPDX-License-Identifier: GPL-2.0-only
"""Moving trees between event loops; the cases of QEMU's tests/test-block-iothread.c first."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.aio.world import the_world
from block.core import drain, edge, graph
from block.core import flags as f
from block.core.backend import BlockDevOps
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
def test_sync_op(request_of: object, iothread: IOThread, main: AioContext) -> None:
    """The main thread waits for an operation of a tree that lives in an IOThread."""
    blk = backend_on(ram_node(Disk(65536)))
    blk.set_aio_context(iothread.ctx)
    request_of(blk)  # type: ignore[operator]
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
            lambda ctx, bs=bs: order.append(f"attach {bs.node_name}"),  # type: ignore[misc]
            lambda bs=bs: order.append(f"detach {bs.node_name}"),  # type: ignore[misc]
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
    disk.log = trace.of("base")  # type: ignore[assignment]
    overlay = make_node(Overlay(), clusters, "overlay")
    clusters.log = trace.of("overlay")  # type: ignore[assignment]
    edge.set_backing_hd(overlay, base)
    base.unref()
    top = put_below(make_node(Pass(), filter_log, "top"), overlay)
    filter_log.log = trace.of("top")  # type: ignore[assignment]
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


# -- users


def test_a_named_backend_refuses_to_follow_another(iothread: IOThread) -> None:
    bs = ram_node(Disk())
    blk, other = backend_on(bs.ref()), backend_on(bs, name="drive0")
    with pytest.raises(BlockError, match="Cannot change iothread of active block backend"):
        blk.set_aio_context(iothread.ctx)
    other.allow_aio_context_change = True
    blk.set_aio_context(iothread.ctx)
    assert other.aio_context is iothread.ctx
    blk.unref()
    other.unref()


def test_a_device_is_told_around_the_move(iothread: IOThread) -> None:
    class Ops(BlockDevOps):
        log: list[str] = []

        def drained_begin(self) -> None:
            self.log.append("begin")

        def drained_end(self) -> None:
            self.log.append(f"end in {blk.aio_context.name}")

    blk = backend_on(ram_node(Disk()))
    blk.set_dev_ops(Ops())
    blk.set_aio_context(iothread.ctx)
    assert Ops.log == ["begin", "end in iothread0"]
    blk.set_dev_ops(None)
    blk.unref()


def test_only_the_main_thread_moves_trees(iothread: IOThread) -> None:
    bs = ram_node(Disk())
    failure: list[BaseException] = []

    def elsewhere() -> None:
        try:
            bs.set_aio_context(iothread.ctx)
        except AssertionError as error:
            failure.append(error)

    the_world().start_thread("elsewhere", elsewhere).join()
    assert "outside the main thread" in str(failure[0])
    bs.unref()


def test_requests_that_are_parked_move_along(iothread: IOThread, main: AioContext) -> None:
    disk = Disk()
    blk = backend_on(ram_node(disk))
    bs = blk.bs
    assert bs is not None
    drain.drained_begin(bs)
    outcomes = [Outcome() for _ in range(3)]
    for outcome in outcomes:
        blk.aio_preadv(0, [memoryview(bytearray(512))], outcome)
    blk.set_aio_context(iothread.ctx)
    drain.drained_end(bs)
    while any(outcome.pending for outcome in outcomes):
        main.poll(False)
    assert {outcome.thread for outcome in outcomes} == disk.threads
    assert the_world().current() not in disk.threads
    blk.unref()


def test_parked_requests_wait_for_the_last_of_several_moves(main: AioContext) -> None:
    blk = backend_on(ram_node(Disk()))
    bs = blk.bs
    assert bs is not None
    elsewhere = AioContext("elsewhere")
    elsewhere.disown()
    drain.drained_begin(bs)
    outcome = Outcome()
    blk.aio_preadv(0, [memoryview(bytearray(512))], outcome)
    drain.drained_end(bs)  # main has been told to go on, and has not done so yet
    blk.set_aio_context(elsewhere)
    while main.poll(False):
        pass
    assert outcome.pending
    with elsewhere:
        poll_while(elsewhere, lambda: outcome.pending)
    assert outcome.ret == 0
    blk.set_aio_context(main)
    blk.unref()
    with elsewhere:
        elsewhere.close()


def test_a_move_waits_for_requests_in_flight(iothread: IOThread, main: AioContext) -> None:
    disk = Disk()
    blk = backend_on(ram_node(disk))
    disk.parked = True
    outcome = Outcome()
    blk.aio_pwritev(0, [memoryview(b"x")], outcome)
    main.bh_schedule_oneshot(disk.release)
    blk.set_aio_context(iothread.ctx)
    assert outcome.ret == 0
    assert disk.log.index(("detach", "main")) > disk.log.index(("pwritev", 0, 1, 0))
    blk.unref()


@pytest.mark.parametrize("above", [False, True], ids=["below", "above"])
def test_a_node_that_comes_while_the_move_waits_moves_along(
    above: bool, iothread: IOThread, main: AioContext
) -> None:
    disk = Disk()
    top = fan_over([ram_node(disk)])
    blk = backend_on(top.ref(), f.BLK_PERM_CONSISTENT_READ)
    late = fan_over([small_node()])
    disk.parked = True
    outcome = Outcome()
    blk.aio_preadv(0, [memoryview(bytearray(512))], outcome)

    def come() -> None:
        parent, child = (late, top) if above else (top, late)
        put_below(parent, child.ref(), "late", f.BDRV_CHILD_DATA)
        disk.release()

    main.bh_schedule_oneshot(come)
    blk.set_aio_context(iothread.ctx)
    assert outcome.ret == 0
    nodes = graph.component(top)
    assert len(nodes) == 4
    assert {bs.aio_context for bs in nodes} == {iothread.ctx}
    assert {bs.quiesce_counter for bs in nodes} == {0}
    assert blk.quiesce_counter == 0
    blk.unref()
    for bs in (top, late):
        bs.unref()


@pytest.mark.parametrize("closed", [False, True], ids=["kept", "closed"])
def test_a_node_that_goes_while_the_move_waits_stays(
    closed: bool, iothread: IOThread, main: AioContext
) -> None:
    disk, leaving = Disk(), ram_node(Disk(), "leaving")
    top = put_below(make_node(Fan(), Log()), ram_node(disk), "stays", f.BDRV_CHILD_DATA)
    put_below(top, leaving.ref(), "leaving", f.BDRV_CHILD_DATA)
    blk = backend_on(top)
    disk.parked = True
    blk.aio_preadv(0, [memoryview(bytearray(512))], Outcome())

    def go() -> None:
        edge.unref_child(top, top.child("leaving"))
        if closed:
            leaving.unref()
        disk.release()

    main.bh_schedule_oneshot(go)
    blk.set_aio_context(iothread.ctx)
    assert leaving.aio_context is main
    assert leaving.quiesce_counter == 0
    assert not main.external_disabled
    blk.unref()
    if not closed:
        leaving.unref()
