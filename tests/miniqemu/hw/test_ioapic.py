# SPDX-License-Identifier: GPL-2.0-only
"""The IOAPIC: edges, levels, masks, and its window of registers."""

from __future__ import annotations

import threading

import pytest

from miniqemu.hw import ioapic, lapic
from miniqemu.hw.ioapic import IoApic
from miniqemu.hw.lapic import ApicBus, LocalApic

PIN, VECTOR = 12, 0x60


class Bench:
    """An IOAPIC before two processors."""

    def __init__(self) -> None:
        bus = ApicBus(threading.Lock(), lambda: 0)
        self.cpus = [LocalApic(index, bus) for index in range(2)]
        self.chip = IoApic(bus)
        for cpu in self.cpus:
            cpu.write(lapic.SVR, 4, lapic.ENABLED | 0xFF)

    def write(self, register: int, value: int) -> None:
        self.chip.write(ioapic.SELECT, 4, register)
        self.chip.write(ioapic.WINDOW, 4, value)

    def read(self, register: int) -> int:
        self.chip.write(ioapic.SELECT, 4, register)
        return self.chip.read(ioapic.WINDOW, 4)

    def route(self, low: int, destination: int = 0) -> None:
        self.write(ioapic.TABLE + 2 * PIN + 1, destination << 24)
        self.write(ioapic.TABLE + 2 * PIN, low)

    def taken(self) -> list[int]:
        """What each processor takes, and ends."""
        out = [cpu.take() for cpu in self.cpus]
        for cpu, vector in zip(self.cpus, out, strict=True):
            if vector >= 0:
                cpu.write(lapic.EOI, 4, 0)
        return out


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_all_pins_are_masked_at_power_on(bench: Bench) -> None:
    bench.chip.pulse(PIN)
    assert bench.taken() == [-1, -1]
    assert bench.read(ioapic.TABLE + 2 * PIN) == ioapic.MASKED
    assert bench.read(ioapic.VERSION) == 0x17_0011, "24 pins"


def test_an_edge_interrupts_once(bench: Bench) -> None:
    bench.route(VECTOR)
    bench.chip.set_level(PIN, True)
    bench.chip.set_level(PIN, True)
    assert bench.taken() == [VECTOR, -1]
    assert bench.taken() == [-1, -1]
    bench.chip.set_level(PIN, False)
    bench.chip.set_level(PIN, True)
    assert bench.taken() == [VECTOR, -1]


def test_every_pulse_is_an_edge(bench: Bench) -> None:
    bench.route(VECTOR, destination=1)
    for _ in range(3):
        bench.chip.pulse(PIN)
        assert bench.taken() == [-1, VECTOR]


def test_an_edge_behind_a_mask_is_lost(bench: Bench) -> None:
    bench.route(VECTOR | ioapic.MASKED)
    bench.chip.pulse(PIN)
    bench.route(VECTOR)
    assert bench.taken() == [-1, -1]


def test_a_level_interrupts_until_the_line_is_low(bench: Bench) -> None:
    bench.route(VECTOR | ioapic.LEVEL)
    bench.chip.set_level(PIN, True)
    assert bench.read(ioapic.TABLE + 2 * PIN) & ioapic.REMOTE_IRR
    assert bench.taken() == [VECTOR, -1]
    assert bench.taken() == [VECTOR, -1], "the end of the first one found the line high"
    bench.chip.set_level(PIN, False)
    assert bench.taken() == [VECTOR, -1], "this one had been requested before"
    assert bench.taken() == [-1, -1]
    assert not bench.read(ioapic.TABLE + 2 * PIN) & ioapic.REMOTE_IRR


def test_a_level_behind_a_mask_waits_for_the_mask_to_go(bench: Bench) -> None:
    bench.route(VECTOR | ioapic.LEVEL | ioapic.MASKED)
    bench.chip.set_level(PIN, True)
    assert bench.taken() == [-1, -1]
    bench.route(VECTOR | ioapic.LEVEL)
    assert bench.taken() == [VECTOR, -1]


def test_a_logical_destination_names_processors_by_their_bits(bench: Bench) -> None:
    for bit, cpu in enumerate(bench.cpus):
        cpu.write(lapic.LDR, 4, 1 << bit + 24)
    bench.route(VECTOR | ioapic.LOGICAL, destination=3)
    bench.chip.pulse(PIN)
    assert bench.taken() == [VECTOR, VECTOR]


def test_remote_irr_and_delivery_status_are_not_written(bench: Bench) -> None:
    bench.route(0xFFFF_FFFF)
    assert bench.read(ioapic.TABLE + 2 * PIN) == 0xFFFF_FFFF & ~ioapic.READ_ONLY


def test_odd_accesses_and_registers_that_are_none_are_harmless(bench: Bench) -> None:
    bench.chip.write(ioapic.SELECT, 4, 0xFF)
    bench.chip.write(ioapic.WINDOW, 4, 1)
    assert bench.chip.read(ioapic.WINDOW, 4) == 0
    assert bench.chip.read(ioapic.WINDOW, 1) == 0
    bench.chip.write(ioapic.SELECT, 1, 1)
    assert bench.chip.read(ioapic.SELECT, 4) == 0xFF
    bench.chip.set_level(99, True)


def test_a_reset_masks_all_and_lowers_the_lines(bench: Bench) -> None:
    bench.route(VECTOR | ioapic.LEVEL)
    bench.chip.set_level(PIN, True)
    bench.chip.reset()
    assert bench.chip.levels == 0
    assert bench.read(ioapic.TABLE + 2 * PIN) == ioapic.MASKED
