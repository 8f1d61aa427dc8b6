# SPDX-License-Identifier: GPL-2.0-only
"""Registers and code bytes as text, in the form of QEMU's `info registers` (cpu_dump.c)."""

from __future__ import annotations

from miniqemu.accel.base import SEGMENTS
from miniqemu.machine.memory import GuestMemoryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from miniqemu.accel.base import Registers, Vcpu
    from miniqemu.machine.memory import GuestMemory

FLAGS = ((11, "O"), (10, "D"), (7, "S"), (6, "Z"), (4, "A"), (2, "P"), (0, "C"))
CODE_BEFORE, CODE_AFTER = 8, 24
PAGE = 4096
EFER_LMA = 0x400
CS_LONG = 1 << 21


def registers_text(cpu: Registers) -> str:
    """All registers, several in a line (x86_cpu_dump_state)."""
    wide = bool(cpu.efer & EFER_LMA)
    general = (
        ("rax", "rbx", "rcx", "rdx"),
        ("rsi", "rdi", "rbp", "rsp"),
        *((("r8", "r9", "r10", "r11"), ("r12", "r13", "r14", "r15")) if wide else ()),
    )
    lines = [" ".join(_general(cpu, name, wide) for name in row) for row in general]
    flags = "".join(letter if cpu.rflags >> bit & 1 else "-" for bit, letter in FLAGS)
    state = f"[{flags}] CPL={cpu.ss.flags >> 13 & 3} HLT={int(cpu.halted)}"
    name = "RFL" if wide else "EFL"
    lines.append(f"{_general(cpu, 'rip', wide)} {name}={cpu.rflags:08x} {state}")
    digits = 16 if wide else 8
    for name in SEGMENTS:
        segment = getattr(cpu, name)
        lines.append(
            f"{name.upper():<3}={segment.selector:04x} {segment.base:0{digits}x}"
            f" {segment.limit:08x} {segment.flags:08x}"
        )
    lines.append(f"GDT=     {cpu.gdt_base:0{digits}x} {cpu.gdt_limit:08x}")
    lines.append(f"IDT=     {cpu.idt_base:0{digits}x} {cpu.idt_limit:08x}")
    control = (f"{name.upper()}={getattr(cpu, name):08x}" for name in ("cr0", "cr2", "cr3", "cr4"))
    lines.append(f"{' '.join(control)} EFER={cpu.efer:016x}")
    return "\n".join(lines)


def _general(cpu: Registers, name: str, wide: bool) -> str:
    value = getattr(cpu, name)
    if wide:
        return f"{name.upper():<3}={value:016x}"
    return f"E{name[1:].upper()}={value & 0xFFFF_FFFF:08x}"


def code_text(vcpu: Vcpu, cpu: Registers, ram: GuestMemory) -> str:
    """The bytes around the instruction pointer, `<..>` at it, `??` where there is no memory."""
    linear = cpu.rip if cpu.efer & EFER_LMA and cpu.cs.flags & CS_LONG else cpu.cs.base + cpu.rip
    words = []
    for address in range(max(0, linear - CODE_BEFORE), linear + CODE_AFTER):
        byte = _byte(vcpu, ram, address)
        words.append(f"<{byte}>" if address == linear else byte)
    return f"Code={' '.join(words)}"


def _byte(vcpu: Vcpu, ram: GuestMemory, linear: int) -> str:
    page = vcpu.translate(linear & ~(PAGE - 1))
    if page is None:
        return "??"
    try:
        return ram.read(page + linear % PAGE, 1).hex()
    except GuestMemoryError:
        return "??"


def vcpu_text(vcpu: Vcpu, ram: GuestMemory) -> str:
    """What to print when a vCPU cannot go on: registers and code."""
    cpu = vcpu.registers()
    return f"CPU {vcpu.index}:\n{registers_text(cpu)}\n{code_text(vcpu, cpu, ram)}"
