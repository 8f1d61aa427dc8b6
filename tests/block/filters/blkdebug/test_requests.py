# SPDX-License-Identifier: GPL-2.0-only
"""Requests through a blkdebug node: which fail, when the failure comes, and where."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import block
from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.open import open_backend
from block.core.wait import poll_while
from tests.support.blkdebug import debugged_ram, node, opened, write
from tests.support.drivers import Disk, FastRam

REQUESTS: dict[str, Callable[[BlockBackend], object]] = {
    "read": lambda blk: blk.pread(512, 512),
    "write": lambda blk: blk.pwrite(512, b"x" * 512),
    "write-zeroes": lambda blk: blk.pwrite_zeroes(512, 512),
    "discard": lambda blk: blk.pdiscard(512, 512),
    "flush": lambda blk: blk.flush(),
    "block-status": lambda blk: node(blk).block_status(512, 512),
}


def always(number: int = errno.EIO, **more: object) -> list[dict[str, object]]:
    """One error, armed from the beginning."""
    return [{"event": "none", "errno": number, **more}]


@pytest.mark.parametrize("io_type", REQUESTS)
def test_an_error_for_one_kind_of_request_lets_the_others_pass(io_type: str) -> None:
    with debugged_ram(Disk(), inject_error=always(errno.ENOSPC, iotype=io_type)) as blk:
        node(blk).write_gen += 1  # there is something to flush
        for name, request in REQUESTS.items():
            if name != io_type:
                request(blk)
                continue
            with pytest.raises(BlockError) as failure:
                request(blk)
            assert (failure.value.errno, failure.value.driver) == (errno.ENOSPC, "blkdebug")


@pytest.mark.parametrize("io_type", sorted(set(REQUESTS) - {"block-status", "flush"}))
def test_a_failed_request_never_reaches_the_image(io_type: str) -> None:
    disk = Disk()
    with debugged_ram(disk, inject_error=always(once=True)) as blk:
        disk.log.clear()
        with pytest.raises(BlockError):
            REQUESTS[io_type](blk)
        assert disk.log == []
        REQUESTS[io_type](blk)
        assert len(disk.log) == 1


def test_requests_pass_unchanged_without_rules() -> None:
    disk = Disk()
    with debugged_ram(disk) as blk:
        blk.pwrite(100, b"abc")
        assert blk.pread(98, 7) == b"\0\0abc\0\0"
        blk.pwrite_zeroes(100, 1)
        blk.pdiscard(512, 1024)
        blk.truncate(1 << 21)
        blk.flush()
        assert (node(blk).getlength(), disk.flushes) == (1 << 21, 1)
    names = ["pwritev", "preadv", "pwrite_zeroes", "pdiscard", "truncate", "flush"]
    assert [entry[0] for entry in disk.log if entry[0] in names] == names


def test_a_sector_far_from_the_request_does_not_matter() -> None:
    with debugged_ram(Disk(), inject_error=always(sector=7)) as blk:
        blk.pwrite(0, b"x" * 7 * 512)
        with pytest.raises(BlockError):
            blk.pwrite(0, b"x" * 8 * 512)


@pytest.mark.parametrize("part", ["head", "tail"])
def test_a_write_whose_edge_cannot_be_read_fails_and_changes_nothing(part: str) -> None:
    """QEMU 7.2 goes on, and writes what was in its buffer."""
    disk = Disk()
    disk.data[:8192] = b"o" * 8192
    rules = [{"event": f"pwritev_rmw_{part}", "once": True}]
    with debugged_ram(disk, align=4096, inject_error=rules) as blk:
        with pytest.raises(BlockError):
            blk.pwrite(100, b"x" * 8000)
        assert disk.data[:8192] == b"o" * 8192
        blk.pwrite(100, b"x" * 8000)
        assert disk.data[:8192] == b"o" * 100 + b"x" * 8000 + b"o" * 92


def test_a_failure_comes_by_a_bottom_half_of_the_nodes_loop(main: AioContext) -> None:
    with debugged_ram(Disk(), inject_error=always()) as blk:
        outcome = write(blk, 0, b"x" * 512)
        owners = [r.owner for r in main.registrations() if r.kind == "bh"]
        assert node(blk) in owners, "it waits for its bottom half"
        assert outcome.pending
        poll_while(main, lambda: outcome.pending)
        assert outcome.ret == -errno.EIO


def test_an_immediate_failure_needs_no_bottom_half_of_the_node(main: AioContext) -> None:
    """Only that by which every completion comes."""
    with debugged_ram(Disk(), inject_error=always(immediately=True)) as blk:
        outcome = write(blk, 0, b"x" * 512)
        owners = [r.owner for r in main.registrations() if r.kind == "bh"]
        assert node(blk) not in owners
        assert outcome.pending, "no callback before return"
        poll_while(main, lambda: outcome.pending)
        assert outcome.ret == -errno.EIO


def test_a_pending_failure_is_waited_for_when_the_tree_moves(
    main: AioContext, iothread: IOThread
) -> None:
    with debugged_ram(Disk(), inject_error=always(once=True)) as blk:
        first = write(blk, 0, b"x" * 512)
        blk.set_aio_context(iothread.ctx)
        assert first.ret == -errno.EIO
        assert not [r for r in main.registrations() if r.owner is node(blk)]
        blk.set_aio_context(main)


def test_a_failure_in_an_iothread_comes_in_that_thread(
    main: AioContext, iothread: IOThread
) -> None:
    with debugged_ram(Disk(), inject_error=always()) as blk:
        blk.set_aio_context(iothread.ctx)
        with iothread.ctx:
            outcome = write(blk, 0, b"x" * 512)
        poll_while(iothread.ctx, lambda: outcome.pending)
        assert outcome.ret == -errno.EIO
        assert not [r for r in main.registrations() if r.owner is node(blk)]
        blk.set_aio_context(main)


def test_reads_are_not_answered_past_the_rules() -> None:
    disk = Disk()
    with debugged_ram(disk, FastRam, inject_error=always(iotype="read")) as blk:
        root = blk.root
        assert root is not None
        assert root.try_preadv(0, 512, [memoryview(bytearray(512))]) is None
        with pytest.raises(BlockError):
            blk.pread(0, 512)
    assert disk.asked("try_preadv", "preadv") == []


def test_a_format_over_it_raises_its_events_for_every_read() -> None:
    """raw would answer on its short way: it must not, or the rule never sees its event."""
    rules = [{"event": "read_aio", "once": True}]
    debugged = {"driver": "blkdebug", "image": "ram0", "inject-error": rules}
    with opened(Disk(), {"driver": "raw", "file": debugged}, FastRam) as blk:
        with pytest.raises(BlockError):
            blk.pread(0, 512)
        assert blk.pread(0, 512) == bytes(512)


# -- names


def test_the_name_opens_config_and_image(tmp_path: Path) -> None:
    image, rules = tmp_path / "a.img", tmp_path / "r.conf"
    image.write_bytes(bytes(65536))
    rules.write_text('[inject-error]\nevent = "read_aio"\nerrno = "28"\n')
    with block.open(f"blkdebug:{rules}:{image}", format="raw") as blk:
        with pytest.raises(BlockError) as failure:
            blk.pread(0, 512)
        assert failure.value.errno == errno.ENOSPC
        assert node(blk).filename == f"blkdebug:{rules}:{image}"
    with block.open(f"blkdebug::{image}", format="raw") as blk:
        assert blk.pread(0, 512) == bytes(512)
        assert node(blk).filename == f"blkdebug::{image}"


def test_a_config_with_a_colon_cannot_be_part_of_the_name(tmp_path: Path) -> None:
    image, rules = tmp_path / "a.img", tmp_path / "r:1.conf"
    image.write_bytes(bytes(65536))
    rules.write_text("")
    below = {"driver": "file", "filename": os.fspath(image)}
    how = {"driver": "blkdebug", "config": os.fspath(rules), "image": below}
    blk = open_backend(options=how, flags=f.BDRV_O_RDWR)
    assert node(blk).filename.startswith('json:{"')
    blk.unref()


def test_a_name_without_config_is_refused() -> None:
    with pytest.raises(BlockError, match="blkdebug requires both config file and image path"):
        block.open("blkdebug:a.img", format="raw")


def test_a_json_name_keeps_the_rules(tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    image.write_bytes(bytes(65536))
    how = {
        "driver": "blkdebug",
        "image": {"driver": "file", "filename": os.fspath(image)},
        "inject-error": [{"event": "none", "iotype": "read", "errno": 28}],
    }
    blk = open_backend(options=how, flags=f.BDRV_O_RDWR)
    name = node(blk).filename
    blk.unref()
    assert name.startswith("json:{")
    again = open_backend(name, flags=f.BDRV_O_RDWR)
    try:
        with pytest.raises(BlockError) as failure:
            again.pread(0, 512)
        assert failure.value.errno == errno.ENOSPC
    finally:
        again.unref()


# -- permissions


def test_it_takes_permissions_that_it_would_not_need() -> None:
    with debugged_ram(Disk(), take_child_perms=["graph-mod"]) as blk:
        edge = node(blk).file
        assert edge is not None
        assert edge.perm & f.BLK_PERM_GRAPH_MOD


def test_it_does_not_share_what_it_shall_not() -> None:
    with debugged_ram(Disk(), unshare_child_perms=["write"]) as blk:
        edge = node(blk).file
        assert edge is not None
        assert not edge.shared_perm & f.BLK_PERM_WRITE
        assert edge.shared_perm & f.BLK_PERM_RESIZE
