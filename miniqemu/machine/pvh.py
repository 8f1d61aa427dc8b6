# SPDX-License-Identifier: GPL-2.0-only
"""The PVH way to start a kernel: what lies in memory, and what the first vCPU's registers say.

    0x00500  a GDT: null, code, data, TSS         what the segment registers already hold
    0x06000  hvm_start_info                       EBX points here
    0x07000  hvm_memmap_table_entry[]             RAM and what is reserved
    0x20000  the command line, with a NUL
    p_paddr  the kernel's segments                EIP = the entry of its PVH note

The vCPU is in 32-bit protected mode, flat segments, no paging, interrupts off. Only vCPU 0 is
entered so; the others wait for INIT and SIPI.

Source: Xen's include/public/arch-x86/hvm/start_info.h and docs/misc/pvh.pandoc.
"""

from __future__ import annotations

from block.lean import Struct
from miniqemu.accel.base import Registers, Segment
from miniqemu.machine.elf import KernelError
from miniqemu.machine.memory import GuestMemoryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from miniqemu.machine.elf import Kernel
    from miniqemu.machine.memory import GuestMemory

START_INFO = Struct("<IIIIQQQQII")  # hvm_start_info, version 1
MEMMAP_ENTRY = Struct("<QQII")  # hvm_memmap_table_entry
MAGIC = 0x336E_C578
RAM, RESERVED = 1, 2

GDT_AT, START_INFO_AT, MEMMAP_AT, CMDLINE_AT = 0x500, 0x6000, 0x7000, 0x2_0000
BOOT_DATA_END = 0x3_0000
CMDLINE_MAX = BOOT_DATA_END - CMDLINE_AT - 1
LOW_RAM_END, HIGH_RAM = 0x9_FC00, 0x10_0000

CODE = Segment(0x08, 0, 0xFFFF_FFFF, 0xC0_9B00)
DATA = Segment(0x10, 0, 0xFFFF_FFFF, 0xC0_9300)
TASK = Segment(0x18, 0, 0x67, 0x00_8B00)
GDT = Struct("<4Q").pack(0, 0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0x0000_8B00_0000_0067)
CR0_PE, CR0_ET, RFLAGS_FIXED = 1, 0x10, 2


def memory_map(ram: GuestMemory) -> list[tuple[int, int, int]]:
    """(address, size, type) of each piece: RAM without the BIOS area, which is reserved."""
    out = []
    for region in ram.regions:
        if region.base == 0 and region.size > HIGH_RAM:
            out.append((0, LOW_RAM_END, RAM))
            out.append((LOW_RAM_END, HIGH_RAM - LOW_RAM_END, RESERVED))
            out.append((HIGH_RAM, region.size - HIGH_RAM, RAM))
        else:
            out.append((region.base, region.size, RAM))
    return out


def place(ram: GuestMemory, kernel: Kernel, cmdline: bytes) -> None:
    """Writes kernel and boot data into guest memory; again at each reset (rom_reset).

    KernelError when it does not fit: it names `-m` and how much there is.
    """
    if len(cmdline) > CMDLINE_MAX:
        raise KernelError(kernel.path, f"-append: {len(cmdline)} bytes > {CMDLINE_MAX}")
    try:
        for segment in kernel.segments:
            target = ram.view(segment.paddr, segment.memsz)
            if segment.paddr < BOOT_DATA_END:
                raise KernelError(
                    kernel.path,
                    f"a segment at 0x{segment.paddr:x} lies in the boot data below 0x30000",
                )
            used = len(segment.data)
            target[:used] = segment.data
            target[used:] = bytes(segment.memsz - used)
        _place_boot_data(ram, cmdline)
    except GuestMemoryError as error:
        need = f"{error.length} bytes at 0x{error.gpa:x}"
        raise KernelError(
            kernel.path, f"needs {need}, but -m gives {ram.size >> 20} MiB of memory"
        ) from None


def _place_boot_data(ram: GuestMemory, cmdline: bytes) -> None:
    entries = memory_map(ram)
    table = b"".join(MEMMAP_ENTRY.pack(*entry, 0) for entry in entries)
    info = START_INFO.pack(MAGIC, 1, 0, 0, 0, CMDLINE_AT, 0, MEMMAP_AT, len(entries), 0)
    ram.write(GDT_AT, GDT)
    ram.write(START_INFO_AT, info)
    ram.write(MEMMAP_AT, table)
    ram.write(CMDLINE_AT, cmdline + b"\0")


def entry_registers(kernel: Kernel) -> Registers:
    """The first vCPU's registers at the kernel's entry."""
    registers = Registers()
    registers.rip, registers.rbx, registers.rflags = kernel.entry, START_INFO_AT, RFLAGS_FIXED
    registers.cs, registers.tr = CODE, TASK
    for name in ("ds", "es", "ss", "fs", "gs"):
        setattr(registers, name, DATA)
    registers.cr0 = CR0_PE | CR0_ET
    registers.gdt_base, registers.gdt_limit = GDT_AT, len(GDT) - 1
    return registers
