# SPDX-License-Identifier: GPL-2.0-only
"""The toy guest on /dev/kvm, its disk served in each way, and stopped and reset under its I/O."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from block.aio.world import the_world
from miniqemu.machine.runstate import RunState
from tests.support.kvm_machine import WAYS, run

BENCH = "bench 3000 8 irq; bench 3000 32 poll; poweroff"


def failures(said: bytes) -> list[int]:
    """How many reads failed in each benchmark of the guest."""
    return [int(count) for count in re.findall(rb"(\d+) failed", said)]


@pytest.mark.parametrize("way", WAYS)
def test_the_guests_self_test_passes_in_each_way(tmp_path: Path, way: str) -> None:
    with run(tmp_path, way, "selftest", vcpus=2) as guest:
        assert guest.machine.run() == 0, guest.line.said.decode(errors="replace")
        assert b"not ok" not in guest.line.said


def test_no_request_takes_the_big_lock_and_no_interrupt_stops_a_vcpu(tmp_path: Path) -> None:
    with run(tmp_path, "IOThread", BENCH) as guest:
        guest.device.acknowledge = None  # type: ignore[assignment]  # it must not be called
        threads: list[int] = []
        assert guest.iothread is not None
        guest.iothread.ctx.bh_schedule_oneshot(lambda: threads.append(the_world().current()))
        assert guest.machine.run() == 0
        assert failures(guest.line.said) == [0, 0]
        assert guest.machine.big_lock.taken_by(threads[0]) == 0
        assert guest.image.stats.nr_ops[0] + guest.image.stats.merged[0] >= 6000


@pytest.mark.parametrize("way", WAYS)
def test_stop_and_cont_under_io_lose_nothing(tmp_path: Path, way: str) -> None:
    with run(tmp_path, way, BENCH) as guest:
        turns: list[bool] = []

        def turn() -> None:
            turns.append(guest.machine.running)
            if guest.machine.running:
                guest.machine.stop(RunState.PAUSED)
            else:
                guest.machine.cont()

        guest.every(5, turn)
        assert guest.machine.run() == 0
        assert failures(guest.line.said) == [0, 0]
        assert turns.count(False) >= 20


@pytest.mark.parametrize("way", WAYS)
def test_resets_of_the_machine_under_io_lose_nothing(tmp_path: Path, way: str) -> None:
    with run(tmp_path, way, "bench 200 8 irq; " + BENCH) as guest:
        resets: list[int] = []

        def press() -> None:
            in_the_middle = guest.device.started and guest.device.queues[0].used_idx > 30
            if len(resets) < 10 and in_the_middle:
                resets.append(1)
                guest.machine.reset()

        guest.every(3, press)
        assert guest.machine.run() == 0
        assert failures(guest.line.said)[-2:] == [0, 0]
        assert len(resets) == 10
        assert guest.image.in_flight == 0
