# SPDX-License-Identifier: GPL-2.0-only
"""Reads and writes through one node: bounds, alignment, splitting, growing."""

from __future__ import annotations

import errno

import pytest

from block.core import flags as f
from block.core import graph
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.serialise import TrackedRequest
from block.core.wait import run_sync
from tests.support.drivers import (
    Disk,
    FastRam,
    Outcome,
    Ram,
    ZeroRam,
    backend_on,
    pass_node,
    ram_node,
)

PATTERN = bytes(range(256)) * 4096


def disk_with_pattern(**limits: int) -> Disk:
    disk = Disk(len(PATTERN), **limits)
    disk.data[:] = PATTERN
    return disk


def test_what_was_written_is_read_back() -> None:
    with backend_on(ram_node(Disk())) as blk:
        blk.pwrite(1000, b"hello")
        assert blk.pread(998, 9) == b"\0\0hello\0\0"


def test_an_aligned_request_reaches_the_driver_unchanged() -> None:
    disk = disk_with_pattern(request_alignment=512)
    with backend_on(ram_node(disk)) as blk:
        assert blk.pread(512, 1024) == PATTERN[512:1536]
    assert disk.asked("preadv") == [("preadv", 512, 1024)]


def test_an_unaligned_read_is_padded_to_whole_blocks() -> None:
    disk = disk_with_pattern(request_alignment=512)
    with backend_on(ram_node(disk)) as blk:
        assert blk.pread(700, 1000) == PATTERN[700:1700]
    assert disk.asked("preadv") == [("preadv", 512, 1536)]


def test_an_unaligned_write_reads_head_and_tail_first() -> None:
    disk = disk_with_pattern(request_alignment=512)
    with backend_on(ram_node(disk)) as blk:
        blk.pwrite(700, b"x" * 2000)
    assert disk.data == PATTERN[:700] + b"x" * 2000 + PATTERN[2700:]
    assert disk.asked("preadv") == [("preadv", 512, 512), ("preadv", 2560, 512)]
    assert disk.asked("pwritev") == [("pwritev", 512, 2560, 0)]


def test_a_write_within_one_block_reads_it_once() -> None:
    disk = disk_with_pattern(request_alignment=4096)
    with backend_on(ram_node(disk)) as blk:
        blk.pwrite(5000, b"y")
    assert disk.data == PATTERN[:5000] + b"y" + PATTERN[5001:]
    assert disk.asked("preadv") == [("preadv", 4096, 4096)]


def test_head_and_tail_side_by_side_are_read_in_one_go() -> None:
    disk = disk_with_pattern(request_alignment=512)
    with backend_on(ram_node(disk)) as blk:
        blk.pwrite(1000, b"z" * 48)
    assert disk.asked("preadv") == [("preadv", 512, 1024)]
    assert disk.data == PATTERN[:1000] + b"z" * 48 + PATTERN[1048:]


def test_a_long_request_is_split_by_max_transfer() -> None:
    disk = disk_with_pattern(request_alignment=512, max_transfer=1024)
    with backend_on(ram_node(disk)) as blk:
        assert blk.pread(0, 2560) == PATTERN[:2560]
        blk.pwrite(0, bytes(2560))
    assert [entry[1:3] for entry in disk.asked("preadv")] == [(0, 1024), (1024, 1024), (2048, 512)]
    assert [entry[1:3] for entry in disk.asked("pwritev")] == [(0, 1024), (1024, 1024), (2048, 512)]
    assert disk.data == bytes(2560) + PATTERN[2560:]


def test_a_vector_of_many_views_is_split_by_max_iov() -> None:
    disk = disk_with_pattern(request_alignment=512, max_iov=2)
    parts = [bytearray(512) for _ in range(5)]
    with backend_on(ram_node(disk)) as blk:
        blk.preadv_into(0, [memoryview(part) for part in parts])
    assert b"".join(parts) == PATTERN[:2560]
    assert [entry[1:] for entry in disk.asked("preadv")] == [(0, 1024), (1024, 1024), (2048, 512)]


def test_many_views_smaller_than_a_block_go_through_a_bounce_buffer() -> None:
    disk = disk_with_pattern(request_alignment=512, max_iov=2)
    parts = [bytearray(64) for _ in range(16)]
    with backend_on(ram_node(disk)) as blk:
        blk.preadv_into(512, [memoryview(part) for part in parts])
        assert b"".join(parts) == PATTERN[512:1536]
        blk.pwrite(0, [memoryview(b"a" * 64)] * 16)
    assert disk.data[:1024] == b"a" * 1024


@pytest.mark.parametrize(
    ("limits", "sizes"),
    [
        # The second cut leaves 52 bytes of a view; with the next 100 that is less than a block.
        ({"max_iov": 2}, [1000, 100, 1000, 100, 360]),
        ({"max_iov": 1}, [1100, 1460]),
    ],
)
def test_a_cut_that_leaves_less_than_a_block_of_a_view_is_mended_by_a_bounce_buffer(
    limits: dict[str, int], sizes: list[int]
) -> None:
    disk = disk_with_pattern(request_alignment=512, **limits)
    parts = [bytearray(size) for size in sizes]
    total = sum(sizes)
    with backend_on(ram_node(disk)) as blk:
        blk.preadv_into(512, [memoryview(part) for part in parts])
        assert b"".join(parts) == PATTERN[512 : 512 + total]
        blk.pwrite(4096, [memoryview(part) for part in parts])
    assert disk.data[4096 : 4096 + total] == PATTERN[512 : 512 + total]


@pytest.mark.parametrize(
    ("offset", "nbytes"), [(1 << 20, 1), ((1 << 20) - 1, 2), (-1, 1), (1 << 62, 512)]
)
def test_a_request_outside_the_disk_is_an_io_error(offset: int, nbytes: int) -> None:
    with backend_on(ram_node(Disk(1 << 20))) as blk:
        with pytest.raises(BlockError) as read:
            blk.pread(offset, nbytes)
        with pytest.raises(BlockError) as write:
            blk.pwrite(offset, bytes(nbytes))
    assert read.value.errno == write.value.errno == errno.EIO


def test_a_node_refuses_what_lies_before_its_begin() -> None:
    """The backend checks that for devices; jobs and drivers ask nodes."""
    disk = Disk(1 << 20, request_alignment=512)
    with backend_on(ram_node(disk)) as blk:
        assert blk.root is not None
        for request in (blk.root.co_preadv, blk.root.co_pwritev):
            qiov = [memoryview(bytearray(1024))]
            with pytest.raises(BlockError, match="offset -512") as refused:
                run_sync(blk.aio_context, lambda: request(-512, 1024, qiov))  # noqa: B023  # run before the next turn
            assert refused.value.errno == errno.EIO
    assert disk.asked("preadv") == disk.asked("pwritev") == []


def test_a_request_of_nothing_does_nothing() -> None:
    disk = Disk(request_alignment=512)
    with backend_on(ram_node(disk)) as blk:
        assert blk.pread(3, 0) == b""
        blk.pwrite(3, b"")
    assert disk.asked("preadv", "pwritev") == []


def test_a_write_to_a_read_only_node_is_refused() -> None:
    with (
        backend_on(ram_node(Disk(), flags=0), perm=f.BLK_PERM_CONSISTENT_READ) as blk,
        pytest.raises(BlockError) as error,
    ):
        blk.pwrite(0, b"x")
    assert error.value.errno == errno.EPERM


def test_a_write_without_the_permission_is_refused() -> None:
    with (
        backend_on(ram_node(Disk()), perm=f.BLK_PERM_CONSISTENT_READ) as blk,
        pytest.raises(BlockError, match="no 'write' permission") as error,
    ):
        blk.pwrite(0, b"x")
    assert error.value.errno == errno.EPERM


def test_without_a_medium_every_request_fails() -> None:
    blk = BlockBackend()
    outcome = Outcome()
    blk.aio_preadv(0, [memoryview(bytearray(512))], outcome)
    blk.drain()
    assert outcome.ret == -errno.ENOMEDIUM
    blk.unref()


def test_what_lies_beyond_the_end_of_a_child_reads_as_zeroes() -> None:
    disk = Disk(1000)
    disk.data[:] = b"d" * 1000
    with backend_on(ram_node(disk)) as blk:
        assert blk.length == 1024
        assert blk.pread(0, 1024) == b"d" * 1000 + bytes(24)


def test_a_read_far_beyond_the_end_asks_the_driver_only_for_what_there_is() -> None:
    disk = Disk(1024, request_alignment=512)
    disk.data[:] = b"d" * 1024
    buffer = bytearray(b"x" * 2048)
    with backend_on(ram_node(disk)) as blk:
        blk.allow_write_beyond_eof = True
        blk.preadv_into(512, [memoryview(buffer)])
    assert buffer == b"d" * 512 + bytes(1536)
    assert disk.asked("preadv") == [("preadv", 512, 512)]


def test_a_write_beyond_the_end_makes_the_node_longer() -> None:
    disk = Disk(512)
    with backend_on(ram_node(disk)) as blk:
        blk.allow_write_beyond_eof = True
        blk.pwrite(1024, b"e" * 512)
        assert blk.length == 1536
        assert blk.pread(512, 1024) == bytes(512) + b"e" * 512


def test_of_two_writes_beyond_the_end_the_farther_one_counts_whichever_ends_first() -> None:
    disk = Disk(512)
    outcome = Outcome()
    with backend_on(ram_node(disk)) as blk:
        blk.allow_write_beyond_eof = True
        disk.parked = True
        for offset in (1024, 512):
            blk.aio_pwritev(offset, [memoryview(bytearray(512))], outcome)
        disk.release()
        blk.drain()
        assert blk.length == 1536


@pytest.mark.parametrize("nbytes", [1, 512])
def test_a_write_beyond_the_end_needs_the_resize_permission(nbytes: int) -> None:
    perm = f.BLK_PERM_CONSISTENT_READ | f.BLK_PERM_WRITE
    with backend_on(ram_node(Disk(512)), perm=perm) as blk:
        blk.allow_write_beyond_eof = True
        with pytest.raises(BlockError, match="no 'resize' permission"):
            blk.pwrite(512, b"x" * nbytes)


def test_an_error_of_the_driver_reaches_the_callback_as_a_number() -> None:
    disk = Disk()
    disk.errors["preadv"] = BlockError(errno.ENOSPC, "full")
    outcome = Outcome()
    with backend_on(ram_node(disk)) as blk:
        blk.aio_preadv(0, [memoryview(bytearray(512))], outcome)
        blk.drain()
    assert outcome.ret == -errno.ENOSPC


def test_a_driver_without_fua_is_flushed_after_the_write() -> None:
    disk = Disk(max_transfer=512)
    with backend_on(ram_node(disk)) as blk:
        blk.pwrite(0, bytes(1024), f.REQ_FUA)
        assert disk.flushes == 1
        assert [entry[0] for entry in disk.asked("pwritev", "flush")] == [
            "pwritev",
            "pwritev",
            "flush",
        ]


def test_a_driver_with_fua_gets_the_flag_and_no_flush() -> None:
    disk = Disk()
    bs = ram_node(disk)
    bs.supported_write_flags = f.REQ_FUA
    with backend_on(bs) as blk:
        blk.pwrite(0, bytes(512), f.REQ_FUA)
        assert disk.asked("pwritev") == [("pwritev", 0, 512, f.REQ_FUA)]
        assert disk.flushes == 0


def test_without_a_write_cache_every_write_is_flushed() -> None:
    disk = Disk()
    with backend_on(ram_node(disk)) as blk:
        blk.enable_write_cache = False
        blk.pwrite(0, b"x")
        assert disk.flushes == 1


def test_a_driver_that_can_answer_at_once_is_asked_first() -> None:
    disk = Disk()
    disk.data[:3] = b"abc"
    outcome, buffer = Outcome(), bytearray(3)
    with backend_on(ram_node(disk, driver=FastRam)) as blk:
        blk.aio_preadv(0, [memoryview(buffer)], outcome)
        assert outcome.pending, "no callback before return"
        blk.drain()
    assert (outcome.ret, bytes(buffer)) == (0, b"abc")
    assert [entry[0] for entry in disk.log if entry[0].endswith("preadv")] == ["try_preadv"]


@pytest.mark.parametrize(
    ("offset", "nbytes"), [(1, 512), (0, 100), (1 << 20, 512), (-512, 512), (0, 8192)]
)
def test_the_fast_path_leaves_whatever_is_not_simple_to_the_coroutine(
    offset: int, nbytes: int
) -> None:
    disk = Disk(request_alignment=512, max_transfer=4096)
    with backend_on(ram_node(disk, driver=FastRam)) as blk:
        blk.aio_preadv(offset, [memoryview(bytearray(nbytes))], Outcome())
        blk.drain()
    assert not disk.asked("try_preadv")


def test_detect_zeroes_turns_a_write_of_zeroes_into_a_zero_write() -> None:
    disk = disk_with_pattern()
    bs = ram_node(disk, driver=ZeroRam)
    bs.detect_zeroes = "unmap"
    bs.supported_zero_flags = f.REQ_MAY_UNMAP
    with backend_on(bs) as blk:
        blk.pwrite(512, bytes(512))
        blk.pwrite(0, b"x" + bytes(511))
    assert disk.asked("pwrite_zeroes") == [("pwrite_zeroes", 512, 512, f.REQ_MAY_UNMAP)]
    assert disk.asked("pwritev") == [("pwritev", 0, 512, 0)]


def test_who_wants_to_know_of_writes_is_told_before_them() -> None:
    disk = Disk()
    bs = ram_node(disk)
    seen: list[tuple[int, int, int]] = []

    async def notifier(request: TrackedRequest) -> None:
        seen.append((request.offset, request.nbytes, len(disk.asked("pwritev"))))

    bs.before_write_notifiers.append(notifier)
    with backend_on(bs) as blk:
        blk.pwrite(100, b"abc")
    assert seen == [(100, 3, 0)]


def test_a_driver_that_can_do_nothing_says_so() -> None:
    class Nothing(Ram):
        co_preadv = Ram.__mro__[1].co_preadv  # type: ignore[assignment]  # the one that raises

    with (
        backend_on(ram_node(Disk(), driver=Nothing)) as blk,
        pytest.raises(BlockError, match="does not support reads") as error,
    ):
        blk.pread(0, 1)
    assert error.value.errno == errno.ENOTSUP


@pytest.mark.parametrize(
    "hook", ["preadv", "pwritev", "flush", "pwrite_zeroes", "pdiscard", "truncate"]
)
@pytest.mark.parametrize("offset", [0, 100])
@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "broken"), MemoryError(), ZeroDivisionError()], ids=type
)
def test_a_request_that_fails_leaves_nothing_in_flight(
    hook: str, offset: int, error: OSError
) -> None:
    disk = Disk(request_alignment=512)
    disk.errors[hook] = error
    with backend_on(pass_node(ram_node(disk, driver=ZeroRam))) as blk:
        for request in (
            lambda: blk.pread(offset, 700),
            lambda: blk.pwrite(offset, bytes(700)),
            lambda: blk.pwrite_zeroes(offset, 700),
            lambda: blk.pdiscard(offset, 700),
            lambda: blk.truncate(16384),
            blk.flush,
        ):
            try:
                request()
            except (OSError, MemoryError, ZeroDivisionError):
                pass
        assert blk.in_flight == 0
        assert blk.bs is not None
        for bs in graph.subtree(blk.bs):
            assert (bs.in_flight, bs.tracked_requests, bs.serialising_in_flight) == (0, {}, 0)
            assert not bs.flushing
        disk.errors.clear()
