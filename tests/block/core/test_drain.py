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
from block.core import drain, edge, replace
from block.core.backend import BlockBackend
from block.core.node import BlockDriverState
from block.core.wait import poll_while
from tests.support.drivers import (
    Disk,
    Outcome,
    Ram,
    backend_on,
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
            lambda outcome=outcome: tree.blk.aio_preadv(  # type: ignore[misc]  # a lambda's default
                0, [memoryview(bytearray(512))], outcome
            )
        )
        begin(tree.bs)
        end(tree.bs)
        with iothread.ctx:
            poll_while(iothread.ctx, lambda outcome=outcome: outcome.pending)  # type: ignore[misc]  # a lambda's default
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
