# SPDX-License-Identifier: GPL-2.0-only
"""The toy guest on /dev/kvm, its disk served in each way, and stopped and reset under its I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import block
from block.aio.iothread import IOThread
from block.aio.world import ClockType, the_world
from miniqemu.accel.kvm import KvmAccel
from miniqemu.chardev.base import Chardev
from miniqemu.hw.virtio_blk import VirtioBlk
from miniqemu.hw.virtio_blk_conf import VirtioBlkConf
from miniqemu.machine import microvm
from miniqemu.machine.microvm import Microvm
from miniqemu.machine.runstate import RunState
from tests.support import needs
from tests.support.boot import built_elf

WAYS = ["IOThread", "main loop", "vCPU"]
BENCH = "bench 3000 8 irq; bench 3000 32 poll; poweroff"


class Recorder(Chardev):
    """A serial line that keeps what the guest says."""

    said = b""

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.said += data
        return len(data)


class Run:
    """A machine with one disk; `way` says who serves it."""

    def __init__(self, path: Path, way: str, append: str, vcpus: int) -> None:
        self.line = Recorder()
        self.iothread = IOThread("disk") if way == "IOThread" else None
        self.image = block.open(str(path), format="raw")
        conf = VirtioBlkConf(self.image, iothread=self.iothread, ioeventfd=way != "vCPU")
        self.board: Microvm = microvm.build(
            KvmAccel(vcpus), 64 << 20, vcpus=vcpus, serial=self.line, no_reboot=True
        )
        self.machine = self.board.machine
        self.device = VirtioBlk(conf)
        self.board.plug(self.device)
        self.board.load(str(built_elf()), append)
        self.board.finish()

    def every(self, interval_ms: int, act: Callable[[], None]) -> None:
        """Calls `act` in the main loop again and again."""
        ctx, step = self.machine.main_context, interval_ms * 1_000_000

        def fire() -> None:
            act()
            timer.mod(ctx.clock_ns(ClockType.REALTIME) + step)

        timer = ctx.timer_new(ClockType.REALTIME, fire, owner=self)
        timer.mod(ctx.clock_ns(ClockType.REALTIME) + step)
        self.machine.on_close(timer.delete)

    def close(self) -> None:
        self.machine.close()
        self.image.close()
        if self.iothread is not None:
            self.iothread.close()


@contextmanager
def run(tmp_path: Path, way: str, append: str, vcpus: int = 1) -> Iterator[Run]:
    needs.kvm()
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(4 << 20))
    machine = Run(path, way, append, vcpus)
    try:
        yield machine
    finally:
        machine.close()


def failures(said: bytes) -> list[int]:
    """How many reads failed in each benchmark of the guest."""
    return [int(count) for count in re.findall(rb"(\d+) failed", said)]


@pytest.mark.parametrize("way", WAYS)
def test_the_guests_self_test_passes_in_each_way(tmp_path: Path, way: str) -> None:
    with run(tmp_path, way, "selftest", vcpus=2) as guest:
        assert guest.machine.run() == 0, guest.line.said.decode(errors="replace")
        assert b"not ok" not in guest.line.said


def test_no_request_takes_the_big_lock(tmp_path: Path) -> None:
    with run(tmp_path, "IOThread", BENCH) as guest:
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
