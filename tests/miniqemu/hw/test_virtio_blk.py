# SPDX-License-Identifier: GPL-2.0-only
"""Each kind of request does what section 5.2 of the standard says."""

from __future__ import annotations

import pytest

from miniqemu.hw import virtio_blk_layout as layout
from miniqemu.hw.virtio import F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1
from miniqemu.hw.virtio_blk_conf import MAX_SEGMENTS, REQUEST_MAX_SECTORS, DeviceError
from miniqemu.hw.virtio_blk_io import MERGE_MAX_READ
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
from tests.support.ring_driver import DriverQueue
from tests.support.virtio_rig import ParkingBlk, Rig, rig

CAPACITY = (1 << 20) // 512
NEVER = 30_000  # a used index that no test comes to
RINGS = [
    (F_VERSION_1, False),
    (F_EVENT_IDX, False),
    (F_INDIRECT_DESC, False),
    (F_INDIRECT_DESC, True),
    (F_EVENT_IDX | F_INDIRECT_DESC, False),
    (F_EVENT_IDX | F_INDIRECT_DESC, True),
]  # features, and whether the requests are indirect


def disk(bench: Rig) -> ParkingBlk:
    assert isinstance(bench.blk, ParkingBlk)
    return bench.blk


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


def test_several_queues_serve_at_once() -> None:
    with rig(num_queues=4) as bench:
        bench.driver.start(queues=4)
        disk(bench).park = True
        chains = [bench.chain(T_IN, n, into=512) for n in range(4)]
        for n, chain in enumerate(chains):
            bench.driver.queues[n].submit(chain)
            bench.driver.kick(n)
        bench.run()
        assert [offset for _, offset, _ in disk(bench).calls] == [0, 512, 1024, 1536]
        disk(bench).release()
        bench.run()
        assert [len(queue.reap()) for queue in bench.driver.queues] == [1, 1, 1, 1]
        assert bench.irqs.edges == 1


def test_one_doorbell_takes_all_and_one_interrupt_tells_of_all() -> None:
    with rig() as bench:
        ring = bench.driver.start(num=256)
        for n in range(0, 128, 2):  # every other sector: nothing to merge
            ring.submit(bench.chain(T_IN, n, into=512))
        bench.driver.kick()
        bench.run()
        assert len(disk(bench).calls) == 64
        assert len(ring.reap()) == 64
        assert bench.irqs.edges == 1


def test_neighbours_are_written_as_one() -> None:
    with rig() as bench:
        ring = bench.driver.start(num=64)
        order = [5, 3, 4, 9, 10, 20]
        chains = [bench.chain(T_OUT, sector, out=bytes([sector]) * 512) for sector in order]
        for chain in chains:
            ring.submit(chain)
        bench.driver.kick()
        bench.run()
        assert disk(bench).calls == [
            ("write", 3 * 512, 3 * 512),
            ("write", 9 * 512, 2 * 512),
            ("write", 20 * 512, 512),
        ]
        for sector in order:
            start = sector * 512
            assert disk(bench).disk[start : start + 512] == bytes([sector]) * 512
        assert len(ring.reap()) == 6
        assert disk(bench).stats.merged[1] == 3


def test_a_stream_is_read_as_one_also_over_doorbells() -> None:
    with rig() as bench:
        ring = bench.driver.start(num=64)
        disk(bench).disk[:4096] = bytes(range(256)) * 16
        chains = [bench.chain(T_IN, n, into=512) for n in range(8)]
        for half in chains[:4], chains[4:]:
            for chain in half:
                ring.submit(chain)
            bench.driver.kick()
            bench.run()
        assert disk(bench).calls == [("read", 0, 2048), ("read", 2048, 2048)]
        assert b"".join(map(bench.data_of, chains)) == disk(bench).disk[:4096]
        assert disk(bench).stats.merged[0] == 6


def submit_scattered(bench: Rig, count: int, used_event: int = NEVER) -> DriverQueue:
    """Rings once for reads that have no neighbours; asks for no interrupt, as if it polled."""
    ring = bench.driver.start(num=256)
    ring.set_used_event(used_event)
    for n in range(count):
        ring.submit(bench.chain(T_IN, 2 * n + 1, into=512))
    bench.driver.kick()
    return ring


def test_the_driver_has_the_first_answers_while_the_rest_is_taken() -> None:
    with rig() as bench:
        ring = submit_scattered(bench, 16)
        steps = []
        while bench.ctx.poll(False):
            steps.append((len(disk(bench).calls), ring.used_idx))
        begun = [begun for begun, _ in steps]
        assert list(dict.fromkeys(begun)) == [1, 5, 16]
        assert all(answered for begun, answered in steps if begun > 1)
        assert len(ring.reap()) == 16


def test_a_driver_that_waits_for_an_interrupt_gets_all_answers_with_it() -> None:
    with rig() as bench:
        ring = submit_scattered(bench, 16, used_event=0)
        told = []
        while bench.ctx.poll(False):
            told.append((len(disk(bench).calls), ring.used_idx, bench.irqs.edges))
        assert {begun for begun, _, _ in told} == {16}
        assert {used for _, used, edges in told if edges} == {16}
        assert bench.irqs.edges == 1


def test_a_read_that_is_alone_needs_no_second_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    with rig() as bench:
        turns: list[int] = []
        monkeypatch.setattr(bench.device.service, "go_on", lambda queue, jumps: turns.append(jumps))
        submit_scattered(bench, 1)
        bench.run()
        assert turns == []


def test_the_driver_is_told_of_a_turn_before_the_next_one_begins() -> None:
    with rig() as bench:
        submit_scattered(bench, 3)
        edges: dict[int, int] = {}
        while bench.ctx.poll(False):
            edges.setdefault(len(disk(bench).calls), bench.irqs.edges)
        assert edges == {1: 0, 3: 1}


def test_reads_that_take_their_time_are_all_begun_at_once() -> None:
    with rig() as bench:
        disk(bench).park = True
        submit_scattered(bench, 16)
        begun = []
        while bench.ctx.poll(False):
            begun.append(len(disk(bench).calls))
        assert list(dict.fromkeys(begun)) == [1, 16]
        bench.device.drain()


def test_a_drained_section_between_two_turns_holds_the_rest_back() -> None:
    with rig() as bench:
        ring = submit_scattered(bench, 16)
        bench.run_until(lambda: len(disk(bench).calls) == 5)
        bench.device.drained_begin()
        bench.run()
        assert len(disk(bench).calls) == ring.used_idx == 5
        bench.device.drained_end()
        bench.run()
        assert len(ring.reap()) == 16


def test_a_turn_that_is_due_after_a_stop_takes_nothing() -> None:
    with rig() as bench:
        ring = submit_scattered(bench, 16)
        bench.run_until(lambda: len(disk(bench).calls) == 5)
        bench.device.service.stop()
        bench.run()
        assert len(disk(bench).calls) == ring.used_idx == 5
        bench.device.service.start()
        bench.run()
        assert len(ring.reap()) == 16


def test_merged_reads_stay_short() -> None:
    with rig() as bench:
        ring = bench.driver.start(num=256)
        for n in range(32):
            ring.submit(bench.chain(T_IN, 8 * n, into=4096))
        bench.driver.kick()
        bench.run()
        assert [size for _, _, size in disk(bench).calls] == [MERGE_MAX_READ, MERGE_MAX_READ]


def test_request_merging_off_keeps_them_apart() -> None:
    with rig(request_merging=False) as bench:
        ring = bench.driver.start(num=64)
        for n in range(4):
            ring.submit(bench.chain(T_OUT, n, out=bytes(512)))
        bench.driver.kick()
        bench.run()
        assert len(disk(bench).calls) == 4


def test_a_driver_that_polls_gets_no_interrupt() -> None:
    with rig() as bench:
        ring = bench.driver.start(F_VERSION_1)
        ring.suppress_interrupts()
        assert bench.request(T_IN, into=512).status == S_OK
        assert bench.irqs.edges == 0


def test_buffers_are_not_touched_before_driver_ok() -> None:
    with rig() as bench:
        bench.driver.negotiate()
        ring = bench.driver.set_up_queue(0, 8)
        ring.submit(bench.chain(T_IN, into=512))
        bench.driver.kick()
        bench.run()
        assert ring.used_idx == 0
        bench.driver.add_status(4)  # DRIVER_OK: what waits in the ring is taken at once
        bench.run()
        assert len(ring.reap()) == 1


def test_nothing_is_taken_in_a_drained_section_and_all_of_it_after() -> None:
    for ioeventfd in (False, True):
        with rig(ioeventfd=ioeventfd) as bench:
            ring = bench.driver.start()
            bench.device.drained_begin()
            chain = bench.chain(T_IN, into=512)
            ring.submit(chain)
            bench.driver.kick()
            bench.run()
            assert ring.used_idx == 0
            bench.device.drained_end()
            bench.run()
            assert bench.status_of(chain) == S_OK


def test_a_driver_that_adds_for_ever_does_not_hold_the_loop() -> None:
    with rig() as bench:
        ring = bench.driver.start(num=8)
        chain = bench.chain(T_GET_ID, into=20)
        head = ring.write_chain(chain)
        queue = bench.device.queues[0]
        push = queue.push
        pushed = []

        class Greedy(type(queue)):  # type: ignore[misc]  # a queue that is refilled as it empties
            __slots__ = ()

            def push(self, head: int, length: int) -> None:
                pushed.append(head)
                push(head, length)
                ring.make_available(head)

        queue.__class__ = Greedy
        ring.make_available(head)
        bench.device.handle_queue(queue)
        assert len(pushed) == 8  # one round, and then it is the others' turn
        queue.__class__ = Greedy.__mro__[1]


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
