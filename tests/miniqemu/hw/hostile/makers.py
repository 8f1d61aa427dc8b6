# SPDX-License-Identifier: GPL-2.0-only
"""What the deeds of table.py are made of: functions of a Bench whose driver has started.

An act returns the chain whose status byte the table speaks of, or None. The makers here (`desc`,
`table`, `avail`, `placed`, `register`, `request`) make one of plain numbers; the deeds that take
more telling are in acts.py (rings) and register_acts.py.
"""

from __future__ import annotations

from collections.abc import Callable

from miniqemu.hw import virtio_mmio as mmio
from miniqemu.hw import virtio_status as status
from miniqemu.hw.virtio_blk_layout import (
    REQUEST_HEADER,
    SEGMENT,
    T_DISCARD,
    T_IN,
    T_WRITE_ZEROES,
)
from miniqemu.hw.virtqueue import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE
from tests.miniqemu.hw.hostile.bench import RAM_END, Bench
from tests.support.ring_driver import Buffer

NEXT, WRITE, INDIRECT = DESC_F_NEXT, DESC_F_WRITE, DESC_F_INDIRECT
Descriptor = tuple[int, int, int, int]  # address, length, flags, next
Act = Callable[[Bench], list[Buffer] | None]
ALL_ONES = 0xFFFF_FFFF
MANY = [(n, 1, 0) for n in range(33)]
OVER_THE_END = RAM_END - 15
DISCARD, ZEROES = T_DISCARD, T_WRITE_ZEROES


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
