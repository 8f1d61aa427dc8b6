# SPDX-License-Identifier: GPL-2.0-only
"""What a bad guest does with registers, and what it asks of the disk (table.py)."""

from __future__ import annotations

import struct

from miniqemu.hw import virtio_mmio as mmio
from miniqemu.hw import virtio_status as status
from miniqemu.hw.virtio import F_VERSION_1
from miniqemu.hw.virtio_blk_layout import (
    CONFIG_OFFSETS,
    F_FLUSH,
    T_IN,
    T_OUT,
)
from tests.miniqemu.hw.hostile.bench import DATA, HIGH, HIGH_SIZE, Bench
from tests.miniqemu.hw.hostile.makers import (
    ALL_ONES,
    Act,
    header_at,
    segments,
    status_at,
    submit,
)
from tests.support.ring_driver import Buffer

# -- Status and features --------------------------------------------------------------------


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


# -- Registers and interrupts ---------------------------------------------------------------


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


# -- Requests -------------------------------------------------------------------------------


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
