# SPDX-License-Identifier: GPL-2.0-only
"""The board: RAM, slots and the command line, and that QEMU's microvm has the same."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from miniqemu.hw.virtio import VirtioDevice
from miniqemu.machine.microvm import BoardError, make_ram, ram_layout
from miniqemu.machine.runstate import RunState
from tests.miniqemu.machine.conftest import MakeGuest
from tests.support import needs, tiny_guest
from tests.support.tiny_guest import LOOP_FOR_EVER, power_off, say

MIB, GIB = 1 << 20, 1 << 30


class Entropy(VirtioDevice):
    """The smallest virtio device: it has an id and a queue, and does nothing."""

    device_id = 4

    def __init__(self) -> None:
        super().__init__(num_queues=1, queue_size=8)


@pytest.mark.parametrize(
    ("size", "layout"),
    [
        (128 * MIB, [(0, 128 * MIB)]),
        (3 * GIB, [(0, 3 * GIB)]),
        (4 * GIB, [(0, 3 * GIB), (4 * GIB, GIB)]),
    ],
)
def test_ram_continues_at_four_gib_as_qemus(size: int, layout: list[tuple[int, int]]) -> None:
    assert ram_layout(size) == layout


@pytest.mark.parametrize("size", [0, -4096, 4097])
def test_a_size_that_is_no_pages_is_refused(size: int) -> None:
    with pytest.raises(BoardError, match=r"^-m: "):
        ram_layout(size)


def test_more_memory_than_there_are_addresses_is_refused() -> None:
    with pytest.raises(BoardError, match=r"^-m: cannot map \d+ MiB of memory: "):
        make_ram(1 << 60)


def test_memory_that_nobody_touches_costs_nothing() -> None:
    ram = make_ram(8 * GIB)
    ram.write(7 * GIB, b"x")
    resident = sum(
        int(line.split()[1])
        for block in re.split(r"\n(?=[0-9a-f]+-)", Path("/proc/self/smaps").read_text())
        if "miniqemu-ram" in block
        for line in block.splitlines()
        if line.startswith("Rss:")
    )
    ram.close()
    assert resident < 4096, "kB"


@pytest.mark.parametrize("append", ["hello", ""])
def test_disks_take_the_slots_from_the_last_one_down_and_are_announced(
    guest: MakeGuest, append: str
) -> None:
    one = guest(tiny_guest.PRINT_COMMAND_LINE + power_off(0))
    for _ in range(2):
        one.board.plug(Entropy())
    one.board.load(one.board.kernel.path, append)  # type: ignore[union-attr]  # it has one
    assert one.run() == 0
    assert one.line.said.decode() == (
        f"{append} virtio_mmio.device=512@0xfeb00e00:12 virtio_mmio.device=512@0xfeb00c00:11"
    )


def test_the_ninth_device_finds_no_slot(guest: MakeGuest) -> None:
    one = guest(LOOP_FOR_EVER)
    for _ in range(8):
        one.board.plug(Entropy())
    with pytest.raises(BoardError, match="only 8 slots"):
        one.board.plug(Entropy())


def test_a_disk_that_asks_for_a_stop_gets_it_after_its_callback(guest: MakeGuest) -> None:
    one = guest(say(".") + LOOP_FOR_EVER)
    disk, machine = Entropy(), one.machine
    one.board.plug(disk)
    seen: list[bool] = []

    def completion() -> None:
        disk.request_vm_stop("io-error")
        seen.append(machine.running)

    def told(running: bool, state: RunState) -> None:
        if not running and state is RunState.IO_ERROR:
            machine.request_shutdown(6, "stopped")

    one.line.heard = lambda data: machine.main_context.bh_schedule_oneshot(completion)
    machine.on_state_change(told)
    assert one.run() == 6
    assert seen == [True], "not at once: the request is still in flight"


def test_debug_exit_may_not_take_the_serial_ports(guest: MakeGuest) -> None:
    one = guest(LOOP_FOR_EVER)
    with pytest.raises(ValueError, match="isa-debug-exit overlaps serial"):
        one.board.add_debug_exit(0x3F8, 4)


def test_qemus_microvm_passes_the_same_command_line(tmp_path: Path) -> None:
    qemu = needs.program("qemu-system-x86_64")
    code = tiny_guest.PRINT_COMMAND_LINE + tiny_guest.out(0xF4, 0) + LOOP_FOR_EVER
    kernel = tiny_guest.write_elf(tmp_path / "guest.elf", code)
    disks = []
    for name in ("a", "b"):
        disks += ["-drive", f"driver=null-co,read-zeroes=on,if=none,id={name}"]
        disks += ["-device", f"virtio-blk-device,drive={name}"]
    command = [
        *(qemu, "-M", "microvm,acpi=off", "-accel", "tcg", "-m", "64", "-nodefaults"),
        *("-no-user-config", "-display", "none", "-serial", "stdio", "-append", "hello"),
        *("-kernel", kernel, *disks, "-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert done.stdout.decode() == (
        "hello virtio_mmio.device=512@0xfeb00e00:12 virtio_mmio.device=512@0xfeb00c00:11"
    )
    assert done.returncode == 1
