# SPDX-License-Identifier: GPL-2.0-only
"""The board: QEMU's microvm, in the form of `-M microvm,acpi=off` (hw/i386/microvm.c).

    ports    0x020, 0x0a0  two PICs           in the kernel, with kvm; tcg has none
             0x040-0x043   i8254              in the kernel, with kvm; else hw/pit.py
             0x3f8-0x3ff   serial port        IRQ 4
             0x0f4         power-off port     unless isa-debug-exit takes it
    memory   0             RAM, up to 3 GiB; what is more continues at 4 GiB
             0xfeb00000    8 virtio-mmio slots of 512 bytes, slot i at pin 5+i of the IOAPIC
             0xfec00000    IOAPIC             in the kernel, with kvm; else hw/ioapic.py
             0xfee00000    local APICs        in the kernel, with kvm; else hw/lapic.py

The first disk takes the last slot, the next the one before, as in QEMU. Each disk is announced
on the kernel's command line, after what the person gave (microvm_fix_kernel_cmdline):
`virtio_mmio.device=512@0xfeb00e00:12`. (Addresses, pins and order were read off QEMU 7.2's
`info qtree` and from the command line that a PVH kernel gets there. With ACPI, QEMU's default,
it has 24 slots at the pins of a second IOAPIC, and tells the guest by a table. We have no ACPI.)
"""

from __future__ import annotations

from miniqemu.accel.base import AccelError
from miniqemu.hw.isa_debug_exit import POWER_OFF_PORT, IsaDebugExit, PowerOffPort
from miniqemu.hw.uart import Uart16550
from miniqemu.machine import pvh
from miniqemu.machine.elf import Kernel, load_kernel
from miniqemu.machine.machine import Machine
from miniqemu.machine.memory import PAGE, GuestMemory
from miniqemu.machine.runstate import RunState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.world import World
    from miniqemu.accel.base import Accelerator
    from miniqemu.chardev.base import Chardev
    from miniqemu.hw.virtio import VirtioDevice
    from miniqemu.hw.virtio_mmio import VirtioMmioTransport

MIB, GIB = 1 << 20, 1 << 30
RAM_BELOW_4G_MAX = 3 * GIB
SERIAL_PORT, SERIAL_IRQ = 0x3F8, 4
VIRTIO_MMIO_BASE, VIRTIO_MMIO_SIZE = 0xFEB0_0000, 512
VIRTIO_IRQ_BASE, VIRTIO_SLOTS = 5, 8


class BoardError(Exception):
    """A machine that cannot be built as asked: one line."""


def ram_layout(size: int) -> list[tuple[int, int]]:
    """Where `size` bytes of RAM are: below 3 GiB, and the rest from 4 GiB on."""
    if size <= 0 or size % PAGE:
        raise BoardError(f"-m: {size} bytes is not a whole number of {PAGE}-byte pages")
    layout = [(0, min(size, RAM_BELOW_4G_MAX))]
    if size > RAM_BELOW_4G_MAX:
        layout.append((4 * GIB, size - RAM_BELOW_4G_MAX))
    return layout


def make_ram(size: int) -> GuestMemory:
    """Maps the guest's RAM. BoardError when the system has not that much address space."""
    try:
        return GuestMemory(ram_layout(size))
    except (OSError, OverflowError) as error:
        raise BoardError(f"-m: cannot map {size >> 20} MiB of memory: {error}") from None


class Microvm:
    """The board on a machine (MicrovmMachineState)."""

    def __init__(self, machine: Machine, serial: Chardev | None = None) -> None:
        self.machine = machine
        self.transports: list[VirtioMmioTransport] = []  # in the order of the devices
        self.cmdline = b""
        self.announce_disks = True  # -M auto-kernel-cmdline=
        self.kernel: Kernel | None = None
        self.uart: Uart16550 | None = None
        self._debug_exit_ports: range | None = None
        machine.boot = self._boot
        if serial is not None:
            self._add_uart(serial)

    def _add_uart(self, serial: Chardev) -> None:
        machine = self.machine
        self.uart = Uart16550(SERIAL_PORT, machine.irq(SERIAL_IRQ), serial, machine.main_context)
        machine.space.add_pio(self.uart)
        machine.on_reset(self.uart.reset)
        machine.on_close(self.uart.close)

    def add_debug_exit(self, iobase: int = 0x501, iosize: int = 2) -> None:
        """-device isa-debug-exit,iobase=,iosize= (ValueError: the ports are taken)."""
        self.machine.space.add_pio(IsaDebugExit(self.machine, iobase, iosize))
        self._debug_exit_ports = range(iobase, iobase + iosize)

    def plug(self, device: VirtioDevice) -> VirtioMmioTransport:
        """Puts a virtio device into the next slot, from the last one down."""
        from miniqemu.hw.virtio_mmio import VirtioMmioTransport

        machine, slot = self.machine, VIRTIO_SLOTS - 1 - len(self.transports)
        if slot < 0:
            raise BoardError(f"-device: the board has only {VIRTIO_SLOTS} slots for virtio devices")
        base = VIRTIO_MMIO_BASE + slot * VIRTIO_MMIO_SIZE
        transport = VirtioMmioTransport(
            base,
            machine.irq(VIRTIO_IRQ_BASE + slot),
            machine.space,
            machine.main_context,
            machine.big_lock,
            device,
        )
        device.request_vm_stop = self._disk_stops_machine
        machine.space.add_mmio(transport)
        machine.on_reset(transport.reset)
        machine.on_state_change(lambda running, state: transport.vm_state_changed(running))
        machine.on_close(transport.close)
        self.transports.append(transport)
        return transport

    def _disk_stops_machine(self, reason: str) -> None:
        self.machine.stop(RunState(reason))

    def load(self, path: str, append: str = "") -> None:
        """-kernel and -append: reads the kernel now; it is placed at each reset.

        KernelError: the file is no kernel, or memory is too small.
        """
        self.kernel = load_kernel(path)
        words = [append]  # if it is empty, QEMU too leaves a space in front of the disks
        if self.announce_disks:
            words += [self._announce(transport) for transport in self.transports]
        self.cmdline = " ".join(words).encode()
        pvh.place(self.machine.ram, self.kernel, self.cmdline)

    def _announce(self, transport: VirtioMmioTransport) -> str:
        where = f"{VIRTIO_MMIO_SIZE}@0x{transport.base:x}"
        return f"virtio_mmio.device={where}:{transport.irq.gsi}"

    def finish(self) -> None:
        """Called after the last device: fills in what nobody has taken."""
        taken = self._debug_exit_ports or range(0)
        if not set(taken) & set(range(POWER_OFF_PORT, POWER_OFF_PORT + PowerOffPort.size)):
            self.machine.space.add_pio(PowerOffPort(self.machine))

    def _boot(self) -> None:
        if self.kernel is not None:
            pvh.place(self.machine.ram, self.kernel, self.cmdline)
            self.machine.vcpus[0].load(pvh.entry_registers(self.kernel))


def build(
    accel: Accelerator,
    ram_size: int,
    *,
    vcpus: int = 1,
    serial: Chardev | None = None,
    no_reboot: bool = False,
    world: World | None = None,
) -> Microvm:
    """A machine with this board: plug devices, `load` a kernel, `finish`, then `machine.run()`.

    BoardError; AccelError when the accelerator cannot map RAM or make vCPUs (which is closed then).
    """
    ram = make_ram(ram_size)
    try:
        machine = Machine(accel, ram, vcpus=vcpus, no_reboot=no_reboot, world=world)
    except AccelError:
        accel.close()
        ram.close()
        raise
    return Microvm(machine, serial)
