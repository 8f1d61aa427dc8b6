# SPDX-License-Identifier: GPL-2.0-only
"""Drained sections: the cases of QEMU's tests/test-bdrv-drain.c and test-block-backend.c.

Under QEMU's names; those that need block jobs come with the jobs. Drain by the caller, by a
parent, nested, with several parents, in an IOThread; what changes in the tree meanwhile.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from block.aio.context import AioContext
from block.aio.coroutine import Coroutine
from block.aio.iothread import IOThread
from block.aio.world import the_world
from block.core import drain, edge, graph, replace
from block.core import flags as f
from block.core.backend import BlockBackend, BlockDevOps
from block.core.node import BlockDriverState
from block.core.wait import poll_while
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

Begin = Callable[[BlockDriverState], None]


def all_begin(bs: BlockDriverState) -> None:
    drain.drain_all_begin()


def all_end(bs: BlockDriverState) -> None:
    drain.drain_all_end()


KINDS: dict[str, tuple[Begin, Begin, bool]] = {
    "drain_all": (all_begin, all_end, True),
    "drain": (drain.drained_begin, drain.drained_end, False),
    "drain_subtree": (drain.subtree_drained_begin, drain.subtree_drained_end, True),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


class Tree:
    """A node with a backing file, and a backend on top."""

    def __init__(self, driver: type[Ram] = Ram) -> None:
        self.disk, self.backing_disk = Disk(), Disk()
        self.bs = ram_node(self.disk, "test-node", driver)
        self.backing = ram_node(self.backing_disk, "backing")
        edge.set_backing_hd(self.bs, self.backing)
        self.blk = backend_on(self.bs)

    def sections(self) -> tuple[int, int]:
        """How often the drivers of node and backing file are drained now."""
        return depth(self.disk), depth(self.backing_disk)

    def close(self) -> None:
        self.blk.unref()
        self.backing.unref()


def depth(disk: Disk) -> int:
    return len(disk.asked("drain_begin")) - len(disk.asked("drain_end"))


@pytest.fixture
def tree() -> Tree:
    return Tree()


@each_kind
def test_drv_cb(kind: str, tree: Tree) -> None:
    """The driver is told; a request in flight is through when the section begins."""
    begin, end, recursive = KINDS[kind]
    begin(tree.bs)
    assert tree.sections() == (1, int(recursive))
    end(tree.bs)
    assert tree.sections() == (0, 0)

    outcome = Outcome()
    tree.blk.aio_preadv(0, [memoryview(bytearray(512))], outcome)
    assert outcome.pending
    begin(tree.bs)
    assert outcome.ret == 0
    assert tree.sections() == (1, int(recursive))
    end(tree.bs)
    assert tree.sections() == (0, 0)
    tree.close()


@pytest.mark.parametrize("kind", ["drain"])
def test_drv_cb_co(kind: str, tree: Tree, main: AioContext) -> None:
    """A coroutine drains by leaving itself; the section holds when it goes on."""
    seen: list[tuple[int, int]] = []

    async def work() -> None:
        await drain.co_drained_begin(tree.bs)
        seen.append(tree.sections())
        await drain.co_drained_end(tree.bs)
        seen.append(tree.sections())
        await drain.co_drain(tree.bs)

    co = Coroutine(work(), ctx=main)
    co.enter()
    poll_while(main, lambda: not co.done)
    assert seen == [(1, 0), (0, 0)]
    tree.close()


@each_kind
def test_quiesce(kind: str, tree: Tree) -> None:
    begin, end, recursive = KINDS[kind]
    begin(tree.bs)
    assert (tree.bs.quiesce_counter, tree.backing.quiesce_counter) == (1, int(recursive))
    end(tree.bs)
    assert (tree.bs.quiesce_counter, tree.backing.quiesce_counter) == (0, 0)
    tree.close()


@pytest.mark.parametrize("outer", KINDS)
@pytest.mark.parametrize("inner", KINDS)
def test_nested(outer: str, inner: str, tree: Tree) -> None:
    backing = int(KINDS[outer][2]) + int(KINDS[inner][2])
    KINDS[outer][0](tree.bs)
    KINDS[inner][0](tree.bs)
    assert (tree.bs.quiesce_counter, tree.backing.quiesce_counter) == (2, backing)
    assert tree.sections() == (2, backing)
    KINDS[inner][1](tree.bs)
    KINDS[outer][1](tree.bs)
    assert (tree.bs.quiesce_counter, tree.backing.quiesce_counter) == (0, 0)
    assert tree.sections() == (0, 0)
    tree.close()


def test_multiparent(tree: Tree) -> None:
    """To drain a shared backing file by one parent's subtree quiesces the other parent, too."""
    other_disk = Disk()
    other = ram_node(other_disk, "other")
    edge.set_backing_hd(other, tree.backing)
    drain.subtree_drained_begin(tree.bs)
    assert (tree.bs.quiesce_counter, other.quiesce_counter) == (1, 1)
    drain.subtree_drained_begin(other)
    assert (tree.bs.quiesce_counter, other.quiesce_counter) == (2, 2)
    assert tree.backing.quiesce_counter == 2
    drain.subtree_drained_end(other)
    assert (tree.bs.quiesce_counter, other.quiesce_counter, depth(other_disk)) == (1, 1, 1)
    drain.subtree_drained_end(tree.bs)
    assert (tree.bs.quiesce_counter, other.quiesce_counter, depth(other_disk)) == (0, 0, 0)
    other.unref()
    tree.close()


def test_graph_change_drain_subtree(tree: Tree) -> None:
    """Who comes into a drained subtree is drained, who leaves it is not any more."""
    new = ram_node(Disk(), "new")
    drain.subtree_drained_begin(tree.bs)
    edge.set_backing_hd(tree.bs, new)
    assert (tree.backing.quiesce_counter, new.quiesce_counter) == (0, 1)
    assert (tree.bs.quiesce_counter, new.recursive_quiesce_counter) == (1, 1)
    edge.set_backing_hd(tree.bs, None)
    assert new.quiesce_counter == 0
    drain.subtree_drained_end(tree.bs)
    new.unref()
    tree.close()


def test_graph_change_drain_all(tree: Tree) -> None:
    """A node that is closed within drain_all leaves nothing of the section behind."""
    other = backend_on(ram_node(Disk(), "other"))
    drain.drain_all_begin()
    assert other.quiesce_counter == 1
    other.remove_bs()
    assert other.quiesce_counter == 0
    drain.drain_all_end()
    assert tree.bs.quiesce_counter == 0
    other.unref()
    tree.close()


@each_kind
def test_iothread(kind: str, iothread: IOThread) -> None:
    """The main thread drains a node of an IOThread; the request ends, the callback has run."""
    begin, end, _ = KINDS[kind]
    tree = Tree()
    tree.blk.set_aio_context(iothread.ctx)
    for _ in range(20):
        outcome = Outcome()
        iothread.ctx.bh_schedule_oneshot(
            lambda outcome=outcome: tree.blk.aio_preadv(  # type: ignore[misc]
                0, [memoryview(bytearray(512))], outcome
            )
        )
        begin(tree.bs)
        end(tree.bs)
        with iothread.ctx:
            poll_while(iothread.ctx, lambda outcome=outcome: outcome.pending)  # type: ignore[misc]
        assert outcome.ret == 0
    tree.close()


def test_a_request_that_is_parked_in_the_driver_holds_the_section_up(
    iothread: IOThread,
) -> None:
    tree = Tree()
    tree.blk.set_aio_context(iothread.ctx)
    tree.disk.parked = True
    outcome = Outcome()
    with iothread.ctx:
        tree.blk.aio_pwritev(0, [memoryview(b"x")], outcome)
    lock = the_world().new_lock()
    time_is_up = the_world().new_condition(lock)

    def release_late() -> None:
        with lock:
            time_is_up.wait(0.05)
        iothread.ctx.bh_schedule_oneshot(tree.disk.release)

    late = the_world().start_thread("late", release_late)
    drain.drained_begin(tree.bs)
    assert outcome.ret == 0
    late.join()
    drain.drained_end(tree.bs)
    tree.close()


def test_detach_by_drain(tree: Tree) -> None:
    """A callback that runs while draining takes away a child; the drain ends all the same."""
    tree.disk.parked = True
    done: list[int] = []

    def callback(ret: int) -> None:
        edge.set_backing_hd(tree.bs, None)
        done.append(ret)

    tree.blk.aio_preadv(0, [memoryview(bytearray(512))], callback)
    tree.bs.aio_context.bh_schedule_oneshot(tree.disk.release)
    drain.subtree_drained_begin(tree.bs)
    assert done == [0]
    assert (tree.bs.backing, tree.backing.quiesce_counter) == (None, 0)
    drain.subtree_drained_end(tree.bs)
    tree.close()


def test_delete_by_drain(main: AioContext) -> None:
    """The last reference goes while draining; the node lives until the section is over."""
    disk = Disk()
    blk = backend_on(ram_node(disk))
    bs = blk.bs
    assert bs is not None
    disk.parked = True
    blk.aio_preadv(0, [memoryview(bytearray(512))], lambda ret: None)
    main.bh_schedule_oneshot(disk.release)
    main.bh_schedule_oneshot(bs.unref)
    bs.ref()
    drain.drained_begin(bs)
    drain.drained_end(bs)
    blk.unref()
    assert ("close",) in disk.log


def test_append_to_drained() -> None:
    """What is put on top of a drained node is drained, and freed with it."""
    base = ram_node(Disk(), "base")
    blk = backend_on(base.ref())
    overlay_disk = Disk()
    overlay = ram_node(overlay_disk, "overlay")
    drain.drained_begin(base)
    replace.append_node(overlay, base)
    assert (base.quiesce_counter, overlay.quiesce_counter, depth(overlay_disk)) == (1, 1, 1)
    assert blk.quiesce_counter == 1
    drain.drained_end(base)
    assert (base.quiesce_counter, overlay.quiesce_counter, depth(overlay_disk)) == (0, 0, 0)
    assert blk.quiesce_counter == 0
    blk.unref()
    overlay.unref()
    base.unref()


def test_set_aio_context(iothread: IOThread, second_iothread: IOThread, main: AioContext) -> None:
    """A drained node moves, and its section goes along."""
    bs = ram_node(Disk())
    drain.drained_begin(bs)
    bs.set_aio_context(iothread.ctx)
    assert iothread.ctx.external_disabled
    assert not main.external_disabled
    drain.drained_end(bs)
    assert not iothread.ctx.external_disabled
    drain.drained_begin(bs)
    bs.set_aio_context(second_iothread.ctx)
    bs.set_aio_context(main)
    drain.drained_end(bs)
    assert not main.external_disabled
    bs.unref()


def test_replace_child_mid_drain() -> None:
    """An edge that turns from a drained to a free node lets its parent go on."""
    drained, free = ram_node(Disk(), "drained"), ram_node(Disk(), "free")
    blk = backend_on(drained.ref())
    drain.drained_begin(drained)
    assert blk.quiesce_counter == 1
    replace.replace_node(drained, free)
    assert (blk.bs, blk.quiesce_counter) == (free, 0)
    drain.drained_end(drained)
    drained.unref()
    free.unref()
    blk.unref()


def test_drain_aio_error() -> None:
    """test-block-backend.c: a request without a medium fails, and a drain waits for it."""
    blk = BlockBackend()
    outcome = Outcome()
    blk.aio_flush(outcome)
    assert outcome.pending
    blk.drain()
    assert outcome.ret == -errno.ENOMEDIUM
    blk.unref()


def test_drain_all_aio_error() -> None:
    blk = BlockBackend()
    outcome = Outcome()
    blk.aio_flush(outcome)
    assert outcome.pending
    drain.drain_all()
    assert outcome.ret == -errno.ENOMEDIUM
    blk.unref()


# -- what a device sees


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
    co = Coroutine(blk.co_pwritev(0, 3, [memoryview(b"abc")]), ctx=main)  # type: ignore[arg-type]
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
            lambda self, blocking: polls.append(self.name) or real(self, blocking),  # type: ignore[func-returns-value]
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
        return real(bs, *args)  # type: ignore[arg-type]

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
