# SPDX-License-Identifier: GPL-2.0-only
"""Starts a virtual machine, ours or QEMU's, and watches it from outside.

R1 Both programs get the same words after the program's name: same guest, same disk,
   same IOThread, same board.
R2 What a running process costs is asked of the kernel (/proc), not of the program.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from benchmarks import images
from benchmarks.harness import Missing

ROOT = Path(__file__).parent.parent
GUEST = ROOT / "guest" / "guest.elf"
GUEST_RAM = "/memfd:miniqemu-ram"
MEMORY_MIB = 64
PATIENCE = 60.0
NO_BYTECODE = ("PYTHONDONTWRITEBYTECODE",)


def program(which: str) -> str:
    """Returns the path of `miniqemu` (this environment's) or of QEMU."""
    if which == "ours":
        return str(Path(sys.executable).with_name("miniqemu"))
    path = shutil.which("qemu-system-x86_64")
    if path is None:
        raise Missing("qemu-system-x86_64: apt-get install qemu-system-x86")
    return path


def words(which: str, append: str, iothread: bool = True, accel: str = "kvm") -> list[str]:
    """Returns the command line, the same for both (R1); without IOThread the main loop serves."""
    if not GUEST.exists():
        raise Missing("guest/guest.elf: make guest")
    if accel == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise Missing("/dev/kvm: modprobe kvm_intel or kvm_amd, or join group kvm")
    board = f"-M microvm,acpi=off -accel {accel} -nodefaults -no-user-config -display none"
    devices = (
        f"-m {MEMORY_MIB} -serial stdio -no-reboot -global virtio-mmio.force-legacy=off "
        f"-drive file={images.raw()},format=raw,if=none,id=d0 -object iothread,id=io0 "
        f"-device virtio-blk-device,drive=d0{',iothread=io0' if iothread else ''} "
        "-device isa-debug-exit,iobase=0xf4,iosize=0x4"
    )
    kernel = ["-kernel", str(GUEST), "-append", append]
    return [program(which), *board.split(), *devices.split(), *kernel]


def environment() -> dict[str, str]:
    """Returns the environment for both; Python may keep its compiled modules, as after any install.

    Without them each start compiles 60 modules anew, four fifths of its time.
    """
    return {name: value for name, value in os.environ.items() if name not in NO_BYTECODE}


class Machine:
    """A running machine with its serial line on pipes; `with` ends it."""

    def __init__(self, which: str, append: str, iothread: bool = True, accel: str = "kvm") -> None:
        line = words(which, append, iothread, accel)
        self.text = b""
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            line,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(),
        )

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.communicate()

    @property
    def pid(self) -> int:
        """The process, for /proc."""
        return self.process.pid

    def read(self) -> bytes:
        """Waits for some bytes of the serial line; b"" is its end."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        ready, _, _ = select.select([descriptor], [], [], PATIENCE)
        if not ready:
            raise TimeoutError(f"the guest said nothing more after {self.text!r}")
        piece = os.read(descriptor, 65536)
        self.text += piece
        return piece

    def read_until(self, pattern: bytes) -> re.Match[bytes]:
        """Reads the serial line until the pattern is on it."""
        while (found := re.search(pattern, self.text)) is None:
            if not self.read():
                raise EOFError(f"the machine ended, and had said {self.text!r}")
        return found


def cpu_seconds(pid: int, proc: Path = Path("/proc")) -> float:
    """Returns the time that all threads of a process have run, the guest's included (R2).

    /proc/PID/task/TID/schedstat counts in nanoseconds; utime in ticks of 10 ms would
    be too coarse for an idle guest.
    """
    tasks = (proc / str(pid) / "task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def resident_beyond_guest(smaps: str) -> int:
    """Returns the resident bytes of a process without its guest's RAM, from its smaps text.

    Our guest's RAM is the memfd with the name miniqemu-ram; ValueError where there is none.
    """
    mappings = re.findall(r"^[0-9a-f]+-[0-9a-f]+ (.*)\n(?:.*\n)*?Rss:\s+(\d+) kB", smaps, re.M)
    if not any(GUEST_RAM in name for name, _ in mappings):
        raise ValueError(f"no mapping is named {GUEST_RAM}")
    return sum(int(resident) * 1024 for name, resident in mappings if GUEST_RAM not in name)
