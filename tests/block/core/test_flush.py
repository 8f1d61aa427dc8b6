# SPDX-License-Identifier: GPL-2.0-only
"""Flush: when the driver is asked, when not, and what a failure means."""

from __future__ import annotations

import errno

import pytest

from block.aio.context import AioContext
from block.core import edge
from block.core import flags as f
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


def test_a_flush_without_a_write_is_skipped() -> None:
    disk = Disk()
    with backend_on(ram_node(disk)) as blk:
        blk.flush()
        assert disk.flushes == 0
        blk.pwrite(0, b"x")
        blk.flush()
        blk.flush()
        assert disk.flushes == 1


def test_a_failed_flush_is_tried_again() -> None:
    disk = Disk()
    with backend_on(ram_node(disk)) as blk:
        blk.pwrite(0, b"x")
        disk.errors["flush"] = BlockError(errno.EIO, "gone")
        with pytest.raises(BlockError, match="gone"):
            blk.flush()
        disk.errors.clear()
        blk.flush()
        assert disk.flushes == 2


def test_a_write_during_a_flush_is_not_taken_for_safe(main: AioContext) -> None:
    disk = Disk()
    with backend_on(ram_node(disk)) as blk:
        blk.pwrite(0, b"x")
        disk.parked = True
        flushed, written = Outcome(), Outcome()
        blk.aio_flush(flushed)
        disk.parked = False
        blk.aio_pwritev(0, [memoryview(b"y")], written)
        poll_while(main, lambda: written.pending)
        assert flushed.pending
        disk.release()
        poll_while(main, lambda: flushed.pending or written.pending)
        blk.flush()
        assert disk.flushes == 2


def test_two_flushes_of_a_node_do_not_overlap(main: AioContext) -> None:
    disk = Disk()
    with backend_on(ram_node(disk)) as blk:
        blk.pwrite(0, b"x")
        disk.parked = True
        outcomes = [Outcome(), Outcome()]
        for outcome in outcomes:
            blk.aio_flush(outcome)
        assert disk.flushes == 1
        disk.release()
        poll_while(main, lambda: any(outcome.pending for outcome in outcomes))
        assert disk.flushes == 1, "the second finds everything safe"


def test_with_cache_unsafe_the_disk_is_never_flushed() -> None:
    disk = Disk()
    with backend_on(ram_node(disk, flags=f.BDRV_O_RDWR | f.BDRV_O_NO_FLUSH)) as blk:
        blk.pwrite(0, b"x")
        blk.flush()
        assert disk.flushes == 0


def test_a_read_only_node_has_nothing_to_flush() -> None:
    disk = Disk()
    with backend_on(ram_node(disk, flags=0), f.BLK_PERM_CONSISTENT_READ) as blk:
        blk.flush()
        assert disk.flushes == 0


def test_a_flush_goes_down_to_the_children_that_may_be_written() -> None:
    file_disk, backing_disk = Disk(), Disk()
    base = ram_node(backing_disk)
    overlay = make_node(Overlay(), Clusters(1 << 20))
    edge.set_backing_hd(overlay, base)
    link = edge.attach_child(overlay, ram_node(file_disk), "file", f.BDRV_CHILD_IMAGE)
    overlay.file = link
    with backend_on(pass_node(overlay)) as blk:
        link.pwrite(0, b"x")
        blk.flush()
    assert (file_disk.flushes, backing_disk.flushes) == (1, 0)
    base.unref()
