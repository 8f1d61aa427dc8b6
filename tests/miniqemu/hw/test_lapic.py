# SPDX-License-Identifier: GPL-2.0-only
"""Local APICs: priorities, messages between processors, the timer. Time is a number here."""

from __future__ import annotations

import threading

import pytest

from miniqemu.hw import lapic
from miniqemu.hw.lapic import ApicBus, LocalApic

OTHERS, SELF = 3 << 18, 1 << 18
NS_100 = 100


class Bench:
    """Two processors on a bus, and a clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000
        self.bus = ApicBus(threading.Lock(), lambda: self.now)
        self.woken: list[int] = []
        self.bus.wake = self.woken.append
        self.first, self.second = (LocalApic(index, self.bus) for index in range(2))
        for apic in self.bus.apics:
            apic.write(lapic.SVR, 4, lapic.ENABLED | 0xFF)

    def expire(self) -> None:
        with self.bus.lock:
            self.first.expire(self.now)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_an_apic_that_is_switched_off_takes_nothing(bench: Bench) -> None:
    bench.first.write(lapic.SVR, 4, 0xFF)
    bench.first.request(0x50)
    assert bench.first.take() == -1
    assert bench.woken == []


def test_the_highest_vector_is_taken_first(bench: Bench) -> None:
    for vector in (0x31, 0x80, 0x55):
        bench.first.request(vector)
    assert bench.woken == [0, 0, 0]
    taken = []
    while (vector := bench.first.take()) >= 0:
        taken.append(vector)
        bench.first.write(lapic.EOI, 4, 0)
    assert taken == [0x80, 0x55, 0x31]


def test_nothing_of_the_same_class_comes_before_the_end_of_an_interrupt(bench: Bench) -> None:
    bench.first.request(0x51)
    assert bench.first.take() == 0x51
    bench.first.request(0x5F)
    assert bench.first.pending() == -1
    bench.first.request(0x60)
    assert bench.first.take() == 0x60
    bench.first.write(lapic.EOI, 4, 0)
    assert bench.first.pending() == -1, "0x51 is still in service"
    bench.first.write(lapic.EOI, 4, 0)
    assert bench.first.take() == 0x5F


def test_the_task_priority_holds_back_its_class_and_those_below(bench: Bench) -> None:
    bench.first.write(lapic.TPR, 4, 0x50)
    bench.first.request(0x5F)
    assert bench.first.pending() == -1
    assert bench.first.read(lapic.PPR, 4) == 0x50
    bench.woken.clear()
    bench.first.write(lapic.TPR, 4, 0x40)
    assert bench.woken == [0]
    assert bench.first.take() == 0x5F


def test_the_three_bit_tables_are_read_in_words_of_32(bench: Bench) -> None:
    with bench.bus.lock:
        bench.first.request(0x45, level=True)
    assert bench.first.read(lapic.IRR + 0x20, 4) == 1 << 5
    assert bench.first.read(lapic.TMR + 0x20, 4) == 1 << 5
    bench.first.take()
    assert bench.first.read(lapic.IRR + 0x20, 4) == 0
    assert bench.first.read(lapic.ISR + 0x20, 4) == 1 << 5


def test_the_end_of_a_level_interrupt_is_told_to_the_ioapic(bench: Bench) -> None:
    ended: list[int] = []
    bench.bus.end_of_interrupt = ended.append
    for vector, level in ((0x40, True), (0x50, False)):
        bench.first.request(vector, level)
    for _ in range(2):
        bench.first.take()
        bench.first.write(lapic.EOI, 4, 0)
    assert ended == [0x40]


@pytest.mark.parametrize(
    ("command", "high", "reached"),
    [
        (OTHERS, 0, [False, True]),
        (SELF, 0, [True, False]),
        (2 << 18, 0, [True, True]),
        (0, 1 << 24, [False, True]),
        (0, 0, [True, False]),
        (0, 0xFF << 24, [True, True]),
        (1 << 11, 2 << 24, [False, True]),
    ],
)
def test_a_message_reaches_whom_it_names(
    bench: Bench, command: int, high: int, reached: list[bool]
) -> None:
    for bit, apic in enumerate(bench.bus.apics):
        apic.write(lapic.LDR, 4, 1 << bit + 24)
    bench.first.write(lapic.ICR_HIGH, 4, high)
    bench.first.write(lapic.ICR_LOW, 4, command | 0x70)
    assert [apic.pending() == 0x70 for apic in bench.bus.apics] == reached
    assert not bench.first.read(lapic.ICR_LOW, 4) & 1 << 12, "it is on its way no more"


def test_the_lowest_priority_goes_to_one_of_them(bench: Bench) -> None:
    bench.first.write(lapic.ICR_LOW, 4, 2 << 18 | lapic.LOWEST << 8 | 0x70)
    assert [apic.pending() >= 0 for apic in bench.bus.apics].count(True) == 1


def test_init_and_startup_wait_for_the_processor_in_order(bench: Bench) -> None:
    deassert = lapic.LEVEL | lapic.INIT << 8
    for command in (lapic.INIT << 8 | lapic.ASSERT, deassert, lapic.STARTUP << 8 | 8):
        bench.first.write(lapic.ICR_LOW, 4, OTHERS | command)
    assert bench.second.startup == [(lapic.INIT, 0), (lapic.STARTUP, 8)]
    assert bench.first.startup == []
    bench.second.reset(keep=True)
    assert len(bench.second.startup) == 2
    bench.second.reset()
    assert bench.second.startup == []


def start_timer(bench: Bench, mode: int, count: int, divide: int = 0xB) -> None:
    bench.first.write(lapic.TIMER_DIVIDE, 4, divide)
    bench.first.write(lapic.LVT_TIMER, 4, mode)
    bench.first.write(lapic.TIMER_INITIAL, 4, count)


@pytest.mark.parametrize(("divide", "by"), [(0xB, 1), (0, 2), (1, 4), (3, 16), (8, 32), (0xA, 128)])
def test_the_timer_counts_down_at_one_gigahertz(bench: Bench, divide: int, by: int) -> None:
    start_timer(bench, lapic.MASKED, 1000, divide)
    bench.now += 300 * by
    assert bench.first.read(lapic.TIMER_CURRENT, 4) == 700
    bench.now += 5000 * by
    assert bench.first.read(lapic.TIMER_CURRENT, 4) == 0
    assert bench.first.deadline is None, "it is masked"


def test_a_one_shot_timer_interrupts_once(bench: Bench) -> None:
    start_timer(bench, 0x50, NS_100)
    assert bench.first.deadline == bench.now + NS_100
    bench.now += NS_100 - 1
    bench.expire()
    assert bench.first.pending() == -1
    bench.now += 1
    bench.expire()
    assert bench.first.take() == 0x50
    assert bench.first.deadline is None


def test_a_periodic_timer_keeps_its_beat_even_when_it_is_late(bench: Bench) -> None:
    start = bench.now
    start_timer(bench, lapic.PERIODIC | 0x50, NS_100)
    bench.now = start + 3 * NS_100 + 7
    bench.expire()
    assert bench.first.take() == 0x50
    assert bench.first.take() == -1, "what was missed comes once"
    assert bench.first.deadline == start + 4 * NS_100
    assert bench.first.read(lapic.TIMER_CURRENT, 4) == NS_100 - 7


def test_a_sooner_timer_is_told_to_who_watches(bench: Bench) -> None:
    told: list[int] = []
    bench.bus.timer_changed = lambda: told.append(1)
    start_timer(bench, lapic.MASKED, NS_100)
    assert told == []
    bench.first.write(lapic.LVT_TIMER, 4, 0x50)
    assert told == [1]


@pytest.mark.parametrize(("offset", "size"), [(0x22, 4), (0x20, 1), (0x20, 8)])
def test_odd_accesses_read_zero_and_write_nothing(bench: Bench, offset: int, size: int) -> None:
    assert bench.second.read(offset, size) == 0
    bench.second.write(lapic.TPR + offset % 16, size, 0xF0)
    assert bench.second.registers[lapic.TPR] == 0


def test_identity_and_version_cannot_be_written(bench: Bench) -> None:
    for register in (lapic.ID, lapic.VERSION):
        before = bench.second.read(register, 4)
        bench.second.write(register, 4, 0xFFFF_FFFF)
        assert bench.second.read(register, 4) == before
    assert bench.second.read(lapic.ID, 4) == 1 << 24
