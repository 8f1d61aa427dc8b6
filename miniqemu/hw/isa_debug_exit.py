# SPDX-License-Identifier: GPL-2.0-only
"""How a guest ends its machine with an exit status (hw/misc/debugexit.c), and our power-off port.

`-device isa-debug-exit,iobase=0xf4,iosize=4`: a write of v ends the program with 2v+1, as in QEMU.

Without it the board has the power-off port at 0xf4: a write of v is remembered, and a triple
fault that follows ends the program with v. So one guest works on both: QEMU without the device
ignores the write and is reset by the fault.

Who may call it: a vCPU's thread, under the big lock.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from miniqemu.machine.machine import Machine

POWER_OFF_PORT = 0xF4


class IsaDebugExit:
    """QEMU's device: the first write is the end."""

    name = "isa-debug-exit"

    def __init__(self, machine: Machine, iobase: int = 0x501, iosize: int = 2) -> None:
        self.base, self.size = iobase, iosize
        self._machine = machine

    def read(self, offset: int, size: int) -> int:
        """Reads as 0."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Ends the machine with 2 * value + 1, of which the system keeps eight bits."""
        self._machine.request_shutdown((value << 1 | 1) & 0xFF, "isa-debug-exit")


class PowerOffPort:
    """The board's own port: the verdict that a later triple fault hands over."""

    name = "power-off port"
    size = 4

    def __init__(self, machine: Machine, base: int = POWER_OFF_PORT) -> None:
        self.base = base
        self._machine = machine

    def read(self, offset: int, size: int) -> int:
        """Reads as all ones, as a port without a device does."""
        return -1

    def write(self, offset: int, size: int, value: int) -> None:
        """Remembers the verdict; a reset forgets it."""
        self._machine.power_off = value & 0xFF
