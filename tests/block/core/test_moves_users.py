# SPDX-License-Identifier: GPL-2.0-only
"""Moving trees between event loops: their users go with them, or say why not."""

from __future__ import annotations

import pytest

from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.aio.world import the_world
from block.core import drain, edge, graph
from block.core import flags as f
from block.core.backend import BlockDevOps
from block.core.error import BlockError
from block.core.wait import poll_while
from tests.block.core.test_context import fan_over, small_node
from tests.support.drivers import (
    Disk,
    Fan,
    Log,
    Outcome,
    backend_on,
    make_node,
    put_below,
    ram_node,
)


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
