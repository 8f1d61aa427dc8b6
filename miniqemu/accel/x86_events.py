# SPDX-License-Identifier: GPL-2.0-only
"""What a processor does at an interrupt or an exception, and its registers, on a stopped engine.

    gate of the IDT  ->  frame on the stack  ->  CS:RIP of the handler      (seg_helper.c)

Modelled: 64-bit and 32-bit gates for interrupts and traps, the interrupt stack table, a fault
while delivering (double fault, then the end). Not modelled: real mode's table, task gates, and a
change of the privilege level: a guest that goes to ring 3 comes back by `syscall` alone.

Rules:
R1  The engine is stopped, and between two instructions.
R2  Gates, stacks and tables are the guest's: every address is translated, every gate checked.
R3  Every word that comes back from here is what the SDM calls "pushed": RSP is set last.

Source: Intel SDM volume 3, 6.12 to 6.14.
"""

from __future__ import annotations

from struct import Struct

from miniqemu.accel.base import GENERAL, Registers, Segment
from miniqemu.accel.libunicorn import GDTR, IDTR, REGISTERS, TR, Table
from miniqemu.machine.memory import PAGE, GuestMemoryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from miniqemu.accel.libunicorn import Engine
    from miniqemu.machine.memory import GuestMemory

GATE64, GATE32 = Struct("<HHBBHI4x"), Struct("<HHBBH")
PRESENT, INTERRUPT_GATE, TRAP_GATE = 0x80, 0xE, 0xF
TF, IF, NT, RF, VM = 1 << 8, 1 << 9, 1 << 14, 1 << 16, 1 << 17
DOUBLE_FAULT = 8
WITH_CODE = (8, 10, 11, 12, 13, 14, 17)
IST_IN_TSS = 0x1C  # of entry 0, which does not exist
EFER, PE, PG, PAE, LME, LMA = 0xC000_0080, 1, 1 << 31, 1 << 5, 1 << 8, 1 << 10
LONG_MODE_CR0, PROTECTED_CR0 = 0x8001_0011, 0x11
DATA_SEGMENTS = ("ds", "es", "ss", "fs", "gs")
READ, WRITE = 1, 2


class NotModelled(Exception):
    """What the guest did that this accelerator cannot do."""


def peek(ram: GuestMemory, physical: int, size: int) -> bytes:
    """Bytes at a physical address, none where there is no RAM."""
    try:
        return ram.read(physical, size)
    except GuestMemoryError:
        return b""


def read_linear(engine: Engine, ram: GuestMemory, linear: int, size: int) -> bytes | None:
    """Bytes at a linear address, None where the guest has none (R2)."""
    out = b""
    while len(out) < size:
        at = linear + len(out)
        physical = engine.translate(at, READ)
        piece = b"" if physical is None else peek(ram, physical, _in_page(at, size - len(out)))
        if not piece:
            return None
        out += piece
    return out


def write_linear(engine: Engine, ram: GuestMemory, linear: int, data: bytes) -> bool:
    """Stores at a linear address; False where the guest may not (R2)."""
    while data:
        physical, size = engine.translate(linear, WRITE), _in_page(linear, len(data))
        if physical is None:
            return False
        try:
            ram.write(physical, data[:size])
        except GuestMemoryError:
            return False
        linear, data = linear + size, data[size:]
    return True


def _in_page(linear: int, size: int) -> int:
    return min(size, PAGE - linear % PAGE)


def deliver(engine: Engine, ram: GuestMemory, vector: int, error: int, external: bool) -> bool:
    """Goes to a handler (do_interrupt_all); False: triple fault, the processor gives up."""
    code = error if vector in WITH_CODE and not external else None
    return _enter(engine, ram, vector, code) or _enter(engine, ram, DOUBLE_FAULT, 0)


def _enter(engine: Engine, ram: GuestMemory, vector: int, code: int | None) -> bool:
    if not engine.read(REGISTERS["cr0"]) & PE:
        raise NotModelled(f"vector {vector} in real mode")
    cs = engine.read(REGISTERS["cs"])
    if cs & 3:
        raise NotModelled(f"vector {vector} in ring {cs & 3}")
    long_mode = engine.read_msr(EFER) & LMA
    gate = _gate(engine, ram, vector, GATE64 if long_mode else GATE32)
    if gate is None:
        return False
    handler, selector, stack, kind = gate
    if not (_push64 if long_mode else _push32)(engine, ram, stack, code):
        return False
    flags = engine.read(REGISTERS["rflags"]) & ~(TF | NT | RF | VM)
    engine.write(REGISTERS["rflags"], flags & ~IF if kind == INTERRUPT_GATE else flags)
    if selector != cs:
        engine.write(REGISTERS["cs"], selector)
    engine.write(REGISTERS["rip"], handler)
    return True


def _gate(
    engine: Engine, ram: GuestMemory, vector: int, form: Struct
) -> tuple[int, int, int, int] | None:
    """(handler, selector, stack table entry, kind) of a gate; None: there is no good one."""
    table = engine.read_table(IDTR)
    if vector * form.size + form.size - 1 > table.limit:
        return None
    raw = read_linear(engine, ram, table.base + vector * form.size, form.size)
    if raw is None:
        return None
    low, selector, stack, flags, middle, *high = form.unpack(raw)
    kind = flags & 0xF
    if not flags & PRESENT or kind not in (INTERRUPT_GATE, TRAP_GATE):
        return None
    handler = low | middle << 16 | (high[0] << 32 if high else 0)
    return handler, selector, stack & 7, kind


def _push64(engine: Engine, ram: GuestMemory, stack: int, code: int | None) -> bool:
    names = ("rip", "cs", "rflags", "rsp", "ss")
    frame = [engine.read(REGISTERS[name]) for name in names]
    top: int | None = frame[3]
    if stack:
        entry = engine.read_table(TR).base + IST_IN_TSS + 8 * stack
        raw = read_linear(engine, ram, entry, 8)
        top = None if raw is None else int.from_bytes(raw, "little")
    if top is None:
        return False
    words = frame if code is None else [code, *frame]
    return _write_frame(engine, ram, (top & ~15) - 8 * len(words), words, 8)


def _push32(engine: Engine, ram: GuestMemory, stack: int, code: int | None) -> bool:
    frame = [engine.read(REGISTERS[name]) & 0xFFFF_FFFF for name in ("rip", "cs", "rflags")]
    words = frame if code is None else [code, *frame]
    top = (engine.read(REGISTERS["rsp"]) - 4 * len(words)) & 0xFFFF_FFFF
    return _write_frame(engine, ram, top, words, 4)


def _write_frame(engine: Engine, ram: GuestMemory, top: int, words: list[int], size: int) -> bool:
    """Writes what an event pushes, in words of `size` bytes, and moves the stack to it."""
    if not write_linear(engine, ram, top, b"".join(w.to_bytes(size, "little") for w in words)):
        return False
    engine.write(REGISTERS["rsp"], top)
    return True


# -- Registers -------------------------------------------------------------------------------


def leave_long_mode(engine: Engine) -> None:
    """From the library's own beginning, half in long mode, to protected mode without paging.

    Only the change of CR0 with EFER set clears the hidden bits that say "64-bit code".
    """
    engine.write(REGISTERS["cr4"], PAE)
    engine.write_msr(EFER, LME)
    engine.write(REGISTERS["cr0"], LONG_MODE_CR0)
    engine.write(REGISTERS["cr0"], PROTECTED_CR0)
    engine.write(REGISTERS["cr4"], 0)
    engine.write_msr(EFER, 0)


def write_registers(engine: Engine, registers: Registers) -> None:
    """Sets all registers; segments as MOV would, from the table in guest memory."""
    for name in ("cr2", "cr3", "cr4"):
        engine.write(REGISTERS[name], getattr(registers, name))
    engine.write_msr(EFER, registers.efer & ~LMA)
    engine.write(REGISTERS["cr0"], registers.cr0)
    for register, base, limit in (
        (GDTR, registers.gdt_base, registers.gdt_limit),
        (IDTR, registers.idt_base, registers.idt_limit),
    ):
        engine.write_table(register, Table(0, base, limit, 0))
    task = registers.tr
    engine.write_table(TR, Table(task.selector, task.base, task.limit, task.flags << 8))
    for name in ("cs", *DATA_SEGMENTS):
        segment = getattr(registers, name)
        engine.write(REGISTERS[name], segment.selector)
    for name in GENERAL:
        engine.write(REGISTERS[name], getattr(registers, name))


def read_registers(engine: Engine, ram: GuestMemory) -> Registers:
    """A copy of all registers; what is hidden of a segment is read from its table again."""
    out = Registers()
    for name in (*GENERAL, "cr0", "cr2", "cr3", "cr4"):
        setattr(out, name, engine.read(REGISTERS[name]))
    out.efer = engine.read_msr(EFER)
    gdt, idt, task = (engine.read_table(register) for register in (GDTR, IDTR, TR))
    out.gdt_base, out.gdt_limit = gdt.base, gdt.limit
    out.idt_base, out.idt_limit = idt.base, idt.limit
    for name in ("cs", *DATA_SEGMENTS):
        selector = engine.read(REGISTERS[name])
        setattr(out, name, _segment(engine, ram, selector, out))
    out.fs.base, out.gs.base = (engine.read(REGISTERS[n]) for n in ("fs_base", "gs_base"))
    out.tr = Segment(task.selector, task.base, task.limit, task.flags >> 8)
    return out


def _segment(engine: Engine, ram: GuestMemory, selector: int, out: Registers) -> Segment:
    if not out.cr0 & PE:
        return Segment(selector, selector << 4, 0xFFFF, 0x9300)
    raw = read_linear(engine, ram, out.gdt_base + (selector & ~7), 8)
    if raw is None or not selector & ~7:
        return Segment(selector)
    word = int.from_bytes(raw, "little")
    limit, flags = word & 0xFFFF | word >> 32 & 0xF_0000, word >> 40 & 0xF0FF
    if flags & 0x8000:
        limit = limit << 12 | 0xFFF
    return Segment(selector, word >> 16 & 0xFF_FFFF | word >> 32 & 0xFF00_0000, limit, flags << 8)
