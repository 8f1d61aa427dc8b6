# SPDX-License-Identifier: GPL-2.0-only
"""A page of code that brings a new engine into real mode, where STARTUP wants a processor.

The library lets us set a segment register's selector in its 64-bit mode, but not what is hidden
behind it, and real mode needs just that: CS = 0x0800 with base 0x8000. So the processor does it by
itself, with the instructions that any kernel uses for the way back:

    32 bits: table, far jump  ->  16 bits: data segments, CR0.PE = 0, far jump to CS:IP

The page lies where a PC has its firmware, and nothing else ever runs there.
"""

from __future__ import annotations

from struct import pack

BASE, SIZE = 0xFFFF_F000, 0x1000
TABLE_AT, REGISTER_AT, CODE16_AT = 0x100, 0x120, 0x40
CODE16, DATA16 = 0x08, 0x10
GDT = pack("<3Q", 0, 0xFF00_9AFF_F000_FFFF, 0x0000_9200_0000_FFFF)  # code: base 0xfffff000


def page(selector: int, offset: int) -> bytes:
    """The page for a start at real-mode address selector:offset."""
    code32 = b"\x0f\x01\x15" + pack("<I", BASE + REGISTER_AT)  # lgdt [BASE + REGISTER_AT]
    code32 += b"\xea" + pack("<IH", CODE16_AT, CODE16)  # ljmp CODE16:CODE16_AT
    code16 = b"\xb8" + pack("<H", DATA16)  # mov ax, DATA16
    code16 += bytes.fromhex("8ed8 8ec0 8ed0 8ee0 8ee8")  # mov ds, ax; the same for es ss fs gs
    code16 += bytes.fromhex("0f20c0 24fe 0f22c0")  # mov eax, cr0; and al, ~1; mov cr0, eax
    code16 += bytes.fromhex("6631c0")  # xor eax, eax
    code16 += b"\xea" + pack("<HH", offset, selector)  # ljmp selector:offset
    out = code32.ljust(CODE16_AT, b"\xf4") + code16
    out = out.ljust(TABLE_AT, b"\xf4") + GDT
    out = out.ljust(REGISTER_AT, b"\xf4") + pack("<HI", len(GDT) - 1, BASE + TABLE_AT)
    return out.ljust(SIZE, b"\xf4")
