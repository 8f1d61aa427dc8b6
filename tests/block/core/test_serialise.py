# SPDX-License-Identifier: GPL-2.0-only
"""Who waits for whom: overlapping and serialising requests."""

from __future__ import annotations

import errno

from block.aio.context import AioContext
from block.aio.coroutine import Coroutine
from block.core import flags as f
from block.core.wait import poll_while
from tests.support.drivers import Disk, Outcome, backend_on, ram_node


def test_requests_that_do_not_serialise_overlap_freely() -> None:
    disk = Disk()
    disk.parked = True
    with backend_on(ram_node(disk)) as blk:
        for _ in range(3):
            blk.aio_pwritev(0, [memoryview(bytes(512))], Outcome())
        assert len(disk.asked("pwritev")) == 3
        disk.release()


def test_a_read_modify_write_keeps_others_off_its_blocks(main: AioContext) -> None:
    disk = Disk(request_alignment=512)
    disk.parked = True
    outcomes = [Outcome() for _ in range(3)]
    with backend_on(ram_node(disk)) as blk:
        blk.aio_pwritev(100, [memoryview(b"a" * 100)], outcomes[0])
        blk.aio_pwritev(0, [memoryview(b"b" * 512)], outcomes[1])
        blk.aio_pwritev(512, [memoryview(b"c" * 512)], outcomes[2])
        assert disk.log == [("preadv", 0, 512), ("pwritev", 512, 512, 0)]
        disk.release()
        poll_while(main, lambda: any(outcome.pending for outcome in outcomes))
    assert disk.data[:1024] == b"b" * 512 + b"c" * 512


def test_two_unaligned_writes_to_one_block_lose_nothing(main: AioContext) -> None:
    disk = Disk(request_alignment=4096)
    outcomes = [Outcome() for _ in range(8)]
    with backend_on(ram_node(disk)) as blk:
        disk.parked = True
        for number, outcome in enumerate(outcomes):
            blk.aio_pwritev(number * 512, [memoryview(bytes([number + 1]) * 512)], outcome)
        disk.release()
        poll_while(main, lambda: any(outcome.pending for outcome in outcomes))
    assert disk.data[:4096] == b"".join(bytes([n + 1]) * 512 for n in range(8))


def test_a_read_waits_for_the_write_of_its_block(main: AioContext) -> None:
    disk = Disk(request_alignment=512)
    buffer, outcome = bytearray(512), Outcome()
    with backend_on(ram_node(disk)) as blk:
        disk.parked = True
        blk.aio_pwritev(1, [memoryview(b"z")], Outcome())
        blk.aio_preadv(0, [memoryview(buffer)], outcome)
        disk.release()
        poll_while(main, lambda: outcome.pending)
    assert bytes(buffer[:3]) == b"\0z\0"


def test_a_serialising_write_waits_for_those_before_it(main: AioContext) -> None:
    disk = Disk()
    disk.parked = True
    outcomes = [Outcome(), Outcome()]
    with backend_on(ram_node(disk)) as blk:
        blk.aio_pwritev(0, [memoryview(b"1" * 512)], outcomes[0])
        blk.aio_pwritev(256, [memoryview(b"2" * 512)], outcomes[1], f.REQ_SERIALISING)
        assert len(disk.asked("pwritev")) == 1
        disk.release()
        poll_while(main, lambda: any(outcome.pending for outcome in outcomes))
    assert disk.data[:768] == b"1" * 256 + b"2" * 512


def test_growing_keeps_writes_out_of_the_new_part(main: AioContext) -> None:
    disk = Disk(512)
    outcomes = [Outcome()]
    with backend_on(ram_node(disk)) as blk:
        blk.allow_write_beyond_eof = True
        disk.parked = True
        growing = Coroutine(blk.co_truncate(4096), ctx=main)  # type: ignore[arg-type]  # it is a coroutine
        growing.enter()
        blk.aio_pwritev(1024, [memoryview(b"w" * 512)], outcomes[0])
        assert disk.asked("pwritev") == []
        disk.release()
        poll_while(main, lambda: outcomes[0].pending or not growing.done)
    assert disk.data[1024:1536] == b"w" * 512


def test_a_serialising_write_that_may_not_wait_is_refused_where_it_would(main: AioContext) -> None:
    disk = Disk()
    disk.parked = True
    first, second, third = Outcome(), Outcome(), Outcome()
    flags = f.REQ_SERIALISING | f.REQ_NO_WAIT
    with backend_on(ram_node(disk)) as blk:
        blk.aio_pwritev(0, [memoryview(b"1" * 512)], first)
        blk.aio_pwritev(256, [memoryview(b"2" * 512)], second, flags)
        blk.aio_pwritev(512, [memoryview(b"3" * 512)], third, flags)
        poll_while(main, lambda: second.pending)
        assert (second.ret, first.pending, third.pending) == (-errno.EBUSY, True, True)
        disk.release()
        poll_while(main, lambda: first.pending or third.pending)
        assert blk.bs is not None
        assert blk.bs.serialising_in_flight == 0
    assert disk.data[:1024] == b"1" * 512 + b"3" * 512
