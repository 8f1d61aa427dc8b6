# SPDX-License-Identifier: GPL-2.0-only
"""What the library knows of an exception and does not tell: the error code, and the one before it.

A processor that has a second exception while it delivers the first makes a double fault of the two.
The library keeps the first for that purpose, but never learns that we have delivered it; the next
page fault of a kernel, an hour later, would arrive as a double fault. Error code and last
exception lie in its saved context, at offsets that differ between versions.

So the offsets are measured: two engines of our own run into a page fault each, one reading and one
writing, and a third one into none. The error code is where they say 0 and 2; the last exception is
where both say 14 and the third does not.

Rules:
R1  Measured once in a process, when the first exception happens: 20 ms that most guests never pay.
R2  Where the offsets are not certain there are none: the error code is 0, a double fault stays one.
"""

from __future__ import annotations

from struct import Struct, pack

from miniqemu.accel import x86_events
from miniqemu.accel.libunicorn import REGISTERS, Engine

CODE, DIRECTORY, NOWHERE, SIZE = 0x1000, 0x2000, 0x80_0000, 0x4000
READ_NOWHERE = b"\x8b\x05" + pack("<I", NOWHERE) + b"\xf4"  # mov eax, [NOWHERE]; hlt
WRITE_NOWHERE = b"\x89\x05" + pack("<I", NOWHERE) + b"\xf4"  # mov [NOWHERE], eax; hlt
NOTHING = b"\x90" * 6 + b"\xf4"
PAGE_FAULT, WRITE_ERROR, NO_EXCEPTION = 14, 2, -1
PRESENT_WRITABLE_LARGE, PSE, CR0 = 0x83, 0x10, 0x8000_0011
WORD = Struct("<i")

_offsets: tuple[int, int] | None = None
_measured = False


def take(engine: Engine) -> int:
    """The error code of the exception that stopped the engine, which then forgets it."""
    where = offsets()
    if where is None:
        return 0
    error_at, last_at = where
    context = bytearray(engine.save_context())
    error: int = WORD.unpack_from(context, error_at)[0]
    WORD.pack_into(context, last_at, NO_EXCEPTION)
    engine.restore_context(bytes(context))
    return error & 0xFFFF_FFFF


def offsets() -> tuple[int, int] | None:
    """Where the error code and the last exception are in a context (R1, R2)."""
    global _offsets, _measured
    if not _measured:
        _offsets, _measured = _measure(), True
    return _offsets


def _measure() -> tuple[int, int] | None:
    read, write, none = (_context_after(code) for code in (READ_NOWHERE, WRITE_NOWHERE, NOTHING))
    errors, lasts = [], []
    for at in range(0, len(read) - 3, 4):
        a, b, c = (WORD.unpack_from(context, at)[0] for context in (read, write, none))
        if (a, b, c) == (0, WRITE_ERROR, 0):
            errors.append(at)
        elif a == b == PAGE_FAULT != c:
            lasts.append(at)
    return (errors[0], lasts[0]) if len(errors) == len(lasts) == 1 else None


def _context_after(code: bytes) -> bytes:
    """The context of a new engine that has run `code`, with 4 MiB of addresses that exist."""
    memory = bytearray(SIZE)
    memory[CODE : CODE + len(code)] = code
    memory[DIRECTORY : DIRECTORY + 4] = pack("<I", PRESENT_WRITABLE_LARGE)
    engine = Engine()
    try:
        engine.map_ram(0, memoryview(memory))
        engine.hook_exceptions(lambda handle, vector, data: setattr(engine.cell, "flag", 1))
        x86_events.leave_long_mode(engine)
        for name, value in (("cr3", DIRECTORY), ("cr4", PSE), ("cr0", CR0)):
            engine.write(REGISTERS[name], value)
        engine.start(CODE)
        return engine.save_context()
    finally:
        engine.close()
