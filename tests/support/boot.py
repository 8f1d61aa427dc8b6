# SPDX-License-Identifier: GPL-2.0-only
"""Boots the toy kernel under QEMU or under miniqemu, with one and the same argument list.

    outcome = boot(QEMU_KVM, [Disk(path)], "read 0; selftest")
    outcome.status, outcome.serial, parse_tap(outcome.serial)

The kernel is built first when its sources are newer (`make -C guest`).
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import needs

ROOT = Path(__file__).parent.parent.parent
ELF = ROOT / "guest" / "guest.elf"
GOOD = 1  # isa-debug-exit makes 2 * verdict + 1 of the guest's verdict; this is verdict 0
BAD = 3


@dataclass(frozen=True)
class Vmm:
    """A program that runs the guest, and the accelerator it does that with."""

    name: str
    accel: str
    machine: str = "microvm,acpi=off"

    def __str__(self) -> str:
        return f"{self.name}-{self.accel}" + ("" if "," in self.machine else "-plain")

    def program(self) -> list[str]:
        """Returns how to call it; skips the test (fails it in CI) where something is missing."""
        if self.accel == "kvm":
            needs.kvm()
        if self == MINIQEMU_TCG:
            needs.module("unicorn", "tcg")
        if self.name == "qemu":
            return [needs.program("qemu-system-x86_64")]
        return [sys.executable, "-m", "miniqemu"]


QEMU_KVM = Vmm("qemu", "kvm")
QEMU_TCG = Vmm("qemu", "tcg")
QEMU_PLAIN = Vmm("qemu", "tcg", "microvm")  # with ACPI: the disks sit in other slots
MINIQEMU_KVM = Vmm("miniqemu", "kvm")
MINIQEMU_TCG = Vmm("miniqemu", "tcg")


@dataclass(frozen=True)
class Disk:
    """A disk of the guest: extra options go to -drive and to -device."""

    path: Path
    drive: str = ""
    device: str = ""
    iothread: bool = False
    format: str = "raw"

    def arguments(self, number: int) -> list[str]:
        """Returns the words that give this disk to the machine as its disk `number`."""
        drive = f"file={self.path},format={self.format},if=none,id=d{number}{self.drive}"
        device = f"virtio-blk-device,drive=d{number}{self.device}"
        if not self.iothread:
            return ["-drive", drive, "-device", device]
        thread = ["-object", f"iothread,id=t{number}"]
        return [*thread, "-drive", drive, "-device", f"{device},iothread=t{number}"]


def arguments(
    vmm: Vmm, disks: Sequence[Disk], append: str, elf: Path | str = ELF, smp: int = 1
) -> list[str]:
    """Returns the argument list, which both programs take."""
    words = ["-M", vmm.machine, "-accel", vmm.accel, "-m", "64", "-smp", str(smp)]
    words += ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    words += ["-serial", "stdio", "-global", "virtio-mmio.force-legacy=false"]
    words += ["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]
    for number, disk in enumerate(disks):
        words += disk.arguments(number)
    return [*words, "-kernel", str(elf), "-append", append]


@dataclass(frozen=True)
class Outcome:
    """What a run left: the serial line's text (ends of lines are \\n), stderr, exit status."""

    serial: str
    errors: str
    status: int

    def after(self, command: str) -> str:
        """Returns what the shell printed for a typed command, up to its next prompt."""
        return self.serial.split(f"> {command}\n", 1)[1].split("\ndisk0> ", 1)[0]


def run(words: Sequence[str], typed: str = "", timeout: float = 60) -> Outcome:
    """Runs a command; `typed` is what the person types at the shell's first prompt."""
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        timer = threading.Timer(timeout, process.kill)
        timer.start()
        try:
            serial = type_at_prompt(process, typed.encode())
            rest, errors = process.communicate()
        finally:
            timer.cancel()
            process.kill()
    text = (serial + rest).decode(errors="replace").replace("\r\n", "\n")
    return Outcome(text, errors.decode(errors="replace"), process.returncode)


def type_at_prompt(process: subprocess.Popen[bytes], typed: bytes) -> bytes:
    """Types once the prompt is there (a UART drops what comes earlier); returns what was read."""
    assert process.stdin is not None
    assert process.stdout is not None
    serial = b""
    while typed and not serial.endswith(b"> "):
        piece = os.read(process.stdout.fileno(), 4096)
        if not piece:
            return serial
        serial += piece
    process.stdin.write(typed)
    process.stdin.flush()
    return serial


def boot(
    vmm: Vmm,
    disks: Sequence[Disk],
    append: str,
    *,
    typed: str = "",
    elf: Path | None = None,
    smp: int = 1,
    timeout: float = 60,
) -> Outcome:
    """Boots the guest and waits for its end, which `append` or `typed` has to bring about."""
    program = vmm.program()
    words = arguments(vmm, disks, append, elf or built_elf(), smp)
    outcome = run([*program, *words], typed, timeout)
    assert "Traceback" not in outcome.errors, outcome.errors  # whose exit status would be 1, too
    return outcome


@functools.cache
def built_elf() -> Path:
    """Returns guest/guest.elf, built if need be (once in a run of the tests)."""
    made = subprocess.run(
        ["make", "-s", "-C", str(ROOT / "guest"), f"PYTHON={sys.executable}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return ELF


@dataclass
class Tap:
    """A TAP report: how many tests were planned, and each one's name by its outcome."""

    plan: int = 0
    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether as many tests reported as were planned, and at least one."""
        return 0 < self.plan == len(self.passed) + len(self.failed) + len(self.skipped)


PLAN = re.compile(r"^1\.\.(\d+)$", re.M)
LINE = re.compile(r"^(ok|not ok) \d+ - (.*?)(?: # SKIP (.*))?$", re.M)


def parse_tap(text: str) -> Tap:
    """Finds the TAP report in a serial line's text."""
    tap = Tap()
    if plan := PLAN.search(text):
        tap.plan = int(plan[1])
    for verdict, name, reason in LINE.findall(text):
        if reason:
            tap.skipped[name] = reason
        else:
            (tap.passed if verdict == "ok" else tap.failed).append(name)
    return tap
