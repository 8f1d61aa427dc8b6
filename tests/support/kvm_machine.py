# SPDX-License-Identifier: GPL-2.0-only
"""The toy guest on /dev/kvm in this process, its one disk served in any of the three ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import block
from block.aio.iothread import IOThread
from block.aio.world import ClockType
from miniqemu.accel.kvm import KvmAccel
from miniqemu.chardev.base import Chardev
from miniqemu.hw.virtio_blk import VirtioBlk
from miniqemu.hw.virtio_blk_conf import VirtioBlkConf
from miniqemu.machine import microvm
from miniqemu.machine.microvm import Microvm
from tests.support import needs
from tests.support.boot import built_elf

WAYS = ["IOThread", "main loop", "vCPU"]


class Recorder(Chardev):
    """A serial line that keeps what the guest says."""

    def __init__(self) -> None:
        super().__init__()
        self.said = b""
        self.heard: Callable[[], None] = lambda: None

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.said += data
        self.heard()
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
