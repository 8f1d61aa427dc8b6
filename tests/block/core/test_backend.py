# SPDX-License-Identifier: GPL-2.0-only
"""What a device sees of its disk: callbacks, accounting, error actions, limits."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from block.aio.context import AioContext
from block.aio.coroutine import Coroutine, in_coroutine
from block.aio.iothread import IOThread
from block.core import flags as f
from block.core.accounting import FLUSH, READ, UNMAP, WRITE
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.wait import poll_while
from tests.support.drivers import Disk, FastRam, Outcome, Ram, ZeroRam, backend_on, ram_node


@pytest.mark.parametrize("driver", [Ram, FastRam])
def test_a_callback_comes_once_and_after_the_call(driver: type[Ram], main: AioContext) -> None:
    outcome = Outcome()
    with backend_on(ram_node(Disk(), driver=driver)) as blk:
        blk.aio_preadv(0, [memoryview(bytearray(512))], outcome)
        assert outcome.calls == 0
        poll_while(main, lambda: outcome.pending)
        main.poll(False)
        assert outcome.calls == 1


def test_a_callback_runs_outside_of_coroutines_and_may_submit_again(main: AioContext) -> None:
    seen: list[bool] = []
    with backend_on(ram_node(Disk())) as blk:

        def again(ret: int) -> None:
            seen.append(in_coroutine())
            if len(seen) < 5:
                blk.aio_pwritev(0, [memoryview(b"x")], again)

        blk.aio_pwritev(0, [memoryview(b"x")], again)
        poll_while(main, lambda: len(seen) < 5)
    assert seen == [False] * 5


@pytest.mark.real_world("a request must take some time")
@pytest.mark.parametrize(
    ("submit", "kind", "nbytes"),
    [
        (lambda blk, cb: blk.aio_preadv(0, [memoryview(bytearray(700))], cb), READ, 700),
        (lambda blk, cb: blk.aio_pwritev(0, [memoryview(bytes(512))] * 2, cb), WRITE, 1024),
        (lambda blk, cb: blk.aio_pwrite_zeroes(0, 4096, cb), WRITE, 4096),
        (lambda blk, cb: blk.aio_pdiscard(0, 4096, cb), UNMAP, 4096),
        (lambda blk, cb: blk.aio_flush(cb), FLUSH, 0),
    ],
    ids=["read", "write", "zeroes", "discard", "flush"],
)
def test_each_request_is_counted_under_its_type(
    submit: Callable[[BlockBackend, Outcome], None], kind: int, nbytes: int
) -> None:
    with backend_on(ram_node(Disk(), driver=ZeroRam)) as blk:
        outcome = Outcome()
        submit(blk, outcome)
        blk.drain()
        assert outcome.ret == 0
        expected = [0, 0, 0, 0]
        expected[kind] = 1
        assert blk.stats.nr_ops == expected
        assert blk.stats.nr_bytes[kind] == nbytes
        assert blk.stats.total_time_ns[kind] > 0
        assert blk.stats.idle_time_ns() >= 0


def test_failed_merged_and_invalid_requests_are_counted_apart() -> None:
    disk = Disk()
    disk.errors["preadv"] = BlockError(errno.EIO, "broken")
    with backend_on(ram_node(disk)) as blk:
        for _ in range(2):
            blk.aio_preadv(0, [memoryview(bytearray(1))], Outcome())
        blk.drain()
        blk.stats.invalid(WRITE)
        blk.stats.merge_done(READ, 3)
        figures = blk.stats.as_dict()
    assert figures["failed_rd_operations"] == 2
    assert figures["rd_operations"] == figures["rd_bytes"] == 0
    assert figures["invalid_wr_operations"] == 1
    assert figures["rd_merged"] == 3


@pytest.mark.parametrize(
    ("policy", "number", "action"),
    [
        ("report", errno.EIO, "report"),
        ("ignore", errno.EIO, "ignore"),
        ("stop", errno.EIO, "stop"),
        ("enospc", errno.ENOSPC, "stop"),
        ("enospc", errno.EIO, "report"),
        ("auto", errno.ENOSPC, "stop"),
        ("auto", errno.EIO, "report"),
    ],
)
def test_the_policy_says_what_to_do_about_an_error(policy: str, number: int, action: str) -> None:
    blk = BlockBackend()
    blk.on_write_error = policy
    assert blk.get_error_action(False, number) == action
    blk.on_read_error = "auto"
    assert blk.get_error_action(True, number) == "report"
    blk.unref()


def test_to_stop_remembers_why_and_asks_for_it() -> None:
    stops: list[str] = []
    blk = BlockBackend()
    blk.vm_stop = lambda: stops.append(blk.io_status)
    blk.error_action("report", False, errno.EIO)
    blk.error_action("stop", False, errno.ENOSPC)
    assert (stops, blk.io_status) == (["nospace"], "nospace")
    blk.iostatus_reset()
    blk.error_action("stop", True, errno.EIO)
    assert blk.io_status == "failed"
    blk.unref()


def test_limits_are_those_of_the_node() -> None:
    disk = Disk(1 << 16, request_alignment=4096, max_transfer=8192, max_iov=3)
    with backend_on(ram_node(disk)) as blk:
        assert (blk.get_request_alignment(), blk.max_transfer, blk.max_iov) == (4096, 8192, 3)
        assert blk.length == 1 << 16
    empty = BlockBackend()
    assert (empty.get_request_alignment(), empty.max_iov) == (512, f.IOV_MAX)
    assert empty.max_transfer == f.REQUEST_MAX_BYTES
    empty.unref()


def test_a_coroutine_uses_the_co_twins(main: AioContext) -> None:
    buffer = bytearray(5)
    with backend_on(ram_node(Disk(), driver=ZeroRam)) as blk:

        async def work() -> None:
            await blk.co_pwritev(0, 5, [memoryview(b"hello")])
            await blk.co_pwrite_zeroes(1, 1)
            await blk.co_pdiscard(2, 1)
            await blk.co_flush()
            await blk.co_preadv(0, 5, [memoryview(buffer)])

        co = Coroutine(work(), ctx=main)
        co.enter()
        poll_while(main, lambda: not co.done)
        assert bytes(buffer) == b"h\0\0lo"
        assert blk.stats.nr_ops == [1, 2, 1, 1]


def test_a_failure_in_a_coroutine_is_raised_there(main: AioContext) -> None:
    caught: list[BlockError] = []
    with backend_on(ram_node(Disk(512))) as blk:

        async def work() -> None:
            try:
                await blk.co_preadv(512, 1, [memoryview(bytearray(1))])
            except BlockError as error:
                caught.append(error)

        Coroutine(work(), ctx=main).enter()
        assert caught[0].errno == errno.EIO
        assert caught[0].offset == 512
        assert blk.stats.failed_ops[READ] == 1


@pytest.mark.parametrize(
    ("to", "fails"),
    [(1 << 20, False), (0, False), (-1, True), (1 << 63, True)],
)
def test_a_disk_can_be_made_longer_and_shorter(to: int, fails: bool) -> None:
    with backend_on(ram_node(Disk(4096))) as blk:
        if fails:
            with pytest.raises(BlockError):
                blk.truncate(to)
        else:
            blk.truncate(to)
            assert blk.length == to


def test_to_resize_needs_the_permission_and_a_writable_node() -> None:
    with (
        backend_on(ram_node(Disk()), f.BLK_PERM_WRITE) as blk,
        pytest.raises(BlockError, match="no 'resize' permission"),
    ):
        blk.truncate(0)
    with backend_on(ram_node(Disk(), flags=0), f.BLK_PERM_CONSISTENT_READ) as blk:
        with pytest.raises(BlockError, match="Image is read-only") as error:
            blk.truncate(0)
        assert error.value.errno == errno.EACCES


def test_close_raises_what_the_last_flush_raises_and_closes_all_the_same() -> None:
    disk = Disk()
    blk = backend_on(ram_node(disk))
    blk.pwrite(0, b"x")
    disk.errors["flush"] = BlockError(errno.EIO, "the disk is gone")
    with pytest.raises(BlockError, match="the disk is gone"):
        blk.close()
    assert ("close",) in disk.log
    blk.close()


def test_a_stranger_may_not_submit(iothread: IOThread) -> None:
    for driver in (Ram, FastRam):
        blk = backend_on(ram_node(Disk(), driver=driver))
        blk.set_aio_context(iothread.ctx)
        with pytest.raises(AssertionError, match="rule 5"):
            blk.aio_preadv(0, [memoryview(bytearray(512))], Outcome())
        blk.unref()


def test_a_new_length_is_no_write_in_the_statistics() -> None:
    with backend_on(ram_node(Disk())) as blk:
        blk.truncate(4096)
        assert blk.stats.nr_ops[WRITE] == 0
