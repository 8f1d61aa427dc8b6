# SPDX-License-Identifier: GPL-2.0-only
"""The inputs that the fuzzers begin with, in words; `python -m tests.fuzz.seeds` writes them.

A seed is something sensible: the fuzzer finds by itself how to spoil it. The files in corpus/ are
committed, and a test compares.
"""

from __future__ import annotations

from pathlib import Path

from miniqemu.hw import virtio_mmio as mmio
from miniqemu.hw.virtio_blk_layout import (
    T_DISCARD,
    T_FLUSH,
    T_GET_ID,
    T_IN,
    T_OUT,
    T_WRITE_ZEROES,
)
from tests.fuzz.virtio_blk import INSTRUCTION, OPERATIONS, REGISTERS

CORPUS = Path(__file__).parent / "corpus"
HEADERS, SEGMENTS, DATA, STATUS, TABLE = 0x4000, 0x4100, 0x5000, 0x6000, 0x3000
NEXT, WRITE, INDIRECT = 1, 2, 4
L16, L1, L512, L4096, L32 = (0x8000 | number << 3 for number in (0, 1, 2, 3, 6))
IN_TABLE = 2 << 3  # of the instruction `descriptor`: in the first indirect table


def op(name: str, a: int = 0, b: int = 0, c: int = 0) -> bytes:
    """One instruction."""
    return INSTRUCTION.pack(OPERATIONS.index(name), a, b, c)


def reg(offset: int, value: int) -> bytes:
    """A store to a register."""
    return op("write_register", REGISTERS.index(offset), 0, value)


def desc(number: int, addr: int, length: int, flags: int, following: int = 0) -> bytes:
    """A descriptor; `length` is one of the L..."""
    return op("descriptor", number, length | flags | following << 6, addr)


START, GO = op("start"), op("available") + op("kick")


def simple(kind: int, data: bytes = b"", sector: int = 1) -> bytes:
    """A request of header, data (descriptor 1, if any) and status."""
    first = desc(0, HEADERS, L16, NEXT, 1 if data else 2)
    return op("header", 0, kind, sector) + first + data + desc(2, STATUS, L1, WRITE) + GO


READ = simple(T_IN, desc(1, DATA, L512, NEXT | WRITE, 2))
WROTE = simple(T_OUT, desc(1, DATA, L4096, NEXT, 2))
ZEROES = simple(T_WRITE_ZEROES, op("segment", 0, 4 << 2, 8) + desc(1, SEGMENTS, L16, NEXT, 2))
DISCARD = simple(T_DISCARD, op("segment", 0, 4 << 2, 8) + desc(1, SEGMENTS, L16, NEXT, 2))
INDIRECTLY = (
    op("header", 0, T_IN, 2)
    + desc(IN_TABLE, HEADERS, L16, NEXT, 1)
    + desc(IN_TABLE | 1, DATA, L1, WRITE)
    + desc(0, TABLE, L32, INDIRECT)
    + GO
)
TWO_WRITES = (
    op("header", 0, T_OUT, 1)
    + op("header", 1, T_OUT, 2)
    + desc(0, HEADERS, L16, NEXT, 1)
    + desc(1, DATA, L512, NEXT, 2)
    + desc(2, STATUS, L1, WRITE)
    + desc(3, HEADERS + 16, L16, NEXT, 4)
    + desc(4, DATA + 512, L512, NEXT, 5)
    + desc(5, STATUS + 1, L1, WRITE)
    + op("available", 0, 0)
    + op("available", 0, 3)
    + op("kick")
)
QUEUE_0 = reg(mmio.QUEUE_SEL, 0)

VIRTIO_BLK = {
    "read": START + READ,
    "write": START + WROTE + READ,
    "two-neighbours": START + TWO_WRITES,
    "flush": START + simple(T_FLUSH),
    "get-id": START + simple(T_GET_ID, desc(1, DATA, L32, NEXT | WRITE, 2)),
    "discard": START + DISCARD,
    "zeroes": START + ZEROES,
    "indirect": START + INDIRECTLY,
    "without-event-idx": op("start", 2) + READ + op("ring_flags", 0, 1, 0) + WROTE,
    "parked": START + op("disk_parks", 1) + READ + op("disk_parks", 0) + op("poll", 3),
    "reset-in-flight": START + op("disk_parks", 1) + READ + reg(mmio.STATUS, 0),
    "queue-away": START + op("disk_parks", 1) + READ + QUEUE_0 + reg(mmio.QUEUE_READY, 0),
    "queue-moves": START + QUEUE_0 + reg(mmio.QUEUE_READY, 0) + reg(mmio.QUEUE_NUM, 4)
    + reg(mmio.QUEUE_READY, 1) + READ,
    "error": START + op("disk_fails", 0, 1) + READ,
    "stop-for-an-error": START + op("disk_fails", 3, 3) + WROTE + op("disk_fails", 3, 0)
    + op("stop_or_go", 0) + op("stop_or_go", 1) + op("poll", 3),
    "stop-and-go": START + op("stop_or_go", 0) + READ + op("stop_or_go", 1) + op("poll", 3),
    "second-queue": START + op("available", 1) + op("kick", 1),
    "index": START + op("available_index", 0, 8) + op("kick"),
    "configuration": START + op("read_any", 3, 0x100) + op("write_any", 0, 0x120, 0),
    "poke": START + op("poke", 0, 0x1008, 0x0001_0001_0000_0010) + GO,
}  # fmt: skip


def write() -> None:
    """Writes the seeds to their files."""
    folder = CORPUS / "virtio_blk"
    folder.mkdir(parents=True, exist_ok=True)
    for name, program in VIRTIO_BLK.items():
        (folder / name).write_bytes(program)


if __name__ == "__main__":
    write()
