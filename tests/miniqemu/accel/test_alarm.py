# SPDX-License-Identifier: GPL-2.0-only
"""The alarm: it rings when it is time, for the earliest time that was asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from block.aio.world import World
from miniqemu.accel.alarm import Alarm

MS = 1_000_000
PATIENCE = 10.0
FAR = 10**18


class Bell:
    """An alarm, and the times at which it rang."""

    def __init__(self) -> None:
        self.rang: list[int] = []
        self.again: list[int] = []  # when to ring next, by turns
        self.heard = threading.Semaphore(0)
        self.alarm = Alarm("bell", World(), self._ring)

    def _ring(self, now: int) -> int | None:
        self.rang.append(now)
        self.heard.release()
        return now + self.again.pop() if self.again else None

    def wait(self) -> None:
        assert self.heard.acquire(timeout=PATIENCE)


@pytest.fixture
def bell(leaves_nothing: None) -> Iterator[Bell]:
    made = Bell()
    yield made
    made.alarm.close()


def test_it_rings_at_its_time_and_not_before(bell: Bell) -> None:
    at = bell.alarm.now() + 2 * MS
    bell.alarm.set(at)
    bell.wait()
    assert bell.rang[0] >= at


def test_the_earlier_time_counts_whichever_was_set_first(bell: Bell) -> None:
    bell.alarm.set(FAR)
    bell.alarm.set(bell.alarm.now() + MS)
    bell.alarm.set(FAR)
    bell.wait()


def test_who_rings_says_when_to_ring_next(bell: Bell) -> None:
    bell.again = [MS, MS]
    bell.alarm.set(bell.alarm.now())
    for _ in range(3):
        bell.wait()
    assert bell.rang[2] - bell.rang[0] >= 2 * MS


def test_without_a_time_there_is_no_thread(bell: Bell) -> None:
    assert "bell" not in [thread.name for thread in threading.enumerate()]


def test_a_closed_alarm_takes_no_more_times(bell: Bell) -> None:
    bell.alarm.set(FAR)
    bell.alarm.close()
    bell.alarm.set(bell.alarm.now())
    assert bell.rang == []
