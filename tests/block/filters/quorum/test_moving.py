# SPDX-License-Identifier: GPL-2.0-only
"""A quorum that moves, grows, shrinks and is closed while it is used."""

from __future__ import annotations

import pytest

from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.core import change, edge
from block.core import flags as f
from block.core.error import BlockError
from block.core.node import BlockDriverState
from block.core.wait import poll_while
from block.filters.quorum.driver import QuorumDriver
from tests.support.drivers import Disk, Outcome, ReleasingRam, backend_on, pass_node, ram_node
from tests.support.voters import SIZE, Voters


def newcomer(
    size: int = SIZE, letter: bytes = b"A", name: str = ""
) -> tuple[Disk, BlockDriverState]:
    """A disk full of one letter, and a node over it."""
    disk = Disk(size)
    disk.data[:] = letter * size
    return disk, ram_node(disk, name)


# -- moving


def test_all_children_move_along_and_back(iothread: IOThread, main: AioContext) -> None:
    """Patch 12: the children are the driver's own; it walks them."""
    with Voters("AAA") as voters:
        for ctx in (iothread.ctx, main, iothread.ctx):
            before = voters.bs.aio_context.name
            for disk in voters.disks:
                disk.log.clear()
            voters.blk.set_aio_context(ctx)
            assert {bs.aio_context for bs in (voters.bs, *voters.nodes)} == {ctx}
            for disk in voters.disks:
                walked = disk.asked("detach", "attach")
                assert walked == [("detach", before), ("attach", ctx.name)]
            voters.blk.pwrite(0, ctx.name.encode())
            assert voters.blk.pread(0, len(ctx.name)) == ctx.name.encode()


@pytest.mark.parametrize("rewrites", [False, True])
def test_requests_on_their_way_end_before_the_move(
    rewrites: bool, iothread: IOThread, main: AioContext
) -> None:
    with Voters("AAA", driver=ReleasingRam, rewrite_corrupted=rewrites) as voters:
        for disk in voters.disks:
            disk.parked = True
        outcomes = [Outcome() for _ in range(8)]
        for n, outcome in enumerate(outcomes):
            voters.blk.aio_pwritev(n * 512, [memoryview(bytes([n]) * 512)], outcome)
        voters.blk.set_aio_context(iothread.ctx)
        poll_while(iothread.ctx, lambda: any(outcome.pending for outcome in outcomes))
        assert [outcome.ret for outcome in outcomes] == [0] * 8
        for n in range(8):
            assert voters.blk.pread(n * 512, 512) == bytes([n]) * 512
        assert voters.told == []


def test_a_copy_is_mended_in_whatever_context(iothread: IOThread) -> None:
    with Voters("ABA", rewrite_corrupted=True) as voters:
        voters.blk.set_aio_context(iothread.ctx)
        assert voters.blk.pread(512, 512) == b"A" * 512
        assert voters.disks[1].data[512:1024] == b"A" * 512
        assert voters.told == [("read", 1, None)]


def test_it_can_be_closed_in_another_context(iothread: IOThread) -> None:
    with Voters("AAA") as voters:
        voters.blk.set_aio_context(iothread.ctx)
        voters.blk.pwrite(0, b"last words")
    for disk in voters.disks:
        assert disk.flushes == 1
        assert disk.log[-1] == ("close",)


def test_a_child_below_another_filter_moves_once(iothread: IOThread) -> None:
    disk, node = newcomer()
    with Voters("A", 1) as voters:
        change.add_child(voters.bs, top := pass_node(node))
        top.unref()
        disk.log.clear()
        voters.blk.set_aio_context(iothread.ctx)
        assert disk.asked("detach", "attach") == [("detach", "main"), ("attach", "iothread0")]


# -- children that come


def test_a_child_that_comes_votes_and_is_written_to() -> None:
    disk, node = newcomer(letter=b"B")
    with Voters("AB", 1) as voters:
        assert voters.blk.pread(0, 1) == b"B"
        other, more = newcomer()
        change.add_child(voters.bs, more)
        more.unref()
        assert voters.blk.pread(0, 1) == b"A"
        voters.blk.pwrite(0, b"x")
        assert other.data[:2] == b"xA"
        assert [child.name for child in voters.bs.children][-1] == "children.2"
    node.unref()
    assert disk.asked("pwritev") == []


def test_a_child_that_comes_is_brought_into_the_context(
    iothread: IOThread, main: AioContext
) -> None:
    disk, node = newcomer()
    with Voters("AA", 1) as voters:
        voters.blk.set_aio_context(iothread.ctx)
        change.add_child(voters.bs, node)
        assert node.aio_context is iothread.ctx
        voters.blk.pwrite(0, b"there")
        assert disk.data[:5] == b"there"
        change.del_child(voters.bs, "children.2")
        assert node.aio_context is main
        voters.blk.pwrite(0, b"alone")
        assert disk.data[:5] == b"there"
    node.unref()


@pytest.mark.parametrize("way", ["comes", "goes"])
def test_requests_on_their_way_see_the_children_that_they_began_with(
    way: str, main: AioContext
) -> None:
    _, node = newcomer()
    with Voters("AAA", 2) as voters:
        outcome, buffer = Outcome(), bytearray(512)
        for disk in voters.disks:
            disk.parked = True
        voters.blk.aio_preadv(0, [memoryview(buffer)], outcome)
        for disk in voters.disks:
            main.bh_schedule_oneshot(disk.release)
        assert outcome.pending
        if way == "comes":
            change.add_child(voters.bs, node)
        else:
            change.del_child(voters.bs, "children.0")
        assert outcome.ret == 0
        assert buffer == b"A" * 512
        assert len(voters.bs.children) == {"comes": 4, "goes": 2}[way]
        voters.blk.pwrite(0, b"goes on")
        assert voters.blk.pread(0, 7) == b"goes on"
    node.unref()


@pytest.mark.parametrize(
    ("options", "size", "message"),
    [
        ({"blkverify": True}, SIZE, "Cannot add a child to a quorum in blkverify mode"),
        (
            {},
            SIZE * 2,
            "The node new is 131072 bytes long, the children of top are 65536",
        ),
    ],
)
def test_a_child_that_does_not_fit_is_refused(
    options: dict[str, object], size: int, message: str
) -> None:
    _, node = newcomer(size, name="new")
    with Voters("AA", 2, node_name="top", **options) as voters:
        with pytest.raises(BlockError) as error:
            change.add_child(voters.bs, node)
        assert str(error.value) == message
        assert len(voters.bs.children) == 2
        assert voters.blk.pread(0, 1) == b"A"
    node.unref()


def test_a_child_that_somebody_else_writes_to_is_refused_and_changes_nothing() -> None:
    _, node = newcomer()
    with Voters("AA", 2) as voters:
        writer = edge.root_attach_child(
            node.ref(), "user", edge.ChildClass(), f.BDRV_CHILD_DATA, None,
            f.BLK_PERM_WRITE, f.BLK_PERM_ALL, object(),
        )  # fmt: skip
        with pytest.raises(BlockError, match="already has a parent"):
            change.add_child(voters.bs, node)
        with pytest.raises(BlockError, match="uses 'write'"):
            QuorumDriver().add_child(voters.bs, node)
        edge.root_unref_child(writer)
        change.add_child(voters.bs, node)
        assert voters.bs.children[-1].name == "children.2"
    node.unref()


# -- children that go


def test_a_child_that_goes_votes_no_more_and_its_name_may_come_again() -> None:
    with Voters("ABB", 1) as voters:
        assert voters.blk.pread(0, 1) == b"B"
        change.del_child(voters.bs, "children.2")
        change.del_child(voters.bs, "children.1")
        assert voters.blk.pread(0, 1) == b"A"
        _, node = newcomer()
        change.add_child(voters.bs, node)
        node.unref()
        assert [child.name for child in voters.bs.children] == ["children.0", "children.1"]


def test_the_names_of_those_who_stay_do_not_change() -> None:
    with Voters("AAA", 1) as voters:
        change.del_child(voters.bs, "children.0")
        _, node = newcomer()
        change.add_child(voters.bs, node)
        node.unref()
        names = [child.name for child in voters.bs.children]
        assert names == ["children.1", "children.2", "children.3"]


@pytest.mark.parametrize(
    ("letters", "name", "message"),
    [
        (
            "AA",
            "children.1",
            "The number of children cannot be lower than the vote threshold 2",
        ),
        ("AAA", "children.3", "Node 'top' does not have child 'children.3'"),
    ],
)
def test_who_is_needed_cannot_go(letters: str, name: str, message: str) -> None:
    with Voters(letters, 2, node_name="top") as voters:
        with pytest.raises(BlockError) as error:
            change.del_child(voters.bs, name)
        assert str(error.value) == message
        assert len(voters.bs.children) == len(letters)


def test_other_drivers_have_children_for_good() -> None:
    _, node = newcomer(name="loose")
    blk = backend_on(pass_node(ram_node(Disk()), "pass"), name="disk1")
    assert blk.bs is not None
    for deed, what in (
        (lambda: change.add_child(blk.bs, node), "adding"),
        (lambda: change.del_child(blk.bs, "file"), "removing"),
    ):
        with pytest.raises(BlockError) as error:
            deed()
        assert str(error.value) == f"The node disk1 does not support {what} a child"
    blk.unref()
    node.unref()
