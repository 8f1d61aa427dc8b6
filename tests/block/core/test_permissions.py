# SPDX-License-Identifier: GPL-2.0-only
"""Permissions of edges; the first four are the cases of QEMU's tests/test-bdrv-graph-mod.c."""

from __future__ import annotations

import errno

import pytest

from block.core import edge, permissions, replace
from block.core import flags as f
from block.core.error import BlockError
from block.core.node import BlockDriverState
from tests.support.drivers import (
    Clusters,
    Disk,
    Log,
    Overlay,
    Pass,
    Ram,
    backend_on,
    make_node,
    pass_node,
    put_below,
    ram_node,
)

READ = f.BLK_PERM_CONSISTENT_READ
WRITE = f.BLK_PERM_WRITE
ALL = f.BLK_PERM_ALL


class LockingRam(Ram):
    """Remembers what it was asked to check, to set and to abort; refuses on order."""

    def check_perm(self, bs: BlockDriverState, perm: int, shared: int) -> None:
        bs.opaque.log.append(("check", perm, shared))
        if "check_perm" in bs.opaque.errors:
            raise bs.opaque.errors["check_perm"]

    def set_perm(self, bs: BlockDriverState, perm: int, shared: int) -> None:
        bs.opaque.log.append(("set", perm, shared))

    def abort_perm_update(self, bs: BlockDriverState) -> None:
        bs.opaque.log.append(("abort",))


def test_update_perm_tree() -> None:
    """A failing change leaves all permissions as they were."""
    base = ram_node(Disk(), "base")
    holder = backend_on(base.ref(), READ)
    holder.set_perm(READ, ALL & ~WRITE)
    writer = make_node(Pass(), Log(), "filter")
    put_below(writer, base)
    blk = backend_on(writer, READ)
    with pytest.raises(BlockError, match="Conflicts with use by a block device as 'root', which "
                       "does not allow 'write' on base"):  # fmt: skip
        blk.set_perm(READ | WRITE, ALL)
    assert blk.root is not None
    assert blk.root.perm == READ
    assert writer.children[0].perm == READ
    blk.unref()
    holder.unref()


def test_should_update_child() -> None:
    """Whoever points to a node points to its overlay afterwards; the overlay itself does not."""
    base = ram_node(Disk(), "base")
    blk = backend_on(base.ref(), READ)
    filter_bs = pass_node(base.ref(), "filter")
    replace.replace_node(base, filter_bs)
    assert blk.bs is filter_bs
    assert filter_bs.file is not None
    assert filter_bs.file.bs is base
    filter_bs.unref()
    base.unref()
    blk.unref()


def test_parallel_exclusive_write() -> None:
    """Two writers that share nothing cannot be; one after the other they can."""
    base = ram_node(Disk(), "base")
    first = backend_on(base.ref(), READ)
    first.set_perm(WRITE, ALL & ~WRITE)
    second = backend_on(base.ref(), READ)
    with pytest.raises(BlockError, match="does not allow 'write' on base"):
        second.set_perm(WRITE, ALL & ~WRITE)
    first.set_perm(READ, ALL)
    second.set_perm(WRITE, ALL & ~WRITE)
    for blk in (first, second):
        blk.unref()
    base.unref()


def test_append_greedy_filter() -> None:
    """A node that allows nobody else to write cannot be put on top of a written one."""

    class Greedy(Pass):
        def child_perm(
            self, bs: BlockDriverState, child: object, role: int, perm: int, shared: int
        ) -> tuple[int, int]:
            return WRITE, ALL & ~WRITE

    base = ram_node(Disk(), "base")
    blk = backend_on(base.ref(), WRITE)
    greedy = make_node(Greedy(), Log(), "greedy")
    with pytest.raises(BlockError, match="Conflicts with use by a block device as 'root', which "
                       "uses 'write' on base"):  # fmt: skip
        edge.attach_child(greedy, base.ref(), "file", f.BDRV_CHILD_FILTERED)
    assert base.refcnt == 2, "the reference of a failed attach is dropped"
    greedy.unref()
    base.unref()
    blk.unref()


def test_a_conflict_names_the_user_its_edge_and_the_permission() -> None:
    base = ram_node(Disk(), "base")
    overlay = make_node(Overlay(), Clusters(1 << 20), "top")
    edge.set_backing_hd(overlay, base)
    reader = backend_on(overlay, READ)
    reader.set_perm(READ, ALL & ~WRITE)
    with pytest.raises(BlockError) as error:
        backend_on(base, WRITE)
    message = "Conflicts with use by node 'top' as 'backing', which does not allow 'write' on base"
    assert str(error.value) == message
    assert error.value.errno == errno.EPERM
    reader.unref()


def test_nobody_may_write_to_a_read_only_node() -> None:
    with pytest.raises(BlockError, match="Block node is read-only"):
        backend_on(ram_node(Disk(), flags=0), WRITE)


def test_to_write_without_resize_the_size_must_be_aligned() -> None:
    with pytest.raises(BlockError, match="Image size is not a multiple of request alignment"):
        backend_on(ram_node(Disk(512, request_alignment=4096)), WRITE)
    backend_on(ram_node(Disk(512, request_alignment=4096)), WRITE | f.BLK_PERM_RESIZE).unref()


def test_a_driver_checks_and_sets_what_all_parents_need_together() -> None:
    disk = Disk()
    bs = ram_node(disk, driver=LockingRam)
    reader = backend_on(bs.ref(), READ)
    writer = backend_on(bs, WRITE)
    assert ("check", READ | WRITE, ALL) in disk.log
    assert disk.log[-1] == ("set", READ | WRITE, ALL)
    writer.unref()
    assert disk.asked("set")[-1] == ("set", READ, ALL)
    reader.unref()


def test_a_check_that_fails_is_aborted_in_the_whole_tree() -> None:
    disk = Disk()
    base = ram_node(disk, driver=LockingRam)
    blk = backend_on(pass_node(base), READ)
    disk.errors["check_perm"] = BlockError(errno.EAGAIN, 'Failed to get "write" lock')
    with pytest.raises(BlockError, match="Failed to get"):
        blk.set_perm(READ | WRITE, ALL)
    assert disk.log[-1] == ("abort",)
    disk.errors.clear()
    assert permissions.cumulative_perm(base)[0] == READ
    blk.unref()


def test_to_loosen_never_fails() -> None:
    disk = Disk()
    blk = backend_on(ram_node(disk, driver=LockingRam), READ | WRITE)
    disk.errors["check_perm"] = BlockError(errno.EAGAIN, "no")
    blk.set_perm(READ, ALL)
    assert blk.root is not None
    assert blk.root.perm == READ | WRITE, "the tighter permissions stay where the check fails"
    disk.errors.clear()
    blk.unref()


@pytest.mark.parametrize(
    ("role", "perm", "shared", "expected"),
    [
        (f.BDRV_CHILD_FILTERED, READ | WRITE, ALL, (READ | WRITE, ALL)),
        (f.BDRV_CHILD_COW, READ | WRITE, ALL, (READ, ALL)),
        (f.BDRV_CHILD_COW, READ | WRITE, ALL & ~WRITE, (READ, ALL & ~WRITE & ~f.BLK_PERM_RESIZE)),
        (
            f.BDRV_CHILD_DATA,
            READ | WRITE,
            ALL,
            (READ | WRITE | f.BLK_PERM_RESIZE, ALL & ~f.BLK_PERM_RESIZE),
        ),
        (
            f.BDRV_CHILD_IMAGE,
            READ,
            ALL,
            (READ | WRITE | f.BLK_PERM_RESIZE, ALL & ~WRITE & ~f.BLK_PERM_RESIZE),
        ),
    ],
)
def test_a_role_says_what_a_parent_needs(
    role: int, perm: int, shared: int, expected: tuple[int, int]
) -> None:
    bs = make_node(Pass(), Log())
    assert permissions.default_perms(bs, role, perm, shared) == expected
    bs.unref()


def test_permissions_are_spelled_for_a_person() -> None:
    assert permissions.perm_names(ALL) == (
        "consistent read, write, write unchanged, resize, change children"
    )
