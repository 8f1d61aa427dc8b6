# SPDX-License-Identifier: GPL-2.0-only
"""Guests of a few bytes: machine code by hand, and an ELF file with a PVH note around it.

The code starts in 32-bit protected mode, flat segments, EBX = hvm_start_info, no stack.
"""

from __future__ import annotations

import struct
from pathlib import Path

BASE = 0x10_0000
UD2 = bytes.fromhex("0f 0b")
HLT = b"\xf4"
CLI = b"\xfa"
LOOP_FOR_EVER = bytes.fromhex("eb fe")
# Without an IDT the first exception becomes a double fault, and that a triple fault.
TRIPLE_FAULT = UD2
PRINT_COMMAND_LINE = bytes.fromhex(
    "8b 73 18"  # mov esi, [ebx + 24]   cmdline_paddr
    "66 ba f8 03"  # mov dx, 0x3f8
    "ac"  # next: lodsb
    "84 c0"  # test al, al
    "74 03"  # jz done
    "ee"  # out dx, al
    "eb f8"  # jmp next
)


def say(text: str) -> bytes:
    """Code that writes a text to the serial port, byte by byte."""
    set_port = bytes.fromhex("66 ba f8 03")  # mov dx, 0x3f8
    return set_port + b"".join(b"\xb0" + bytes((char,)) + b"\xee" for char in text.encode())


def out(port: int, value: int) -> bytes:
    """Code that writes one byte to a port: mov dx, port; mov al, value; out dx, al."""
    return b"\x66\xba" + struct.pack("<H", port) + b"\xb0" + bytes((value,)) + b"\xee"


def store(address: int, value: int) -> bytes:
    """Code that writes 32 bits to memory: mov dword [address], value."""
    return b"\xc7\x05" + struct.pack("<II", address, value)


def load(address: int) -> bytes:
    """Code that reads 32 bits from memory into EAX: mov eax, [address]."""
    return b"\xa1" + struct.pack("<I", address)


def for_ever(code: bytes) -> bytes:
    """Code again and again: code; jmp code."""
    return code + b"\xe9" + struct.pack("<i", -len(code) - 5)


def two_vcpus(first: bytes, second: bytes) -> bytes:
    """Code for two processors: the first starts the second by INIT and SIPI, then does its own.

    The second begins in real mode at 0x8000: lgdt, protected mode, flat segments, and to `second`.
    """
    icr_high, icr_low = 0xFEE0_0310, 0xFEE0_0300
    wake = store(icr_high, 1 << 24) + store(icr_low, 0x4500) + store(icr_low, 0x4608)
    gdt = struct.pack("<QQQ", 0, 0x00CF_9A00_0000_FFFF, 0x00CF_9200_0000_FFFF)
    size = len(_placed(0x8000, bytes(24))) + len(_placed(0x8100, bytes(40))) + len(wake)
    target = BASE + size + len(first)
    trampoline = bytes.fromhex("0f 01 16 00 81  0f 20 c0  0c 01  0f 22 c0  66 ea")
    trampoline += struct.pack("<IH", target, 8)
    table = struct.pack("<HI10x", len(gdt) - 1, 0x8110) + gdt
    flat = bytes.fromhex("66 b8 10 00  8e d8")  # mov ax, 16; mov ds, ax
    return _placed(0x8000, trampoline) + _placed(0x8100, table) + wake + first + flat + second


def _placed(address: int, data: bytes) -> bytes:
    """Code that writes data to memory."""
    words = struct.unpack(f"<{-(-len(data) // 4)}I", data.ljust(-(-len(data) // 4) * 4, b"\0"))
    return b"".join(store(address + 4 * number, word) for number, word in enumerate(words))


def power_off(verdict: int) -> bytes:
    """Code that ends the machine with a verdict, by the port 0xf4 and a triple fault."""
    return out(0xF4, verdict) + TRIPLE_FAULT


def elf(code: bytes, *, base: int = BASE, memsz: int | None = None, note: bool = True) -> bytes:
    """An ELF64 file with `code` at `base`, which is also its PVH entry."""
    notes = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", base) if note else b""
    at = 64 + 2 * 56
    code_at = at + len(notes)
    ehdr = struct.pack(
        "<4sBBB9xHHIQQQIHHHHHH",
        *(b"\x7fELF", 2, 1, 1, 2, 62, 1, base, 64, 0, 0, 64, 56, 2, 64, 0, 0),
    )
    size = len(code)
    load_ = struct.pack("<IIQQQQQQ", 1, 7, code_at, base, base, size, memsz or size, 4)
    note_ = struct.pack("<IIQQQQQQ", 4, 4, at, 0, 0, len(notes), len(notes), 4)
    return ehdr + load_ + note_ + notes + code


def write_elf(path: Path, code: bytes) -> str:
    """Writes such a file and returns its name."""
    path.write_bytes(elf(code))
    return str(path)
