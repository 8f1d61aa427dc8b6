# SPDX-License-Identifier: GPL-2.0-only
"""A table of what a bad guest tries, and of the answer that the standard asks for.

Two answers are possible. RESET: the device shows NEEDS_RESET, tells the driver by a configuration
interrupt, and stops until it is reset. IGNORED: nothing happens, or the request is answered
with an error, and a good request works afterwards. In no case is there an exception, a hang, a
touch outside guest memory, or a word to another device: each case runs beside a second device
whose memory must not change. (Requests for places that are not there: test_virtio_blk.py.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from miniqemu.hw import virtio_mmio as mmio
from miniqemu.hw import virtio_status as status
from miniqemu.hw.virtio import F_EVENT_IDX, F_VERSION_1, ISR_CONFIG
from miniqemu.hw.virtio_blk_layout import REQUEST_HEADER, S_IOERR, S_OK, T_IN, T_OUT
from miniqemu.hw.virtqueue import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE
from tests.support.ring_driver import DriverQueue
from tests.support.virtio_rig import RAM, ParkingBlk, Rig, rig

NEXT, WRITE, INDIRECT = DESC_F_NEXT, DESC_F_WRITE, DESC_F_INDIRECT
DATA = 0x40_0000  # somewhere in RAM, away from rings and requests
MMIO = 0xFEB0_0E00
RESET, IGNORED = "needs reset", "ignored"


def desc(*descriptors: tuple[int, int, int, int]) -> Callable[[Rig, DriverQueue], None]:
    """Writes descriptors 0, 1, ... as (address, length, flags, next); rings for head 0."""

    def act(bench: Rig, ring: DriverQueue) -> None:
        for number, descriptor in enumerate(descriptors):
            ring.write_desc(number, *descriptor)
        ring.make_available(0)
        bench.driver.kick()

    return act


def table(
    *descriptors: tuple[int, int, int, int], flags: int = INDIRECT
) -> Callable[[Rig, DriverQueue], None]:
    """The same in an indirect table, which head 0 refers to."""

    def act(bench: Rig, ring: DriverQueue) -> None:
        for number, descriptor in enumerate(descriptors):
            ring.write_desc(number, *descriptor, table=ring.tables[0])
        ring.write_desc(0, ring.tables[0], 16 * len(descriptors), flags, 1)
        ring.make_available(0)
        bench.driver.kick()

    return act


def avail(*heads: int, index: int | None = None) -> Callable[[Rig, DriverQueue], None]:
    """Makes any heads available, or claims any index."""

    def act(bench: Rig, ring: DriverQueue) -> None:
        for head in heads:
            ring.make_available(head)
        if index is not None:
            ring.set_avail_idx(index)
        bench.driver.kick()

    return act


def placed(num: int, where: int, *, which: int = 0) -> Callable[[Rig, DriverQueue], None]:
    """Puts a ring of the queue at any place."""

    def act(bench: Rig, ring: DriverQueue) -> None:
        bench.driver.negotiate()
        rings = [0x1000, 0x2000, 0x3000]
        rings[which] = where
        assert bench.driver.place_queue(0, num, *rings) == 0

    return act


def register(offset: int, value: int, size: int = 4) -> Callable[[Rig, DriverQueue], None]:
    """Writes a register of a running device."""
    return lambda bench, ring: bench.transport.write(offset, size, value)


def twice_the_same_head(bench: Rig, ring: DriverQueue) -> None:
    assert isinstance(bench.blk, ParkingBlk)
    bench.blk.park = True
    head = ring.submit(bench.chain(T_IN, into=512))
    bench.driver.kick()
    bench.run()
    ring.make_available(head)
    bench.driver.kick()
    bench.run()
    bench.blk.park = False


def a_storm_of_doorbells(bench: Rig, ring: DriverQueue) -> None:
    for number in range(2000):
        bench.driver.kick(number % 5)


def a_storm_of_acknowledges(bench: Rig, ring: DriverQueue) -> None:
    for _ in range(500):
        bench.driver.set_reg(mmio.INTERRUPT_ACK, 0xFFFF_FFFF)
        bench.device.config_changed()
        bench.driver.set_reg(mmio.INTERRUPT_ACK, 0xFFFF_FFFF)


def features_changed_afterwards(bench: Rig, ring: DriverQueue) -> None:
    before = bench.device.features
    bench.driver.accept(F_VERSION_1)
    assert bench.device.features == before


def rings_moved_while_running(bench: Rig, ring: DriverQueue) -> None:
    for offset in mmio.QUEUE_ADDRESSES:
        bench.driver.set_reg(offset, 0xFFFF_FFF0)
    bench.driver.set_reg(mmio.QUEUE_NUM, 1)
    bench.driver.set_reg(mmio.QUEUE_READY, 1)


def a_header_in_the_used_ring(bench: Rig, ring: DriverQueue) -> None:
    """Legal, if silly: the device reads the header out of its own ring."""
    ring.write_desc(0, ring.used, 16, NEXT, 1)
    ring.write_desc(1, DATA, 1, WRITE)
    ring.make_available(0)
    bench.driver.kick()


def a_read_into_the_own_rings(bench: Rig, ring: DriverQueue) -> None:
    """The disk's bytes land in the descriptor table; the next pop must believe nothing of it."""
    assert isinstance(bench.blk, ParkingBlk)
    bench.blk.disk[:512] = b"\xff" * 512
    header, result = bench.driver.pages.take(16), bench.driver.pages.take(1)
    bench.memory.write(header, REQUEST_HEADER.pack(T_IN, 0, 0))
    ring.write_desc(0, header, 16, NEXT, 1)
    ring.write_desc(1, ring.desc, 512, NEXT | WRITE, 2)
    ring.write_desc(2, result, 1, WRITE)
    ring.make_available(0)
    bench.driver.kick()
    bench.run()
    ring.make_available(0)
    bench.driver.kick()


def a_write_to_a_readable_buffer(bench: Rig, ring: DriverQueue) -> None:
    """A read whose data buffer the device may only read: the status is all it writes."""
    header, result = bench.driver.pages.take(16), bench.driver.pages.take(1)
    bench.memory.write(header, REQUEST_HEADER.pack(T_IN, 0, 0))
    ring.write_desc(0, header, 16, NEXT, 1)
    ring.write_desc(1, DATA, 512, NEXT, 2)
    ring.write_desc(2, result, 1, WRITE)
    ring.make_available(0)
    bench.driver.kick()
    bench.run()
    assert bench.memory.read(DATA, 512) == bytes(512)


def reset_in_mid_request(bench: Rig, ring: DriverQueue) -> None:
    assert isinstance(bench.blk, ParkingBlk)
    bench.blk.park = True
    for n in range(2):
        ring.submit(bench.chain(T_OUT, n, out=bytes(512)))
    bench.driver.kick()
    bench.run()
    bench.driver.set_reg(mmio.STATUS, 0)
    assert not bench.device.queues[0].in_use
    bench.blk.park = False


def a_whole_disk_of_memory(bench: Rig, ring: DriverQueue) -> None:
    """One request of 8 x all RAM: longer than the disk, so an error, and no copy on the way."""
    result = bench.driver.pages.take(1)
    header = bench.driver.pages.take(16)
    bench.memory.write(header, REQUEST_HEADER.pack(T_IN, 0, 0))
    chain = [(header, 16, False), *[(0, RAM, True)] * 8, (result, 1, True)]
    ring.submit(chain, indirect=True)
    bench.driver.kick()
    bench.run()
    assert bench.memory.read(result, 1)[0] == S_IOERR


class Case(NamedTuple):
    """What the guest does, and what the device does about it."""

    act: Callable[[Rig, DriverQueue], None]
    answer: str
    report: str = ""  # a word that must be in what the person is told


CASES = {
    # Chains.
    "a loop of one descriptor": Case(desc((DATA, 16, NEXT, 0)), RESET, "loop"),
    "a loop of two": Case(desc((DATA, 16, NEXT, 1), (DATA, 16, NEXT, 0)), RESET, "loop"),
    "a loop through writable ones": Case(desc((DATA, 16, NEXT | WRITE, 0)), RESET, "loop"),
    "next is outside the table": Case(desc((DATA, 16, NEXT, 8)), RESET, "next"),
    "next is 65535": Case(desc((DATA, 16, NEXT, 0xFFFF)), RESET, "next"),
    "readable after writable": Case(
        desc((DATA, 16, NEXT | WRITE, 1), (DATA, 16, 0, 0)), RESET, "after"
    ),
    "unknown flags": Case(desc((DATA, 16, 0x8 | WRITE, 0)), RESET, "header"),
    # Addresses and lengths.
    "length 0": Case(desc((DATA, 0, NEXT, 1), (DATA, 1, WRITE, 0)), RESET, "length 0"),
    "length 0 of a writable one": Case(desc((DATA, 16, NEXT, 1), (DATA, 0, WRITE, 0)), RESET),
    "4 GiB less 1": Case(desc((0, 0xFFFF_FFFF, NEXT, 1), (DATA, 1, WRITE, 0)), RESET, "RAM"),
    "address behind RAM": Case(desc((RAM, 16, NEXT, 1), (DATA, 1, WRITE, 0)), RESET, "RAM"),
    "one byte behind RAM": Case(desc((RAM - 15, 16, NEXT, 1), (DATA, 1, WRITE, 0)), RESET),
    "address wraps at 2^64": Case(
        desc(((1 << 64) - 8, 16, NEXT, 1), (DATA, 1, WRITE, 0)), RESET, "RAM"
    ),
    "address is a device": Case(desc((MMIO, 16, NEXT, 1), (DATA, 1, WRITE, 0)), RESET, "RAM"),
    "status byte in a device": Case(desc((DATA, 16, NEXT, 1), (MMIO + 0x50, 4, WRITE, 0)), RESET),
    "a whole disk of memory": Case(a_whole_disk_of_memory, IGNORED),
    # Headers.
    "no writable descriptor": Case(desc((DATA, 16, 0, 0)), RESET, "status"),
    "no readable descriptor": Case(desc((DATA, 16, WRITE, 0)), RESET, "header"),
    "header of 15 bytes": Case(desc((DATA, 15, NEXT, 1), (DATA, 1, WRITE, 0)), RESET, "short"),
    "header in the used ring": Case(a_header_in_the_used_ring, IGNORED),
    "data only readable in a read": Case(a_write_to_a_readable_buffer, IGNORED),
    "read into the own rings": Case(a_read_into_the_own_rings, RESET),
    # Indirect tables.
    "indirect in indirect": Case(table((DATA, 16, INDIRECT, 0)), RESET, "indirect"),
    "indirect loop": Case(table((DATA, 16, NEXT, 0)), RESET, "loop"),
    "indirect next outside": Case(table((DATA, 16, NEXT, 1)), RESET, "next"),
    "indirect and next": Case(table((DATA, 16, 0, 0), flags=INDIRECT | NEXT), RESET, "goes on"),
    "indirect table of 0 bytes": Case(desc((DATA, 0, INDIRECT, 0)), RESET, "table of 0"),
    "indirect table of 17 bytes": Case(desc((DATA, 17, INDIRECT, 0)), RESET, "table of 17"),
    "indirect table behind RAM": Case(desc((RAM, 16, INDIRECT, 0)), RESET, "RAM"),
    "indirect table of 4 GiB": Case(desc((0, 0xFFFF_FFF0, INDIRECT, 0)), RESET, "RAM"),
    # The available ring.
    "head outside the table": Case(avail(8), RESET, "head 8"),
    "head 65535": Case(avail(0xFFFF), RESET, "head 65535"),
    "index jumps by more than the ring": Case(avail(index=9), RESET, "jumped"),
    "index goes back": Case(avail(index=0xFFFF), RESET, "jumped"),
    "the same head twice": Case(twice_the_same_head, RESET, "twice"),
    # Queues in impossible places.
    "size 0": Case(placed(0, 0x1000), RESET, "size 0"),
    "size 3": Case(placed(3, 0x1000), RESET, "size 3"),
    "size beyond the maximum": Case(placed(512, 0x1000), RESET, "size 512"),
    "size 2^31": Case(placed(1 << 31, 0x1000), RESET),
    "descriptors misaligned": Case(placed(8, 0x1008), RESET, "aligned"),
    "descriptors in a device": Case(placed(8, MMIO), RESET, "RAM"),
    "descriptors at 2^64 - 16": Case(placed(8, (1 << 64) - 16), RESET, "RAM"),
    "available ring behind RAM": Case(placed(8, RAM, which=1), RESET, "RAM"),
    "available ring ends behind RAM": Case(placed(8, RAM - 20, which=1), RESET, "RAM"),
    "used ring in a device": Case(placed(8, MMIO, which=2), RESET, "RAM"),
    "used ring misaligned": Case(placed(8, 0x3002, which=2), RESET, "aligned"),
    # Registers.
    "doorbell of no queue": Case(register(mmio.QUEUE_NOTIFY, 77), IGNORED),
    "doorbell of queue 2^32 - 1": Case(register(mmio.QUEUE_NOTIFY, 0xFFFF_FFFF), IGNORED),
    "doorbell of 8 bytes": Case(register(mmio.QUEUE_NOTIFY, 0, 8), IGNORED),
    "doorbell of 1 byte": Case(register(mmio.QUEUE_NOTIFY, 0, 1), IGNORED),
    "storm of doorbells": Case(a_storm_of_doorbells, IGNORED),
    "storm of acknowledges": Case(a_storm_of_acknowledges, IGNORED),
    "features changed afterwards": Case(features_changed_afterwards, IGNORED),
    "rings moved while running": Case(rings_moved_while_running, IGNORED),
    "status goes back a step": Case(register(mmio.STATUS, 3), IGNORED),
    "status of nonsense": Case(register(mmio.STATUS, 0x36), IGNORED),
    "NEEDS_RESET by the driver": Case(register(mmio.STATUS, 0x4F), IGNORED),
    "write to capacity": Case(register(mmio.CONFIG, 0xFFFF_FFFF), IGNORED),
    "configuration write of 8 bytes": Case(register(mmio.CONFIG + 28, 0, 8), IGNORED),
    "write beyond the window": Case(register(mmio.SIZE, 1), IGNORED),
    "write between registers": Case(register(0x71, 0), IGNORED),
    "reset in mid-request": Case(reset_in_mid_request, IGNORED),
}


def assert_asks_for_a_reset(bench: Rig, case: Case) -> None:
    driver = bench.driver
    assert driver.status & status.NEEDS_RESET
    if driver.status & status.DRIVER_OK:
        assert driver.reg(mmio.INTERRUPT_STATUS) & ISR_CONFIG
    assert len(bench.reports) == 1
    assert case.report in bench.reports[0]
    driver.kick()  # a device that asked for a reset does nothing until it gets one
    bench.run()
    assert len(bench.reports) == 1


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("features", [None, F_VERSION_1 | 1 << 28], ids=["event_idx", "flags"])
def test_the_device_answers_as_the_standard_asks(name: str, features: int | None) -> None:
    case = CASES[name]
    with rig() as bench, rig() as neighbour:
        neighbour.driver.start()
        before = bytes(neighbour.memory.read(0, RAM))
        ring = bench.driver.start(features)
        case.act(bench, ring)
        bench.run()
        if case.answer == RESET:
            assert_asks_for_a_reset(bench, case)
        else:
            assert not bench.device.broken
            assert not bench.reports
        bench.driver.start(features)  # a reset mends everything
        assert bench.request(T_IN, into=512).status == S_OK
        assert neighbour.memory.read(0, RAM) == before
        assert neighbour.irqs.edges == 0
        assert neighbour.request(T_IN, into=512).status == S_OK


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.answer == IGNORED])
def test_after_what_is_ignored_the_device_goes_on_without_a_reset(name: str) -> None:
    with rig() as bench:
        ring = bench.driver.start()
        CASES[name].act(bench, ring)
        bench.run()
        if bench.driver.status:  # a reset was the case itself
            ring.reap()
            ring.free = list(range(7, -1, -1))
            assert bench.request(T_IN, into=512).status == S_OK


def test_indirect_without_the_feature_is_a_broken_ring() -> None:
    with rig() as bench:
        ring = bench.driver.start(F_EVENT_IDX)
        ring.submit([(DATA, 16, False), (DATA, 1, True)], indirect=True)
        bench.driver.kick()
        bench.run()
        assert bench.device.broken
        assert "not negotiated" in bench.reports[0]


def test_requests_that_were_in_flight_when_a_ring_broke_still_end() -> None:
    with rig() as bench:
        ring = bench.driver.start()
        assert isinstance(bench.blk, ParkingBlk)
        bench.blk.park = True
        good = bench.chain(T_IN, into=512)
        ring.submit(good)
        bench.driver.kick()
        bench.run()
        ring.make_available(0xFFFF)
        bench.driver.kick()
        bench.run()
        assert bench.device.broken
        bench.blk.release()
        bench.run()
        assert bench.status_of(good) == S_OK


def test_the_table_has_its_cases() -> None:
    assert len(CASES) >= 60
