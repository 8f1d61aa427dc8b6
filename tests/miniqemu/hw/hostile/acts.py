# SPDX-License-Identifier: GPL-2.0-only
"""What a bad guest does with its memory: chains, indirect tables, rings, queues (table.py)."""

from __future__ import annotations

from miniqemu.hw import virtio_mmio as mmio
from miniqemu.hw import virtio_status as status
from miniqemu.hw.virtio_blk_layout import (
    REQUEST_HEADER,
    T_IN,
    T_OUT,
)
from tests.miniqemu.hw.hostile.bench import DATA, HIGH, HIGH_SIZE, Bench
from tests.miniqemu.hw.hostile.makers import (
    ALL_ONES,
    INDIRECT,
    NEXT,
    WRITE,
    Act,
    avail,
    buffers,
    desc,
    header_at,
    status_at,
    submit,
)
from tests.support.ring_driver import Buffer

# -- Buffers --------------------------------------------------------------------------------


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


# -- Indirect tables ------------------------------------------------------------------------


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


# -- The rings ------------------------------------------------------------------------------


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


# -- Queues ---------------------------------------------------------------------------------


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
