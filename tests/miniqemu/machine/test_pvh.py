# SPDX-License-Identifier: GPL-2.0-only
"""The PVH hand-over: what lies in memory and in the registers at the kernel's entry."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from miniqemu.machine import pvh
from miniqemu.machine.elf import Kernel, KernelError, LoadSegment
from miniqemu.machine.memory import GuestMemory

MIB, GIB = 1 << 20, 1 << 30


@pytest.fixture
def ram() -> Iterator[GuestMemory]:
    memory = GuestMemory([(0, 4 * MIB), (4 * GIB, MIB)])
    yield memory
    memory.close()


def kernel(paddr: int = MIB, data: bytes = b"kernel", memsz: int = 64) -> Kernel:
    return Kernel("k.elf", paddr, [LoadSegment(paddr, data, memsz)])


def test_start_info_leads_to_command_line_and_memory_map(ram: GuestMemory) -> None:
    pvh.place(ram, kernel(), b"hello world")
    registers = pvh.entry_registers(kernel())
    magic, version, flags, modules, modlist, cmdline, rsdp, memmap, entries, _ = struct.unpack(
        "<IIIIQQQQII", ram.read(registers.rbx, 56)
    )
    assert (magic, version, flags, modules, modlist, rsdp) == (0x336EC578, 1, 0, 0, 0, 0)
    assert ram.read(cmdline, 12) == b"hello world\0"
    table = [struct.unpack_from("<QQII", ram.read(memmap, 24 * entries), 24 * i) for i in range(4)]
    assert entries == 4
    assert table == [
        (0, 0x9FC00, 1, 0),
        (0x9FC00, 0x60400, 2, 0),
        (MIB, 3 * MIB, 1, 0),
        (4 * GIB, MIB, 1, 0),
    ]


def test_the_first_vcpu_is_in_flat_protected_mode_without_paging() -> None:
    registers = pvh.entry_registers(kernel())
    assert registers.rip == MIB
    assert registers.cr0 & 0x8000_0001 == 1
    assert registers.rflags == 2
    for name in ("cs", "ds", "es", "ss"):
        segment = getattr(registers, name)
        assert (segment.base, segment.limit) == (0, 0xFFFF_FFFF)
        assert segment.flags >> 22 & 1, "32 bits"


def test_the_gdt_in_memory_is_what_the_segments_hold(ram: GuestMemory) -> None:
    pvh.place(ram, kernel(), b"")
    registers = pvh.entry_registers(kernel())
    for name in ("cs", "ds", "tr"):
        segment = getattr(registers, name)
        low, high = struct.unpack("<II", ram.read(registers.gdt_base + segment.selector, 8))
        limit = low & 0xFFFF | high & 0xF_0000
        assert segment.limit == (limit << 12 | 0xFFF if high >> 23 & 1 else limit)
        assert segment.flags == high & 0x00F0_FF00


def test_what_follows_a_segments_data_is_zeroed_also_the_second_time(ram: GuestMemory) -> None:
    ram.write(MIB, b"\xff" * 128)
    pvh.place(ram, kernel(), b"")
    assert ram.read(MIB, 65) == b"kernel" + bytes(58) + b"\xff"


def test_too_little_memory_is_told_with_the_need_and_the_option(ram: GuestMemory) -> None:
    with pytest.raises(KernelError, match=r"k.elf: needs 9 bytes at 0x400000, but -m gives 5 MiB"):
        pvh.place(ram, kernel(4 * MIB, memsz=9), b"")
    with pytest.raises(KernelError, match="but -m gives"):
        pvh.place(ram, kernel(MIB, memsz=2**63), b"")


def test_a_kernel_over_the_boot_data_is_refused(ram: GuestMemory) -> None:
    with pytest.raises(KernelError, match="lies in the boot data"):
        pvh.place(ram, kernel(0x6000), b"")


def test_a_command_line_that_is_too_long_is_refused(ram: GuestMemory) -> None:
    pvh.place(ram, kernel(), b"x" * 65535)
    with pytest.raises(KernelError, match="-append: 65536 bytes > 65535"):
        pvh.place(ram, kernel(), b"x" * 65536)
