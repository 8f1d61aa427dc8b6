# SPDX-License-Identifier: GPL-2.0-only
"""Kernels: what is loaded, and what is refused with which words."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from miniqemu.machine.elf import Kernel, KernelError, load_kernel
from tests.support import tiny_guest

Patch = Callable[[bytearray], None]


def kernel_of(tmp_path: Path, data: bytes) -> Kernel:
    path = tmp_path / "kernel"
    path.write_bytes(data)
    return load_kernel(str(path))


def put(at: int, layout: str, *values: int) -> Patch:
    """A change of the file: values at an offset."""
    return lambda data: struct.pack_into(f"<{layout}", data, at, *values)


LOAD, NOTE, NOTES = 64, 64 + 56, 64 + 112


def test_a_kernel_has_its_entry_and_its_segments(tmp_path: Path) -> None:
    kernel = kernel_of(tmp_path, tiny_guest.elf(b"code", memsz=100))
    assert kernel.entry == tiny_guest.BASE
    (segment,) = kernel.segments
    assert (segment.paddr, segment.data, segment.memsz) == (tiny_guest.BASE, b"code", 100)


def test_notes_before_the_right_one_are_passed_over(tmp_path: Path) -> None:
    data = bytearray(tiny_guest.elf(b"code"))
    notes = struct.pack("<III4s8s", 4, 5, 3, b"GNU\0", b"12345") + bytes(data[NOTES:][:20])
    struct.pack_into("<QQQQQ", data, NOTE + 8, len(data), 0, 0, len(notes), len(notes))
    assert kernel_of(tmp_path, bytes(data) + notes).entry == tiny_guest.BASE


@pytest.mark.parametrize(
    ("patch", "cause"),
    [
        (put(0, "I", 0), "not an ELF file"),
        (put(4, "B", 1), "not an ELF file for x86-64"),
        (put(5, "B", 2), "not an ELF file for x86-64"),
        (put(18, "H", 183), "not an ELF file for x86-64"),
        (put(16, "H", 1), "e_type 1: not an executable"),
        (put(54, "H", 32), "e_phentsize 32 is not 56"),
        (put(56, "H", 0xFFFF), "e_phnum 65535 > 128"),
        (put(56, "H", 128), "program headers: 0x40 + 0x1c00 bytes is past the end"),
        (put(32, "Q", 2**63), "program headers: 0x8000000000000000 + 0x70 bytes is past the end"),
        (put(LOAD + 8, "Q", 2**40), "program header 0: 0x10000000000 \\+ .* past the end"),
        (put(LOAD + 32, "Q", 2**40), "program header 0: p_filesz 0x10000000000 > p_memsz"),
        (put(LOAD, "I", 6), "no PT_LOAD program header"),
        (put(LOAD + 40, "Q", 0), "no PT_LOAD program header"),
        (put(NOTE + 32, "Q", 2**30), "program header 1: p_filesz 0x40000000 of notes is too large"),
        (put(NOTE + 8, "Q", 2**30), "program header 1: .* past the end"),
        (put(NOTE, "I", 6), "no PVH note"),
        (put(NOTES + 8, "I", 17), "no PVH note"),
        (put(NOTES + 12, "I", 0), "no PVH note"),
        (put(NOTES, "I", 2**31), "a note of 0x80000000 \\+ 0x4 bytes is cut off"),
        (put(NOTES + 4, "I", 2**32 - 1), "a note of 0x4 \\+ 0xffffffff bytes is cut off"),
        (put(NOTES + 4, "I", 2), "PVH note: the entry has 2 bytes, not 4 or 8"),
    ],
)
def test_a_field_that_lies_is_named(tmp_path: Path, patch: Patch, cause: str) -> None:
    data = bytearray(tiny_guest.elf(b"code"))
    patch(data)
    with pytest.raises(KernelError, match=cause.replace(" + ", r" \+ ")) as caught:
        kernel_of(tmp_path, bytes(data))
    message = str(caught.value)
    assert message.startswith(f"-kernel {tmp_path}/kernel: ")
    assert "\n" not in message


@pytest.mark.parametrize("length", [0, 3, 4, 63])
def test_a_file_that_is_cut_off_in_the_header_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(KernelError, match=r"not an ELF file|the ELF header is cut off"):
        kernel_of(tmp_path, tiny_guest.elf(b"code")[:length])


def test_a_file_that_is_missing_or_a_directory_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"^-kernel /nowhere/k: No such file or directory$"):
        load_kernel("/nowhere/k")
    with pytest.raises(KernelError, match="Is a directory"):
        load_kernel(str(tmp_path))


def test_random_damage_gives_a_kernel_or_a_clean_error(tmp_path: Path) -> None:
    chance = random.Random(1)
    good = tiny_guest.elf(os.urandom(64))
    outcomes = {True: 0, False: 0}
    for _ in range(2000):
        data = bytearray(good[: chance.randrange(len(good) + 1)] or good)
        for _ in range(chance.randrange(4)):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        try:
            kernel_of(tmp_path, bytes(data))
            outcomes[True] += 1
        except KernelError:
            outcomes[False] += 1
    assert all(outcomes.values())
