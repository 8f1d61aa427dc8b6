# SPDX-License-Identifier: GPL-2.0-only
"""Guests that do not listen, shout, or fight: whoever runs the program can still end it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from miniqemu.hw import virtio_mmio as mmio
from tests.support import needs, tiny_guest
from tests.support.boot import ROOT
from tests.support.terminal import TerminalSession
from tests.support.tiny_guest import CLI, HLT, LOOP_FOR_EVER, for_ever, say, store, two_vcpus

DISK = 0xFEB0_0E00
READY = "ready"


def reg(offset: int, value: int) -> bytes:
    """A store to a register of the disk."""
    return store(DISK + offset, value)


def bring_up() -> bytes:
    """The whole sequence of a driver, with queue 0 at 0x10000."""
    code = b"".join(reg(mmio.STATUS, value) for value in (0, 1, 3))
    code += reg(mmio.DRIVER_FEATURES_SEL, 1) + reg(mmio.DRIVER_FEATURES, 1)
    code += reg(mmio.STATUS, 0xB) + reg(mmio.QUEUE_SEL, 0) + reg(mmio.QUEUE_NUM, 8)
    for low, where in (
        (mmio.QUEUE_DESC_LOW, 0x1_0000),
        (mmio.QUEUE_DRIVER_LOW, 0x1_1000),
        (mmio.QUEUE_DEVICE_LOW, 0x1_2000),
    ):
        code += reg(low, where) + reg(low + 4, 0)
    return code + reg(mmio.QUEUE_READY, 1) + reg(mmio.STATUS, 0xF)


RING = reg(mmio.QUEUE_NOTIFY, 0)
INDEX = store(0x1_1000, 0x0001_0000)  # flags 0, index 1: descriptor 0, which is all zeroes
DEEDS = {
    "spins with interrupts off": say(READY) + CLI + LOOP_FOR_EVER,
    "halts with interrupts off": say(READY) + CLI + HLT,
    "spins on both processors": two_vcpus(CLI + LOOP_FOR_EVER, say(READY) + CLI + LOOP_FOR_EVER),
    "rings a queue that is not ready": for_ever(100 * RING + say(READY)),
    "rings an empty queue": bring_up() + for_ever(100 * RING + say(READY)),
    "resets the disk for ever": for_ever(bring_up() + RING + say(READY)),
    "breaks its ring and starts again": for_ever(bring_up() + INDEX + RING + say(READY)),
    "shouts": for_ever(say(READY)),
    "rings on one processor, resets on the other": two_vcpus(
        for_ever(RING), for_ever(bring_up() + RING + INDEX + RING + say(READY))
    ),
    "resets on both": two_vcpus(for_ever(bring_up()), for_ever(bring_up() + RING + say(READY))),
}
ENDS = {"Ctrl-A x": None, "SIGTERM": signal.SIGTERM}
ROUNDS = 5  # a guest that speaks in a loop has done so often


def started(
    tmp_path: Path, code: bytes, options: list[str], way: str = "main loop", accel: str = "kvm"
) -> tuple[TerminalSession, Path]:
    """The program on a terminal, with a disk that is full of zeroes; the disk's file."""
    needs.kvm() if accel == "kvm" else needs.module("unicorn", "tcg")
    kernel = tiny_guest.write_elf(tmp_path / "guest.elf", code)
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    thread = ",iothread=t0" if way == "IOThread" else ""
    words = [sys.executable, "-m", "miniqemu", "-nographic", "-kernel", kernel, "-smp", "2"]
    words += ["-M", "microvm,acpi=off", "-m", "16", "-accel", accel, "-object", "iothread,id=t0"]
    words += ["-drive", f"file={disk},format=raw,if=none,id=d0"]
    words += ["-device", f"virtio-blk-device,drive=d0{thread}", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return TerminalSession(words, env=environment, cwd=ROOT), disk


CASES = [(deed, "main loop", accel) for accel in ("kvm", "tcg") for deed in DEEDS]
CASES += [(deed, "IOThread", "kvm") for deed, code in DEEDS.items() if RING in code]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("deed", "way", "accel"), CASES)
def test_an_unruly_guest_can_be_ended(
    tmp_path: Path, deed: str, end: str, way: str, accel: str
) -> None:
    code = DEEDS[deed]
    session, disk = started(tmp_path, code, [], way, accel)
    with session:
        for _ in range(ROUNDS if code.endswith(say(READY), 0, -5) else 1):
            session.expect(READY)
        number = ENDS[end]
        if number is None:
            session.type("\x01x")
        else:
            session.process.send_signal(number)
        assert session.wait() == 0
        assert "Traceback" not in session.text
        assert session.settings() == session.before
    assert disk.read_bytes() == bytes(1 << 20)


def test_a_storm_that_is_logged_can_be_ended(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    options = ["-d", "int,guest_errors", "-D", str(log)]
    session, _ = started(tmp_path, for_ever(bring_up() + INDEX + RING + say(READY)), options)
    with session:
        for _ in range(ROUNDS):
            session.expect(READY)
        session.type("\x01x")
        assert session.wait() == 0
    assert "length 0" in log.read_text()  # a reset may overtake a doorbell, but not all
