# SPDX-License-Identifier: GPL-2.0-only
"""Each kind of request does what section 5.2 of the standard says."""

from __future__ import annotations

import pytest

from miniqemu.hw import virtio_blk_layout as layout
from miniqemu.hw.virtio import F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1
from miniqemu.hw.virtio_blk_conf import MAX_SEGMENTS, REQUEST_MAX_SECTORS, DeviceError
from miniqemu.hw.virtio_blk_layout import (
    S_IOERR,
    S_OK,
    S_UNSUPP,
    SEGMENT,
    T_BARRIER,
    T_DISCARD,
    T_FLUSH,
    T_GET_ID,
    T_IN,
    T_OUT,
    T_WRITE_ZEROES,
)
from tests.support.virtio_rig import ParkingBlk, Rig, disk, rig

CAPACITY = (1 << 20) // 512
RINGS = [
    (F_VERSION_1, False),
    (F_EVENT_IDX, False),
    (F_INDIRECT_DESC, False),
    (F_INDIRECT_DESC, True),
    (F_EVENT_IDX | F_INDIRECT_DESC, False),
    (F_EVENT_IDX | F_INDIRECT_DESC, True),
]  # features, and whether the requests are indirect


@pytest.mark.parametrize(("features", "indirect"), RINGS)
@pytest.mark.parametrize("ioeventfd", [False, True])
def test_what_is_written_is_read_again(features: int, indirect: bool, ioeventfd: bool) -> None:
    with rig(ioeventfd=ioeventfd) as bench:
        bench.driver.start(features)
        data = bytes(range(256)) * 32
        written = bench.request(T_OUT, 7, out=data, indirect=indirect)
        assert (written.status, written.used) == (S_OK, [(written.head, 1)])
        back = bench.request(T_IN, 7, into=len(data), indirect=indirect)
        assert back.status == S_OK
        assert back.data == data
        assert back.used == [(back.head, len(data) + 1)]
        assert disk(bench).disk[7 * 512 : 7 * 512 + len(data)] == data


@pytest.mark.parametrize("cut", [1, 3, 15, 16, 17, 100, 512])
def test_header_data_and_status_may_be_cut_anywhere(cut: int) -> None:
    with rig(queue_size=1024) as bench:
        bench.driver.start(num=1024)
        data = bytes(range(256)) * 2
        assert bench.request(T_OUT, 3, out=data, cut=cut).status == S_OK
        back = bench.request(T_IN, 3, into=512, cut=cut)
        assert (back.status, back.data) == (S_OK, data)


def test_data_is_handed_on_without_a_copy() -> None:
    with rig() as bench:
        bench.driver.start()
        bench.request(T_IN, into=4096)
        bench.request(T_OUT, out=bytes(4096))
        ram = bench.memory.regions[0].map
        assert len(disk(bench).iovs) == 2
        assert all(view.obj is ram for iov in disk(bench).iovs for view in iov)


def test_a_request_without_data_is_answered() -> None:
    with rig() as bench:
        bench.driver.start()
        assert bench.request(T_IN, CAPACITY).status == S_OK
        assert bench.request(T_OUT, 5).status == S_OK
        assert not disk(bench).calls


@pytest.mark.parametrize(
    ("kind", "sector", "size"),
    [
        (T_IN, CAPACITY, 512),
        (T_IN, CAPACITY - 1, 1024),
        (T_IN, (1 << 64) - 1, 512),
        (T_IN, 1 << 55, 512),
        (T_IN, 0, 511),
        (T_IN, 0, 513),
        (T_OUT, CAPACITY, 512),
        (T_OUT, CAPACITY - 1, 1024),
        (T_OUT, 0, 100),
    ],
)
def test_a_place_that_is_not_there_is_an_error(kind: int, sector: int, size: int) -> None:
    with rig() as bench:
        bench.driver.start()
        data = {"out": bytes(size)} if kind == T_OUT else {"into": size}
        answer = bench.request(kind, sector, **data)  # type: ignore[arg-type]  # one of two names
        assert answer.status == S_IOERR
        assert answer.used == [(answer.head, 1)]
        assert not disk(bench).calls
        assert sum(disk(bench).stats.invalid_ops) == 1
        assert not bench.device.broken


def test_the_last_sector_is_there() -> None:
    with rig() as bench:
        bench.driver.start()
        assert bench.request(T_IN, CAPACITY - 1, into=512).status == S_OK


def test_whole_logical_blocks_only() -> None:
    with rig(logical_block_size=4096, physical_block_size=4096) as bench:
        bench.driver.start()
        assert bench.request(T_IN, 8, into=4096).status == S_OK
        assert bench.request(T_IN, 1, into=4096).status == S_IOERR
        assert bench.request(T_IN, 8, into=512).status == S_IOERR


def test_a_read_only_disk_refuses_every_change() -> None:
    class ReadOnly(ParkingBlk):
        read_only = True

    with rig(ReadOnly) as bench:
        assert bench.driver.offered() & layout.F_RO
        bench.driver.start()
        segment = SEGMENT.pack(0, 1, 0)
        assert bench.request(T_OUT, out=bytes(512)).status == S_IOERR
        assert bench.request(T_DISCARD, out=segment).status == S_IOERR
        assert bench.request(T_WRITE_ZEROES, out=segment).status == S_IOERR
        assert bench.request(T_IN, into=512).status == S_OK
        assert bench.request(T_FLUSH).status == S_OK


def test_a_flush_reaches_the_disk_after_the_writes_before_it() -> None:
    with rig() as bench:
        ring = bench.driver.start(num=16)
        chains = [bench.chain(T_OUT, n, out=bytes(512)) for n in (4, 2)] + [bench.chain(T_FLUSH)]
        for chain in chains:
            ring.submit(chain)
        bench.driver.kick()
        bench.run()
        assert [name for name, _, _ in disk(bench).calls] == ["write", "write", "flush"]
        assert [bench.status_of(chain) for chain in chains] == [S_OK] * 3


@pytest.mark.parametrize(
    ("serial", "expected"),
    [
        ("", bytes(20)),
        ("short", b"short".ljust(20, b"\0")),
        ("exactly-20-characters", b"exactly-20-character"),
        ("x" * 40, b"x" * 20),
    ],
)
def test_get_id_is_the_serial_number(serial: str, expected: bytes) -> None:
    with rig(serial=serial) as bench:
        bench.driver.start()
        answer = bench.request(T_GET_ID, into=20)
        assert (answer.status, answer.data) == (S_OK, expected)
        assert answer.used[0][1] == 21


def test_get_id_fits_into_what_there_is() -> None:
    with rig(serial="0123456789") as bench:
        bench.driver.start(num=64)
        assert bench.request(T_GET_ID, into=4).data == b"0123"
        assert bench.request(T_GET_ID, into=20, cut=3).data == b"0123456789".ljust(20, b"\0")
        longer = bench.request(T_GET_ID, into=64)
        assert longer.data == b"0123456789".ljust(64, b"\0")
        assert longer.used[0][1] == 20


def test_discard_takes_several_segments() -> None:
    with rig() as bench:
        bench.driver.start()
        segments = SEGMENT.pack(8, 16, 0) + SEGMENT.pack(100, 1, 0)
        assert bench.request(T_DISCARD, out=segments).status == S_OK
        assert disk(bench).calls == [("discard", 4096, 8192), ("discard", 51200, 512)]


@pytest.mark.parametrize(("flags", "expected"), [(0, "zeroes flags=0x0"), (1, "zeroes flags=0x4")])
def test_write_zeroes_may_unmap_if_the_driver_says_so(flags: int, expected: str) -> None:
    with rig() as bench:
        bench.driver.start()
        disk(bench).disk[:] = b"x" * len(disk(bench).disk)
        assert bench.request(T_WRITE_ZEROES, out=SEGMENT.pack(2, 3, flags)).status == S_OK
        assert disk(bench).calls == [(expected, 1024, 1536)]
        assert disk(bench).disk[1024:2560] == bytes(1536)


@pytest.mark.parametrize("kind", [T_DISCARD, T_WRITE_ZEROES])
@pytest.mark.parametrize(
    ("segments", "status"),
    [
        (SEGMENT.pack(CAPACITY, 1, 0), S_IOERR),
        (SEGMENT.pack((1 << 64) - 1, 2, 0), S_IOERR),
        (SEGMENT.pack(0, REQUEST_MAX_SECTORS + 1, 0), S_IOERR),
        (SEGMENT.pack(0, 1, 2), S_UNSUPP),
        (SEGMENT.pack(0, 1, 0x8000_0000), S_UNSUPP),
        (SEGMENT.pack(0, 1, 0) * (MAX_SEGMENTS + 1), S_UNSUPP),
        (SEGMENT.pack(0, 1, 0) + SEGMENT.pack(CAPACITY, 1, 0), S_IOERR),
        (b"", S_IOERR),
        (bytes(15), S_IOERR),
        (SEGMENT.pack(0, 0, 0), S_OK),
    ],
)
def test_segments_are_checked_before_any_is_begun(kind: int, segments: bytes, status: int) -> None:
    with rig() as bench:
        bench.driver.start()
        assert bench.request(kind, out=segments).status == status
        assert not disk(bench).calls


def test_a_discard_with_the_unmap_flag_is_not_supported() -> None:
    with rig() as bench:
        bench.driver.start()
        assert bench.request(T_DISCARD, out=SEGMENT.pack(0, 1, 1)).status == S_UNSUPP


@pytest.mark.parametrize("kind", [2, 3, 5, 6, 9, 10, 12, 14, 0x7FFF_FFFF, 0x4000_0001])
def test_an_unknown_kind_is_not_supported(kind: int) -> None:
    with rig() as bench:
        bench.driver.start()
        assert bench.request(kind, into=512).status == S_UNSUPP
        assert not disk(bench).calls


def test_what_was_not_offered_is_not_supported() -> None:
    with rig(discard=False, write_zeroes=False) as bench:
        bench.driver.start()
        assert bench.request(T_DISCARD, out=SEGMENT.pack(0, 1, 0)).status == S_UNSUPP
        assert bench.request(T_WRITE_ZEROES, out=SEGMENT.pack(0, 1, 0)).status == S_UNSUPP


def test_the_old_barrier_flag_is_ignored() -> None:
    with rig() as bench:
        bench.driver.start()
        assert bench.request(T_OUT | T_BARRIER, 1, out=b"b" * 512).status == S_OK
        assert bench.request(T_IN | T_BARRIER, 1, into=512).data == b"b" * 512
        assert bench.request(T_FLUSH | T_BARRIER).status == S_OK


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"num_queues": 0}, "num-queues property must be larger than 0"),
        ({"num_queues": 1025}, "num-queues property must not exceed 1024"),
        ({"queue_size": 2}, "invalid queue-size property (2), must be > 2"),
        ({"queue_size": 100}, "must be a power of 2 (max 1024)"),
        ({"queue_size": 2048}, "must be a power of 2 (max 1024)"),
        ({"logical_block_size": 4096}, "logical_block_size > physical_block_size"),
        ({"logical_block_size": 100}, "logical_block_size doesn't take value 100"),
        ({"min_io_size": 100}, "min_io_size must be a multiple of logical_block_size"),
        ({"opt_io_size": 100}, "opt_io_size must be a multiple of logical_block_size"),
        ({"discard_granularity": 7}, "discard_granularity must be a multiple"),
        ({"min_io_size": 512 << 16}, "min_io_size must not exceed 65535 logical blocks"),
        ({"max_discard_sectors": 0}, "invalid max-discard-sectors property (0)"),
        ({"max_write_zeroes_sectors": 1 << 30}, "invalid max-write-zeroes-sectors property"),
        ({"heads": 16, "secs": 63}, "cyls must be between 1 and 65535"),
        ({"cyls": 1, "heads": 300, "secs": 63}, "heads must be between 1 and 255"),
    ],
)
def test_a_property_that_cannot_be_is_named(conf: dict[str, int], message: str) -> None:
    with pytest.raises(DeviceError) as error:
        Rig(**conf)  # type: ignore[arg-type]  # properties of the device
    assert message in str(error.value)
