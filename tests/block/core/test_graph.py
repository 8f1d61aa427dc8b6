# SPDX-License-Identifier: GPL-2.0-only
"""Nodes: names, references, loops, depth; edges that turn."""

from __future__ import annotations

import errno

import pytest

from block.aio.errors import UsedAfterFree
from block.core import edge, graph, replace
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.node import BlockDriverState
from tests.support.drivers import (
    Clusters,
    Disk,
    Fan,
    Log,
    Overlay,
    Ram,
    backend_on,
    make_node,
    pass_node,
    put_below,
    ram_node,
)


def test_a_node_without_a_name_gets_one() -> None:
    first, second = ram_node(Disk()), ram_node(Disk())
    assert first.node_name.startswith("#block")
    assert first.node_name != second.node_name
    assert graph.find_node(first.node_name) is first
    first.unref()
    second.unref()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("disk0", "Duplicate nodes with node-name='disk0'"),
        ("drive0", "node-name=drive0 is conflicting with a device id"),
        ("0disk", "Invalid node-name: '0disk'"),
        ("a b", "Invalid node-name: 'a b'"),
        ("x" * 32, "Node name too long"),
    ],
)
def test_a_bad_node_name_is_refused(name: str, message: str) -> None:
    blk = backend_on(ram_node(Disk(), "disk0"), name="drive0")
    bs = BlockDriverState()
    with pytest.raises(BlockError) as error:
        graph.assign_node_name(bs, name)
    assert str(error.value) == message
    bs.unref()
    blk.unref()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("drive0", "Device with id 'drive0' already exists"),
        ("disk0", "Device name 'disk0' conflicts with an existing node name"),
        ("", "Invalid device name"),
    ],
)
def test_a_bad_drive_id_is_refused(name: str, message: str) -> None:
    blk = backend_on(ram_node(Disk(), "disk0"), name="drive0")
    other = BlockBackend()
    with pytest.raises(BlockError) as error:
        other.set_name(name)
    assert str(error.value) == message
    other.unref()
    blk.unref()


def test_a_node_is_found_by_its_drive_or_by_its_name() -> None:
    blk = backend_on(ram_node(Disk(), "disk0"), name="drive0")
    assert graph.lookup_bs("drive0") is blk.bs is graph.lookup_bs("disk0")
    with pytest.raises(BlockError, match="Cannot find device='x' nor node-name='x'"):
        graph.lookup_bs("x")
    blk.remove_bs()
    with pytest.raises(BlockError, match="Device 'drive0' has no medium"):
        graph.lookup_bs("drive0")
    blk.unref()


def test_the_last_reference_closes_the_node_and_its_children() -> None:
    disk = Disk()
    child = ram_node(disk, "child")
    parent = pass_node(child, "parent")
    parent.unref()
    assert ("close",) in disk.log
    assert graph.find_node("child") is None


def test_a_closed_node_is_not_to_be_touched() -> None:
    bs = ram_node(Disk())
    bs.unref()
    for touch in (bs.ref, bs.unref):
        with pytest.raises(UsedAfterFree):
            touch()


def test_an_edge_that_was_taken_away_is_not_to_be_used() -> None:
    child = ram_node(Disk())
    parent = pass_node(child.ref())
    link = parent.file
    assert link is not None
    edge.unref_child(parent, link)
    with pytest.raises(UsedAfterFree, match="edge 'file'"):
        _ = link.bs
    parent.unref()
    child.unref()


def test_closing_flushes_what_was_written() -> None:
    disk = Disk()
    blk = backend_on(ram_node(disk))
    blk.pwrite(0, b"x")
    blk.unref()
    assert disk.flushes == 1


def test_a_loop_is_refused() -> None:
    child = ram_node(Disk(), "child")
    parent = pass_node(child.ref(), "parent")
    with pytest.raises(BlockError, match="Making 'parent' a child of 'child' would create a cycle"):
        edge.attach_child(child, parent.ref(), "file", f.BDRV_CHILD_DATA)
    parent.unref()
    child.unref()


def chain(depth: int) -> BlockDriverState:
    """Returns the top of a chain of so many nodes."""
    disk = Disk()
    disk.data[:3] = b"abc"
    bs = ram_node(disk)
    for _ in range(depth - 1):
        bs = pass_node(bs)
    return bs


def test_a_chain_of_200_nodes_works() -> None:
    with backend_on(chain(200)) as blk:
        blk.pwrite(3, b"def")
        assert blk.pread(0, 6) == b"abcdef"
        blk.flush()
        blk.drain()


def test_a_deeper_chain_is_refused() -> None:
    top = chain(200)
    overlay = make_node(Overlay(), Clusters(1 << 20))
    with pytest.raises(BlockError, match="201 nodes deep; at most 200 are supported"):
        edge.set_backing_hd(overlay, top)
    overlay.unref()
    top.unref()


def test_a_wide_tree_is_not_deep() -> None:
    fan = make_node(Fan(), Log())
    for number in range(1000):
        put_below(fan, ram_node(Disk(512)), f"child{number}", f.BDRV_CHILD_DATA)
    with backend_on(fan) as blk:
        assert blk.pread(0, 512) == bytes(512)


def test_an_overlay_goes_between_a_node_and_its_users() -> None:
    base = ram_node(Disk(), "base")
    blk = backend_on(base.ref())
    overlay = make_node(Overlay(), Clusters(1 << 20), "overlay")
    replace.append_node(overlay, base)
    blk.pwrite(0, b"new")
    assert blk.bs is overlay
    assert base.opaque.data[:3] == bytes(3), "the base is only read from now on"
    assert blk.pread(0, 4) == b"new\0"
    overlay.unref()
    base.unref()
    blk.unref()


def test_a_backing_file_can_be_taken_away() -> None:
    base = ram_node(Disk(), "base")
    overlay = make_node(Overlay(), Clusters(1 << 20))
    edge.set_backing_hd(overlay, base)
    assert base.refcnt == 2
    edge.set_backing_hd(overlay, None)
    assert (overlay.backing, base.refcnt) == (None, 1)
    overlay.unref()
    base.unref()


def test_a_child_that_grows_tells_its_parents() -> None:
    class Ops:
        resized = 0

        def resize(self) -> None:
            Ops.resized += 1

        def drained_begin(self) -> None: ...
        def drained_end(self) -> None: ...
        def drained_poll(self) -> bool:
            return False

    with backend_on(ram_node(Disk(512))) as blk:
        blk.set_dev_ops(Ops())  # type: ignore[arg-type]  # a device need not inherit
        blk.truncate(4096)
        assert (blk.length, Ops.resized) == (4096, 1)


def test_the_limits_of_a_backing_file_go_with_it() -> None:
    bs, backing = ram_node(Disk()), ram_node(Disk(max_transfer=4096))
    edge.set_backing_hd(bs, backing)
    assert bs.bl.max_transfer == 4096
    edge.set_backing_hd(bs, None)
    assert bs.bl.max_transfer == 0
    bs.unref()
    backing.unref()


def test_a_driver_that_fails_to_close_keeps_no_child_open() -> None:
    class Stubborn(Ram):
        def close(self, bs: BlockDriverState) -> None:
            raise OSError(errno.EIO, "cannot write the header")

    below = Disk()
    bs = ram_node(Disk(), "stubborn", driver=Stubborn)
    put_below(bs, ram_node(below), "file", f.BDRV_CHILD_DATA)
    with pytest.raises(OSError, match="cannot write the header"):
        bs.unref()
    assert ("close",) in below.log
    assert graph.find_node("stubborn") is None
