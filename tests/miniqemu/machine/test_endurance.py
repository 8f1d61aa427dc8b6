# SPDX-License-Identifier: GPL-2.0-only
"""What shows only in the long run: machines that come and go, and resets in the middle of I/O."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from tests.support import needs, threads
from tests.support.descriptors import described
from tests.support.kvm_machine import WAYS, Run, run

CYCLES, STEP = 1000, 100
LEAK = 512  # bytes a cycle, noise of the allocator; a machine that is not freed is hundreds of KiB
RESETS = 200
WRITES = 5  # of one boot
SECTOR = 512

pytestmark = pytest.mark.full


def resident() -> int:
    """Returns this process's resident memory in bytes, after what nobody holds is gone."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def boot_and_power_off(path: Path, way: str) -> None:
    """A whole life: a machine with a disk, a guest that flushes it and goes off."""
    guest = Run(path, way, "flush; poweroff", 1)
    try:
        assert guest.machine.run() == 0
        assert b"flush: ok" in guest.line.said
    finally:
        guest.close()


@pytest.mark.timeout(300)
def test_a_thousand_boots_and_power_offs_leave_nothing_behind(tmp_path: Path) -> None:
    needs.kvm()
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    memory: list[int] = []  # after each step; the first two warm up
    running = threads.count_without_idle()

    for cycle in range(STEP + CYCLES):
        boot_and_power_off(path, WAYS[cycle % len(WAYS)])
        if (cycle + 1) % STEP == 0:
            memory.append(resident())
        if cycle + 1 == STEP:
            files = described()

    assert described() == files
    assert threads.count_without_idle() == running
    assert (memory[-1] - memory[1]) / (CYCLES - STEP) < LEAK, memory


def text(boot: int, write: int) -> bytes:
    return b"boot %d, write %d" % (boot, write)


def commands(boot: int) -> bytes:
    """What the guest does in its boot number `boot`: each of its writes has a sector of its own."""
    if boot == RESETS:
        return b"poweroff"
    writes = [b"write %d %s" % (boot * WRITES + n, text(boot, n)) for n in range(WRITES)]
    return b";".join([*writes, b"bench 1000000 32 irq"])


class Resetter:
    """Presses the reset button in each boot, after another number of writes each time."""

    def __init__(self, guest: Run) -> None:
        self.guest = guest
        self.boots: list[int] = []  # where in what the guest said each boot begins
        self.pressed = 0
        self.disks = guest.board.cmdline[guest.board.cmdline.index(b" virtio_mmio") :]
        guest.machine.on_reset(lambda: self.boots.append(len(guest.line.said)))
        guest.board.cmdline = commands(0) + self.disks
        guest.every(1, self.look)

    def reported(self, boot: int) -> int:
        """How many writes the guest has seen succeed in that boot."""
        begin, end = [*self.boots, len(self.guest.line.said)][boot : boot + 2]
        return self.guest.line.said.count(b"write: ok", begin, end)

    def look(self) -> None:
        boot = len(self.boots) - 1
        busy = self.reported(boot) >= boot % (WRITES + 1)
        if (
            boot == self.pressed < RESETS and busy
        ):  # a reset that was asked for may yet have to wait
            self.pressed += 1
            self.guest.board.cmdline = commands(boot + 1) + self.disks
            self.guest.machine.reset()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", WAYS)
def test_two_hundred_resets_under_io_lose_no_write_that_was_reported(
    tmp_path: Path, way: str
) -> None:
    with run(tmp_path, way, "poweroff") as guest:
        resetter = Resetter(guest)
        assert guest.machine.run() == 0
        reported = [resetter.reported(boot) for boot in range(RESETS)]
    image = (tmp_path / "disk.img").read_bytes()

    assert len(resetter.boots) == RESETS + 1
    assert len(set(reported)) > WRITES // 2  # the button was pressed at very different moments
    for boot, count in enumerate(reported):
        for n in range(WRITES):
            at = (boot * WRITES + n) * SECTOR
            found, whole = image[at : at + SECTOR], ((text(boot, n) + b"\n") * SECTOR)[:SECTOR]
            assert found == whole or (n >= count and found == bytes(SECTOR)), (boot, n, count)
