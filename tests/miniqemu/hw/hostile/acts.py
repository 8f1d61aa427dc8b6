# SPDX-License-Identifier: GPL-2.0-only
"""What a bad guest does: the deeds of table.py, as functions of a Bench whose driver has started.

An act returns the chain whose status byte the table speaks of, or None. The makers (`desc`,
`table`, `avail`, `placed`, `register`, `request`) make one of plain numbers; the rest is told
in full.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from miniqemu.hw import virtio_mmio as mmio
from miniqemu.hw import virtio_status as status
from miniqemu.hw.virtio import F_VERSION_1
from miniqemu.hw.virtio_blk_layout import (
    CONFIG_OFFSETS,
    F_FLUSH,
    REQUEST_HEADER,
    SEGMENT,
    T_DISCARD,
    T_IN,
    T_OUT,
    T_WRITE_ZEROES,
)
from miniqemu.hw.virtqueue import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE
from tests.miniqemu.hw.hostile.bench import DATA, HIGH, HIGH_SIZE, RAM_END, Bench
from tests.support.ring_driver import Buffer

NEXT, WRITE, INDIRECT = DESC_F_NEXT, DESC_F_WRITE, DESC_F_INDIRECT
Descriptor = tuple[int, int, int, int]  # address, length, flags, next
Act = Callable[[Bench], list[Buffer] | None]
ALL_ONES = 0xFFFF_FFFF


# -- Makers --------------------------------------------------------------------------------


def desc(*descriptors: Descriptor) -> Act:
    """Descriptors 0, 1, ... of the queue's own table; head 0."""

    def act(machine: Bench) -> None:
        for number, descriptor in enumerate(descriptors):
            machine.ring.write_desc(number, *descriptor)
        machine.ring.make_available(0)
        machine.kick()

    return act


def table(*descriptors: Descriptor, flags: int = INDIRECT, following: int = 1) -> Act:
    """The same in an indirect table, which head 0 refers to."""

    def act(machine: Bench) -> None:
        ring = machine.ring
        for number, descriptor in enumerate(descriptors):
            ring.write_desc(number, *descriptor, table=ring.tables[0])
        ring.write_desc(0, ring.tables[0], 16 * len(descriptors), flags, following)
        ring.make_available(0)
        machine.kick()

    return act


def avail(*heads: int, index: int | None = None) -> Act:
    """Any heads, or any index, in the available ring."""

    def act(machine: Bench) -> None:
        for head in heads:
            machine.ring.make_available(head)
        if index is not None:
            machine.ring.set_avail_idx(index)
        machine.kick()

    return act


def placed(num: int = 8, desc: int = 0x1000, avail: int = 0x2000, used: int = 0x3000) -> Act:
    """A queue of any size at any place."""

    def act(machine: Bench) -> None:
        machine.driver.negotiate()
        assert machine.driver.place_queue(0, num, desc, avail, used) == 0

    return act


def register(offset: int, value: int, size: int = 4) -> Act:
    """A store to the window of a running device."""

    def act(machine: Bench) -> None:
        machine.driver.window.write(offset, size, value)
        machine.settle()

    return act


def load(offset: int, size: int, expected: int) -> Act:
    """A load from the window; what it must give."""

    def act(machine: Bench) -> None:
        assert machine.driver.window.read(offset, size) == expected

    return act


def submit(machine: Bench, chain: list[Buffer]) -> list[Buffer]:
    """Makes a chain available in an indirect table, rings and waits; returns the chain."""
    machine.ring.submit(chain, indirect=machine.driver.indirect)
    machine.kick()
    return chain


def request(kind: int, sector: int = 0, *, out: bytes = b"", into: int = 0, cut: int = 0) -> Act:
    """A request in proper form; what it asks for is another matter."""

    def act(machine: Bench) -> list[Buffer]:
        return submit(machine, machine.chain(kind, sector, out=out, into=into, cut=cut))

    return act


def segments(kind: int, *ranges: tuple[int, int, int], cut_off: int = 0) -> Act:
    """A discard or a write of zeroes: (sector, sectors, flags) each."""
    data = b"".join(SEGMENT.pack(*one) for one in ranges)
    return request(kind, out=data[: len(data) - cut_off])


def request_without(features: int, kind: int, out: bytes) -> Act:
    """A request whose feature the driver has not accepted."""

    def act(machine: Bench) -> list[Buffer]:
        machine.driver.start(machine.driver.offered() & ~features)
        return submit(machine, machine.chain(kind, out=out))

    return act


def step(value: int, *before: int, shows: int) -> Act:
    """A write to the status register after some good ones; what the register shows then."""

    def act(machine: Bench) -> None:
        machine.driver.close()
        for one in (0, *before, value):
            machine.driver.set_reg(mmio.STATUS, one)
        assert machine.driver.status == shows

    return act


def features(value: int) -> Act:
    """A set of features that the device must refuse."""

    def act(machine: Bench) -> None:
        machine.driver.close()
        machine.driver.set_reg(mmio.STATUS, 0)
        machine.driver.set_reg(mmio.STATUS, status.ACKNOWLEDGE | status.DRIVER)
        machine.driver.accept(value)
        assert not machine.driver.add_status(status.FEATURES_OK) & status.FEATURES_OK

    return act


# -- Buffers -------------------------------------------------------------------------------


def header_at(machine: Bench, kind: int = T_IN, sector: int = 0) -> int:
    """A header in memory; its address."""
    return machine.store(machine.driver.pages.take(16), REQUEST_HEADER.pack(kind, 0, sector))


def status_at(machine: Bench) -> int:
    """A place for a status byte, which is not 0; its address."""
    return machine.store(machine.driver.pages.take(1), b"\xff")


def buffers(kind: int, *data: Buffer) -> Act:
    """A request with any buffers between its header and its status."""

    def act(machine: Bench) -> list[Buffer]:
        chain = [(header_at(machine, kind), 16, False), *data, (status_at(machine), 1, True)]
        for number, (gpa, length, writable) in enumerate(chain):
            last = number == len(chain) - 1
            flags = (WRITE if writable else 0) | (0 if last else NEXT)
            machine.ring.write_desc(number, gpa, length, flags, number + 1)
        machine.ring.make_available(0)
        machine.kick()
        return chain

    return act


def chain_as_long_as_the_queue(machine: Bench) -> list[Buffer] | None:
    return buffers(T_IN, *[(DATA + 512 * n, 512, True) for n in range(6)])(machine)


def loop_of_the_whole_table(machine: Bench) -> None:
    desc(*[(DATA, 16, NEXT, (n + 1) % 8) for n in range(8)])(machine)


def descriptors_change_in_flight(machine: Bench) -> list[Buffer]:
    """The device has read them, and does not read them again."""
    machine.disk.parked = True
    chain = machine.chain(T_IN, into=512)
    machine.ring.submit(chain)
    machine.kick()
    for number in range(8):
        machine.ring.write_desc(number, HIGH + HIGH_SIZE, ALL_ONES, WRITE | NEXT, number)
    machine.let_go()
    return chain


def header_changes_in_flight(machine: Bench) -> list[Buffer]:
    machine.disk.parked = True
    chain = machine.chain(T_IN, into=512)
    machine.ring.submit(chain)
    machine.kick()
    machine.store(chain[0][0], REQUEST_HEADER.pack(T_OUT, 0, 1 << 60))
    machine.let_go()
    return chain


def header_in_the_used_ring(machine: Bench) -> list[Buffer]:
    """Legal, if silly: the device reads the header out of its own ring."""
    ring = machine.ring
    result = status_at(machine)
    ring.write_desc(0, ring.used, 16, NEXT, 1)
    ring.write_desc(1, result, 1, WRITE)
    ring.make_available(0)
    machine.kick()
    return [(result, 1, True)]


def read_into_the_descriptors(machine: Bench) -> None:
    """The disk's bytes land in the descriptor table; the next chain is made of them."""
    buffers(T_IN, (machine.ring.desc, 512, True))(machine)
    machine.ring.make_available(0)
    machine.kick()


def status_into_the_available_index(machine: Bench) -> None:
    """The status byte, 0, makes the index go back from 1 to 0."""
    ring = machine.ring
    ring.write_desc(0, header_at(machine), 16, NEXT, 1)
    ring.write_desc(1, DATA, 512, NEXT | WRITE, 2)
    ring.write_desc(2, ring.avail + 2, 1, WRITE)
    ring.make_available(0)
    machine.kick()
    machine.kick()


def data_only_readable(machine: Bench) -> list[Buffer] | None:
    machine.store(DATA, b"\x11" * 512)
    return buffers(T_IN, (DATA, 512, False))(machine)


# -- Indirect tables -----------------------------------------------------------------------


def indirect_without_the_feature(machine: Bench) -> None:
    machine.driver.start(0)
    machine.ring.submit([(DATA, 16, False), (DATA, 1, True)], indirect=True)
    machine.kick()


def good_table(flags: int, before: bool = False, misaligned: int = 0) -> Act:
    """A read in a table of its own; `before`: its header in a normal descriptor."""

    def act(machine: Bench) -> list[Buffer]:
        ring = machine.ring
        chain = machine.chain(T_IN, into=512)
        inside = chain[1:] if before else chain
        where = DATA + misaligned
        for number, (gpa, length, writable) in enumerate(inside):
            more = 0 if number == len(inside) - 1 else NEXT
            ring.write_desc(
                number, gpa, length, more | (WRITE if writable else 0), number + 1, where
            )
        if before:
            ring.write_desc(0, chain[0][0], 16, NEXT, 1)
        ring.write_desc(int(before), where, 16 * len(inside), INDIRECT | flags)
        ring.make_available(0)
        machine.kick()
        return chain

    return act


def table_is_the_descriptor_table(machine: Bench) -> None:
    ring = machine.ring
    ring.write_desc(0, ring.desc, 16 * 8, INDIRECT)
    ring.make_available(0)
    machine.kick()


def table_of(count: int) -> Act:
    """A chain of `count` descriptors in one table: a header, bytes, and a status."""

    def act(machine: Bench) -> list[Buffer]:
        result = status_at(machine)
        chain = [(header_at(machine), 16, False)]
        chain += [(DATA, 1, True)] * (count - 2) + [(result, 1, True)]
        where = machine.driver.pages.take(16 * count)
        for number, (gpa, length, writable) in enumerate(chain):
            more = 0 if number == count - 1 else NEXT
            flags = more | (WRITE if writable else 0)
            machine.ring.write_desc(number, gpa, length, flags, (number + 1) & 0xFFFF, where)
        machine.ring.write_desc(0, where, 16 * count, INDIRECT)
        machine.ring.make_available(0)
        machine.kick()
        return chain

    return act


# -- The rings -----------------------------------------------------------------------------


def same_head_twice(machine: Bench) -> None:
    machine.disk.parked = True
    head = machine.ring.submit(machine.chain(T_IN, into=512))
    machine.kick()
    machine.ring.make_available(head)
    machine.kick()
    machine.let_go()


def ring_full_of_one_head(machine: Bench) -> None:
    machine.disk.parked = True
    machine.ring.write_chain(machine.chain(T_IN, into=512))
    avail(*[0] * 8)(machine)
    machine.let_go()


def flags_of_the_available_ring(machine: Bench) -> list[Buffer]:
    ring = machine.ring
    machine.memory.write(ring.avail, b"\xfe\xff")
    return submit(machine, machine.chain(T_IN, into=512))


def used_event_of_any_value(machine: Bench) -> list[Buffer]:
    machine.ring.set_used_event(0xFFFF)
    return submit(machine, machine.chain(T_IN, into=512))


def used_ring_written_by_the_guest(machine: Bench) -> list[Buffer]:
    """The device never reads it: how far it has come, it knows by itself."""
    ring = machine.ring
    machine.memory.write(ring.used, b"\xff" * (6 + 8 * ring.num))
    chain = machine.chain(T_IN, into=512)
    ring.submit(chain)
    machine.kick()
    assert ring.used_idx == 1
    return chain


def doorbell_without_a_buffer(machine: Bench) -> None:
    for _ in range(3):
        machine.kick()
    assert machine.ring.used_idx == 0


def two_queues_with_the_same_rings(machine: Bench) -> list[Buffer]:
    """Each answers the chain by itself; the second answer lies over the first."""
    machine.driver.negotiate()
    ring = machine.driver.set_up_queue(0, 8)
    assert machine.driver.place_queue(1, 8, ring.desc, ring.avail, ring.used) == 1
    machine.driver.add_status(status.DRIVER_OK)
    chain = machine.chain(T_IN, into=512)
    ring.submit(chain)
    machine.kick(0)
    machine.kick(1)
    assert ring.used_idx == 1
    return chain


def used_ring_over_the_descriptors(machine: Bench) -> list[Buffer]:
    machine.driver.negotiate()
    ring = machine.driver.set_up_queue(0, 8)
    machine.driver.set_reg(mmio.QUEUE_SEL, 0)
    machine.driver.set_reg(mmio.QUEUE_READY, 0)
    assert machine.driver.place_queue(0, 8, ring.desc, ring.avail, ring.desc) == 1
    machine.driver.add_status(status.DRIVER_OK)
    chain = machine.chain(T_IN, into=512)
    machine.shadow.writable.append((ring.desc, 6 + 8 * 8, True))
    ring.submit(chain)
    machine.kick()
    return chain


def all_rings_at_one_address(machine: Bench) -> None:
    machine.driver.negotiate()
    assert machine.driver.place_queue(0, 8, 0x1000, 0x1000, 0x1000) == 1
    machine.shadow.writable.append((0x1000, 70, True))
    machine.driver.add_status(status.DRIVER_OK)
    for number in range(8):
        machine.store(0x1000 + 16 * number, b"\1\0" * 8)
        machine.kick()


# -- Queues --------------------------------------------------------------------------------


def rings_move_while_running(machine: Bench) -> None:
    driver = machine.driver
    driver.set_reg(mmio.QUEUE_SEL, 0)
    for offset in mmio.QUEUE_ADDRESSES:
        driver.set_reg(offset, 0xFFFF_FFF0)
    driver.set_reg(mmio.QUEUE_NUM, 1)
    driver.set_reg(mmio.QUEUE_READY, 1)


def rings_move_in_mid_request(machine: Bench) -> list[Buffer]:
    machine.disk.parked = True
    chain = machine.chain(T_IN, into=512)
    machine.ring.submit(chain)
    machine.kick()
    rings_move_while_running(machine)
    machine.let_go()
    return chain


def queue_not_ready_in_mid_request(machine: Bench) -> list[Buffer]:
    """Taking a queue away waits for what is in flight."""
    machine.disk.parked = True
    chain = machine.chain(T_IN, into=512)
    machine.ring.submit(chain)
    machine.kick()
    machine.driver.set_reg(mmio.QUEUE_SEL, 0)
    machine.driver.set_reg(mmio.QUEUE_READY, 0)
    assert machine.driver.reg(mmio.QUEUE_READY) == 0
    return chain


def queue_not_ready_after_the_end(machine: Bench) -> None:
    """A driver that takes the queues of a broken device away can wait for the 0."""
    avail(0xFFFF)(machine)
    machine.driver.set_reg(mmio.QUEUE_SEL, 0)
    machine.driver.set_reg(mmio.QUEUE_READY, 0)
    assert machine.driver.reg(mmio.QUEUE_READY) == 0


def doorbell_of_a_queue_that_was_taken_away(machine: Bench) -> None:
    ring = machine.ring
    machine.driver.set_reg(mmio.QUEUE_SEL, 0)
    machine.driver.set_reg(mmio.QUEUE_READY, 0)
    ring.submit(machine.chain(T_IN, into=512))
    machine.kick()
    assert ring.used_idx == 0


def doorbell_of_a_queue_that_is_not_ready(machine: Bench) -> None:
    machine.kick(1)


def queue_that_does_not_exist(machine: Bench) -> None:
    driver = machine.driver
    assert driver.place_queue(77, 8, 0x1000, 0x2000, 0x3000) == 0
    assert driver.reg(mmio.QUEUE_NUM_MAX) == 0
    driver.set_reg(mmio.QUEUE_SEL, ALL_ONES)
    driver.set_reg(mmio.QUEUE_READY, 1)
    assert driver.reg(mmio.QUEUE_READY) == 0


def queue_before_features_ok(machine: Bench) -> None:
    driver = machine.driver
    driver.close()
    for value in (0, 1, 3):
        driver.set_reg(mmio.STATUS, value)
    assert driver.place_queue(0, 8, 0x1000, 0x2000, 0x3000) == 0


def queue_ready_of_2(machine: Bench) -> None:
    driver = machine.driver
    driver.set_reg(mmio.QUEUE_SEL, 1)
    driver.set_reg(mmio.QUEUE_READY, 2)
    assert driver.reg(mmio.QUEUE_READY) == 0


# -- Status and features -------------------------------------------------------------------


def features_change_afterwards(machine: Bench) -> None:
    before = machine.device.features
    machine.driver.accept(F_VERSION_1)
    assert machine.device.features == before


def features_beyond_the_64th(machine: Bench) -> None:
    driver = machine.driver
    driver.close()
    for value in (0, 1, 3):
        driver.set_reg(mmio.STATUS, value)
    for sel in (2, ALL_ONES):
        driver.set_reg(mmio.DRIVER_FEATURES_SEL, sel)
        driver.set_reg(mmio.DRIVER_FEATURES, ALL_ONES)
        driver.set_reg(mmio.DEVICE_FEATURES_SEL, sel)
        assert driver.reg(mmio.DEVICE_FEATURES) == 0
    assert machine.device.features == 0


def doorbell_before_driver_ok(machine: Bench) -> list[Buffer]:
    """Nothing is taken before DRIVER_OK; then it is, without another doorbell."""
    machine.driver.negotiate()
    ring = machine.driver.set_up_queue(0, 8)
    chain = machine.chain(T_IN, into=512)
    ring.submit(chain)
    machine.kick()
    assert ring.used_idx == 0
    machine.driver.add_status(status.DRIVER_OK)
    machine.settle()
    return chain


def given_up(machine: Bench) -> None:
    ring = machine.ring
    assert machine.driver.add_status(status.FAILED) & status.FAILED
    ring.submit(machine.chain(T_IN, into=512))
    machine.kick()
    assert ring.used_idx == 0


def reset_in_mid_request(machine: Bench) -> None:
    """Two writes are in flight: they end, and the used ring is not written after the reset."""
    machine.disk.parked = True
    ring = machine.ring
    for sector in range(2):
        ring.submit(machine.chain(T_IN, sector, into=512))
    machine.kick()
    machine.driver.set_reg(mmio.STATUS, 0)
    assert machine.driver.status == 0
    used = ring.used_idx
    machine.let_go()
    assert ring.used_idx == used


def doorbell_after_a_reset(machine: Bench) -> None:
    ring = machine.ring
    machine.driver.set_reg(mmio.STATUS, 0)
    ring.submit(machine.chain(T_IN, into=512))
    machine.kick()
    assert ring.used_idx == 0


def hundred_resets(machine: Bench) -> None:
    for _ in range(100):
        machine.ring.submit(machine.chain(T_IN, into=512))
        machine.driver.kick()
        machine.driver.pages.next = DATA // 2
        machine.driver.start()


# -- Registers and interrupts --------------------------------------------------------------


def read_only_registers(machine: Bench) -> None:
    driver = machine.driver
    offsets = (*mmio.CONSTANTS, mmio.DEVICE_ID, mmio.QUEUE_NUM_MAX, mmio.CONFIG_GENERATION)
    before = [driver.reg(offset) for offset in offsets]
    for offset in (*offsets, mmio.INTERRUPT_STATUS, mmio.DEVICE_FEATURES):
        driver.set_reg(offset, 0x5555_5555)
    assert [driver.reg(offset) for offset in offsets] == before
    assert driver.reg(mmio.INTERRUPT_STATUS) == 0


def write_only_registers(machine: Bench) -> None:
    offsets = (mmio.QUEUE_NOTIFY, mmio.INTERRUPT_ACK, mmio.QUEUE_NUM, *mmio.QUEUE_ADDRESSES)
    assert {machine.driver.reg(offset) for offset in offsets} == {0}


def every_odd_access(machine: Bench) -> None:
    """Each offset of the registers, at each width that is not theirs."""
    window = machine.driver.window
    for offset in range(mmio.CONFIG):
        for size in (1, 2, 8):
            window.write(offset, size, 0xFFFF_FFFF_FFFF_FFFF)
            assert window.read(offset, size) == 0 or offset + size > mmio.CONFIG
    for offset in range(mmio.CONFIG - 4):
        if offset % 4:
            window.write(offset, 4, ALL_ONES)
            assert window.read(offset, 4) == 0


def storm_of_doorbells(machine: Bench) -> None:
    for number in range(2000):
        machine.driver.kick(number % 5)
    machine.settle()


def storm_of_acknowledges(machine: Bench) -> None:
    for _ in range(500):
        machine.driver.set_reg(mmio.INTERRUPT_ACK, ALL_ONES)
        machine.device.config_changed()
        machine.driver.set_reg(mmio.INTERRUPT_ACK, ALL_ONES)
    assert machine.driver.reg(mmio.INTERRUPT_STATUS) == 0


def storm_without_an_acknowledge(machine: Bench) -> list[Buffer]:
    """Two hundred answers, none acknowledged: the bit stays, and so does the level."""
    chain: list[Buffer] = []
    for sector in range(100):
        chain = submit(machine, machine.chain(T_IN, sector % 8, into=512))
        machine.ring.reap()
        machine.driver.pages.next = DATA // 2
    assert machine.driver.reg(mmio.INTERRUPT_STATUS) & 1
    return chain


def write_cache(machine: Bench) -> None:
    """The one field that may be written: a byte, of any value."""
    at = mmio.CONFIG + CONFIG_OFFSETS["writeback"]
    window = machine.driver.window
    for value, shown in ((0, 0), (0xFF, 1), (0, 0), (1, 1)):
        window.write(at, 1, value)
        assert window.read(at, 1) == shown


def write_cache_too_wide(size: int) -> Act:
    """The same field, with its neighbours."""

    def act(machine: Bench) -> None:
        at = mmio.CONFIG + CONFIG_OFFSETS["writeback"]
        machine.driver.window.write(at, size, 0)
        assert machine.driver.window.read(at, 1) == 1

    return act


def write_cache_without_the_feature(machine: Bench) -> None:
    machine.driver.start(F_FLUSH)
    machine.driver.window.write(mmio.CONFIG + CONFIG_OFFSETS["writeback"], 1, 0)
    assert machine.backend.enable_write_cache


def write_cache_without_flush(machine: Bench) -> None:
    """It may still turn the cache on; the machine's pauses do not turn it off again."""
    machine.driver.start(machine.driver.offered() & ~F_FLUSH)
    at = mmio.CONFIG + CONFIG_OFFSETS["writeback"]
    assert machine.driver.window.read(at, 1) == machine.backend.enable_write_cache == 0
    machine.driver.window.write(at, 1, 1)
    machine.transport.vm_state_changed(False)
    machine.transport.vm_state_changed(True)
    assert machine.driver.window.read(at, 1) == machine.backend.enable_write_cache == 1


def write_cache_before_features_ok(machine: Bench) -> None:
    driver = machine.driver
    driver.close()
    for value in (0, 1, 3):
        driver.set_reg(mmio.STATUS, value)
    driver.accept(driver.offered())
    driver.window.write(mmio.CONFIG + CONFIG_OFFSETS["writeback"], 1, 0)
    assert machine.backend.enable_write_cache


# -- Requests ------------------------------------------------------------------------------


def write_to_a_read_only_disk(machine: Bench) -> list[Buffer]:
    """The disk became read-only behind the driver's back."""
    machine.device.read_only = True
    chain = submit(machine, machine.chain(T_OUT, out=bytes(512)))
    machine.device.read_only = False
    return chain


def reserved_field_of_the_header(machine: Bench) -> list[Buffer]:
    chain = machine.chain(T_IN, into=512)
    machine.store(chain[0][0], struct.pack("<IIQ", T_IN, ALL_ONES, 0))
    return submit(machine, chain)


def eight_times_all_memory(machine: Bench) -> list[Buffer]:
    """More than the disk holds, and none of it is copied on the way."""
    result = status_at(machine)
    chain = [(header_at(machine), 16, False)]
    chain += [(HIGH, HIGH_SIZE, True)] * 8 + [(result, 1, True)]
    return submit(machine, chain)


def one_bad_segment_among_good_ones(kind: int) -> Act:
    """All are looked at before one is begun."""
    return segments(kind, (0, 1, 0), (8, 1, 0), (1 << 40, 1, 0))


MANY = [(n, 1, 0) for n in range(33)]
OVER_THE_END = RAM_END - 15
DISCARD, ZEROES = T_DISCARD, T_WRITE_ZEROES
