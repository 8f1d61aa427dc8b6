# SPDX-License-Identifier: GPL-2.0-only
"""Machines for these tests: on /dev/kvm, with guests of a few bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from miniqemu.accel.base import Accelerator
from miniqemu.accel.kvm import KvmAccel
from miniqemu.chardev.base import Chardev
from miniqemu.machine import microvm
from miniqemu.machine.memory import RAM_NAME
from miniqemu.machine.microvm import Microvm
from tests.support import needs, tiny_guest

MIB = 1 << 20


def guest_mappings() -> int:
    """How many mappings of guest memory this process has."""
    return Path("/proc/self/maps").read_text().count(RAM_NAME)


class Recorder(Chardev):
    """A serial line that keeps what the guest says."""

    def __init__(self) -> None:
        super().__init__()
        self.said = b""
        self.heard: Callable[[bytes], None] = lambda data: None

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.said += data
        self.heard(bytes(data))
        return len(data)


class Guest:
    """A board with a tiny guest, its serial line and what the machine reported."""

    def __init__(
        self, accel: Accelerator, kernel: str, append: str, vcpus: int, no_reboot: bool
    ) -> None:
        self.accel = accel
        self.line = Recorder()
        self.reports: list[str] = []
        self.board: Microvm = microvm.build(
            accel, 16 * MIB, vcpus=vcpus, serial=self.line, no_reboot=no_reboot
        )
        self.machine = self.board.machine
        self.machine.report = self.reports.append
        self.board.load(kernel, append)

    def run(self) -> int:
        """Runs until the end; the exit status."""
        self.board.finish()
        return self.machine.run()


MakeGuest = Callable[..., Guest]


@contextmanager
def guests(
    folder: Path, accelerator: Callable[[int], Accelerator], no_reboot: bool = False
) -> Iterator[MakeGuest]:
    """Yields make(code, append="", vcpus=1, no_reboot=...); closes the machines in the end."""
    made: list[Guest] = []

    def make(code: bytes, append: str = "", vcpus: int = 1, no_reboot: bool = no_reboot) -> Guest:
        kernel = tiny_guest.write_elf(folder / "guest.elf", code)
        made.append(Guest(accelerator(vcpus), kernel, append, vcpus, no_reboot))
        return made[-1]

    yield make
    for one in made:
        one.machine.close()


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[MakeGuest]:
    """guest(code, append="", vcpus=1, no_reboot=False): a board that will boot `code`."""
    needs.kvm()
    with guests(tmp_path, KvmAccel) as make:
        yield make
