# SPDX-License-Identifier: GPL-2.0-only
"""The i8254: its modes, its ports, its interrupt. Time is a number here."""

from __future__ import annotations

import threading

import pytest

from miniqemu.hw.pit import HERTZ, SECOND, GatePort, Pit

COMMAND = 3
LOW_THEN_HIGH = 3 << 4


class Bench:
    """A timer, and a clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.now = 5_000_000
        self.rises = self.changes = 0
        self.pit = Pit(threading.Lock(), lambda: self.now, self._rise, self._change)
        self.gate = GatePort(self.pit)

    def _rise(self) -> None:
        self.rises += 1

    def _change(self) -> None:
        self.changes += 1

    def load(self, number: int, mode: int, count: int) -> None:
        self.pit.write(COMMAND, 1, number << 6 | LOW_THEN_HIGH | mode << 1)
        self.pit.write(number, 1, count & 0xFF)
        self.pit.write(number, 1, count >> 8)

    def pass_ticks(self, ticks: int) -> None:
        self.now += -(-ticks * SECOND // HERTZ)

    def expire(self) -> None:
        with self.pit.lock:
            self.pit.expire(self.now)

    def count(self, number: int) -> int:
        self.pit.write(COMMAND, 1, number << 6)  # latch
        return self.pit.read(number, 1) | self.pit.read(number, 1) << 8


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_rate_generator_interrupts_each_time_it_comes_round(bench: Bench) -> None:
    bench.load(0, 2, 1000)
    assert bench.changes == 1
    for beat in range(1, 4):
        assert bench.pit.deadline is not None
        bench.now = bench.pit.deadline - 1
        bench.expire()
        assert bench.rises == beat - 1
        bench.now += 1
        bench.expire()
        assert bench.rises == beat


def test_a_hundred_beats_take_a_hundred_periods(bench: Bench) -> None:
    start = bench.now
    bench.load(0, 3, HERTZ // 100)
    while bench.rises < 100:
        assert bench.pit.deadline is not None
        bench.now = bench.pit.deadline
        bench.expire()
    assert abs(bench.now - start - SECOND) < 100_000


def test_mode_0_interrupts_once(bench: Bench) -> None:
    bench.load(0, 0, 1000)
    bench.pass_ticks(1000)
    bench.expire()
    assert bench.rises == 1
    assert bench.pit.deadline is None


def test_a_count_of_zero_is_65536(bench: Bench) -> None:
    bench.load(0, 2, 0)
    bench.pass_ticks(65535)
    bench.expire()
    assert bench.rises == 0
    bench.pass_ticks(1)
    bench.expire()
    assert bench.rises == 1


@pytest.mark.parametrize(("mode", "count"), [(0, 400), (2, 400), (3, 800)])
def test_a_latched_counter_stands_while_it_is_read(bench: Bench, mode: int, count: int) -> None:
    bench.load(2, mode, 1000)
    bench.pass_ticks(600)
    bench.pit.write(COMMAND, 1, 2 << 6)
    bench.pass_ticks(100)
    low, high = bench.pit.read(2, 1), bench.pit.read(2, 1)
    assert low | high << 8 == count


def test_without_a_latch_low_and_high_byte_come_in_turns(bench: Bench) -> None:
    bench.load(2, 0, 0x1234)
    assert [bench.pit.read(2, 1), bench.pit.read(2, 1)] == [0x34, 0x12]


def test_a_counter_can_be_one_byte_wide(bench: Bench) -> None:
    bench.pit.write(COMMAND, 1, 2 << 6 | 2 << 4)  # the high byte only
    bench.pit.write(2, 1, 0x12)
    assert bench.pit.counters[2].count == 0x1200
    assert bench.pit.read(2, 1) == 0x12


def test_read_back_tells_the_mode_before_the_count(bench: Bench) -> None:
    bench.load(1, 2, 0x100)
    bench.pit.write(COMMAND, 1, 3 << 6 | 1 << 2)  # counter 1: status and count
    assert bench.pit.read(1, 1) == 1 << 7 | LOW_THEN_HIGH | 2 << 1
    assert bench.pit.read(1, 1) | bench.pit.read(1, 1) << 8 == 0x100


def test_the_gate_port_starts_counter_2_and_shows_its_output(bench: Bench) -> None:
    bench.load(2, 0, 1000)
    bench.pass_ticks(500)
    bench.gate.write(0, 1, 1)
    bench.pass_ticks(999)
    assert not bench.gate.read(0, 1) & 1 << 5
    bench.pass_ticks(1)
    assert bench.gate.read(0, 1) & 1 << 5
    assert bench.gate.read(0, 1) & 3 == 1


def test_a_reset_stops_everything(bench: Bench) -> None:
    bench.load(0, 2, 1000)
    bench.pit.reset()
    assert bench.pit.deadline is None
    bench.pass_ticks(5000)
    bench.expire()
    assert bench.rises == 0
