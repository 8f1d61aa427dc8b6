# SPDX-License-Identifier: GPL-2.0-only
"""Drained sections as a device sees them: requests that are parked, and what happens meanwhile."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from block.aio.context import AioContext
from block.aio.coroutine import Coroutine
from block.aio.iothread import IOThread
from block.aio.world import the_world
from block.core import drain, graph
from block.core import flags as f
from block.core.backend import BlockBackend, BlockDevOps
from block.core.node import BlockDriverState
from block.core.wait import poll_while
from tests.block.core.test_drain import depth
from tests.support.drivers import (
    Disk,
    Fan,
    FastRam,
    Log,
    Outcome,
    Ram,
    backend_on,
    make_node,
    pass_node,
    put_below,
    ram_node,
)


def noting(order: list[int], number: int) -> Callable[[int], None]:
    """Returns a callback that writes a number down."""
    return lambda ret: order.append(number)


@pytest.mark.parametrize("driver", [Ram, FastRam])
def test_requests_of_a_drained_section_run_after_it_in_order(
    driver: type[Ram], main: AioContext
) -> None:
    disk = Disk()
    blk = backend_on(ram_node(disk, driver=driver))
    order: list[int] = []
    bs = blk.bs
    assert bs is not None
    drain.drained_begin(bs)
    for number in range(5):
        blk.aio_preadv(512 * number, [memoryview(bytearray(512))], noting(order, number))
    while main.poll(False):
        pass
    assert disk.asked("preadv", "try_preadv") == []
    drain.drained_end(bs)
    blk.aio_preadv(512 * 5, [memoryview(bytearray(512))], noting(order, 5))
    blk.drain()
    poll_while(main, lambda: len(order) < 6)
    assert order == [0, 1, 2, 3, 4, 5]
    assert [entry[1] for entry in disk.asked("preadv", "try_preadv")] == [
        512 * number for number in range(6)
    ]
    blk.unref()


def test_a_coroutine_waits_for_the_end_of_the_section(main: AioContext) -> None:
    disk = Disk()
    blk = backend_on(ram_node(disk))
    bs = blk.bs
    assert bs is not None
    drain.drained_begin(bs)
    co = Coroutine(blk.co_pwritev(0, 3, [memoryview(b"abc")]), ctx=main)  # type: ignore[arg-type]  # it is a coroutine
    co.enter()
    assert disk.asked("pwritev") == []
    drain.drained_end(bs)
    poll_while(main, lambda: not co.done)
    assert disk.data[:3] == b"abc"
    blk.unref()


def test_a_parked_request_can_be_cancelled() -> None:
    disk = Disk()
    blk = backend_on(ram_node(disk))
    bs = blk.bs
    assert bs is not None
    drain.drained_begin(bs)
    outcome = Outcome()
    acb = blk.aio_preadv(0, [memoryview(bytearray(512))], outcome)
    acb.cancel_async()
    assert outcome.pending, "no callback before return"
    acb.cancel()
    assert outcome.ret == -errno.ECANCELED
    drain.drained_end(bs)
    assert disk.asked("preadv") == []
    blk.unref()


def test_to_cancel_a_running_request_waits_for_its_end(main: AioContext) -> None:
    disk = Disk()
    blk = backend_on(ram_node(disk))
    disk.parked = True
    outcome = Outcome()
    acb = blk.aio_preadv(0, [memoryview(bytearray(512))], outcome)
    main.bh_schedule_oneshot(disk.release)
    acb.cancel()
    assert (outcome.ret, outcome.calls) == (0, 1)
    blk.unref()


def test_the_device_is_told_and_asked() -> None:
    class Ops(BlockDevOps):
        log: list[str] = []
        busy = 2

        def drained_begin(self) -> None:
            self.log.append("begin")

        def drained_poll(self) -> bool:
            self.log.append("poll")
            Ops.busy -= 1
            return Ops.busy >= 0

        def drained_end(self) -> None:
            self.log.append("end")

    blk = backend_on(ram_node(Disk()))
    blk.set_dev_ops(Ops())
    bs = blk.bs
    assert bs is not None
    ctx = bs.aio_context
    ctx.bh_schedule_oneshot(lambda: ctx.bh_schedule_oneshot(lambda: None))
    drain.drained_begin(bs)
    drain.drained_begin(bs)
    drain.drained_end(bs)
    drain.drained_end(bs)
    assert [entry for entry in Ops.log if entry != "poll"] == ["begin", "end"]
    assert Ops.log[:4] == ["begin", "poll", "poll", "poll"]
    blk.set_dev_ops(None)
    blk.unref()


def test_external_handlers_rest_within_a_section(main: AioContext) -> None:
    bs = pass_node(ram_node(Disk()))
    drain.drained_begin(bs)
    assert main.external_disabled
    drain.drained_end(bs)
    assert not main.external_disabled
    bs.unref()


def test_drain_all_polls_each_context_once_a_round(
    iothread: IOThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """f406c03c09: with 50 nodes in a context it was polled 50 times a round."""
    disks = [Disk() for _ in range(50)]
    blks = [backend_on(ram_node(disk)) for disk in disks]
    for blk in blks:
        blk.set_aio_context(iothread.ctx)
    with iothread.ctx:
        for disk, blk in zip(disks, blks, strict=True):
            disk.parked = True
            blk.aio_preadv(0, [memoryview(bytearray(1))], Outcome())

        def release_all() -> None:
            for disk in disks:
                disk.release()

        iothread.ctx.bh_schedule_oneshot(release_all)
        polls: list[str] = []
        real = AioContext.poll
        monkeypatch.setattr(
            AioContext,
            "poll",
            lambda self, blocking: polls.append(self.name) or real(self, blocking),  # type: ignore[func-returns-value]  # append, then the real one
        )
        drain.drain_all()
    assert 1 <= len(polls) <= 4
    assert list(graph.by_context()) == [iothread.ctx]
    for blk in blks:
        blk.unref()


def test_drain_all_takes_a_context_as_often_for_many_nodes_as_for_one(
    iothread: IOThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time the IOThread is woken, stands aside, and wants it back."""
    taken: list[str] = []
    real = AioContext.acquire
    who = the_world().current
    main_thread = who()

    def acquire(ctx: AioContext) -> None:
        if ctx is iothread.ctx and not ctx.is_home() and who() == main_thread:
            taken.append(ctx.name)
        real(ctx)

    monkeypatch.setattr(AioContext, "acquire", acquire)
    counts: list[int] = []
    blks: list[BlockBackend] = []
    for number in (1, 20):
        while len(blks) < number:
            blks.append(backend_on(ram_node(Disk())))
            blks[-1].set_aio_context(iothread.ctx)
        taken.clear()
        drain.drain_all()
        counts.append(len(taken))
    assert counts == [3, 3], "to begin, to wait, to end"
    for blk in blks:
        blk.unref()


def test_close_all_takes_every_tree_out_in_its_own_context(iothread: IOThread) -> None:
    disk, other_disk = Disk(), Disk()
    blk, other = backend_on(ram_node(disk)), backend_on(ram_node(other_disk))
    blk.set_aio_context(iothread.ctx)
    outcome = Outcome()
    with iothread.ctx:
        blk.aio_pwritev(0, [memoryview(b"x")], outcome)
    drain.close_all()
    assert outcome.ret == 0
    assert ("close",) in disk.log
    assert ("close",) in other_disk.log
    assert not graph.all_states
    blk.unref()
    other.unref()


def test_a_synchronous_request_inside_a_coroutine_is_refused(main: AioContext) -> None:
    blk = backend_on(ram_node(Disk()))

    async def work() -> None:
        blk.pread(0, 1)

    co = Coroutine(work(), ctx=main)
    with pytest.raises(AssertionError, match="inside a coroutine"):
        co.enter()
    blk.unref()


def test_several_children_are_drained_with_their_parent() -> None:
    disks = [Disk(512) for _ in range(3)]
    top = pass_node(ram_node(disks[0]))
    for number, disk in enumerate(disks[1:]):
        put_below(top, ram_node(disk), f"extra{number}", f.BDRV_CHILD_DATA)
    drain.subtree_drained_begin(top)
    assert [depth(disk) for disk in disks] == [1, 1, 1]
    drain.subtree_drained_end(top)
    assert [depth(disk) for disk in disks] == [0, 0, 0]
    top.unref()


# -- requests that are parked when something else happens


def test_a_parked_request_of_a_backend_whose_tree_is_taken_out_finds_no_medium(
    main: AioContext,
) -> None:
    bs = ram_node(Disk())
    blk, outcome = backend_on(bs.ref()), Outcome()
    drain.drained_begin(bs)
    blk.aio_preadv(0, [memoryview(bytearray(512))], outcome)
    blk.remove_bs()
    assert outcome.pending
    poll_while(main, lambda: outcome.pending)
    assert outcome.ret == -errno.ENOMEDIUM
    drain.drained_end(bs)
    blk.unref()
    bs.unref()


def test_a_backend_that_goes_ends_its_parked_requests_first() -> None:
    bs = ram_node(Disk())
    blk, outcome = backend_on(bs.ref()), Outcome()
    drain.drained_begin(bs)
    blk.aio_preadv(0, [memoryview(bytearray(512))], outcome)
    blk.unref()
    assert outcome.ret == -errno.ENOMEDIUM
    drain.drained_end(bs)
    bs.unref()


def test_a_mistake_in_a_driver_keeps_no_other_parked_request_waiting(main: AioContext) -> None:
    class Mistaken(Ram):
        async def co_preadv(self, *args: object) -> None:
            raise ZeroDivisionError

    bs = ram_node(Disk(), driver=Mistaken)
    blk, read, write = backend_on(bs.ref()), Outcome(), Outcome()
    drain.drained_begin(bs)
    blk.aio_preadv(0, [memoryview(bytearray(512))], read)
    blk.aio_pwritev(0, [memoryview(bytes(512))], write)
    drain.drained_end(bs)
    with pytest.raises(ZeroDivisionError):
        poll_while(main, lambda: write.pending)
    poll_while(main, lambda: write.pending)
    assert (read.ret, write.ret) == (-errno.EIO, 0)
    blk.unref()
    bs.unref()


def test_a_node_that_is_made_while_all_are_drained_is_drained_too() -> None:
    made: list[BlockDriverState] = []

    class Maker(Ram):
        def drain_begin(self, bs: BlockDriverState) -> None:
            if not made:
                made.append(ram_node(Disk()))

    bs = ram_node(Disk(), driver=Maker)
    drain.drain_all_begin()
    assert made[0].quiesce_counter == 1
    drain.drain_all_end()
    assert made[0].quiesce_counter == bs.quiesce_counter == 0
    made[0].unref()
    bs.unref()


def test_a_child_that_comes_within_drain_all_leaves_its_parent_free() -> None:
    """The parent has a section of its own there, and was told of the child's once more."""
    parent = put_below(make_node(Fan(), Log()), ram_node(Disk()), "first", f.BDRV_CHILD_DATA)
    blk = backend_on(parent)
    drain.drain_all_begin()
    put_below(parent, ram_node(Disk()), "second", f.BDRV_CHILD_DATA)
    assert parent.quiesce_counter == 1
    drain.drain_all_end()
    assert parent.quiesce_counter == 0
    assert blk.quiesce_counter == 0
    assert blk.pread(0, 1) == b"\0"
    blk.unref()


def test_drain_all_looks_at_each_node_a_few_times_only(
    iothread: IOThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, when nothing is in flight: neither once for each context nor once for each parent."""
    visits: list[BlockDriverState] = []
    real = drain.drain_poll

    def counted(bs: BlockDriverState, *args: object) -> bool:
        visits.append(bs)
        return real(bs, *args)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(drain, "drain_poll", counted)
    for n in (30, 120):
        blks = [backend_on(pass_node(ram_node(Disk(512)))) for _ in range(n)]
        for blk in blks[::2]:
            blk.set_aio_context(iothread.ctx)
        visits.clear()
        drain.drain_all()
        assert len(visits) == 2 * n
        for blk in blks:
            blk.unref()
