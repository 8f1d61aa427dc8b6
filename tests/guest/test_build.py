# SPDX-License-Identifier: GPL-2.0-only
"""The guest's ELF, by each compiler: it has PVH's note, uses no dear instruction, and runs."""

from __future__ import annotations

import importlib.util
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import needs
from tests.support.boot import GOOD, MINIQEMU_KVM, QEMU_TCG, ROOT, Disk, Vmm, boot

# Refused by a KVM that emulates ring 0 (int3 too, which is left out because it fills gaps), or a
# sign of registers that no handler saves.
FORBIDDEN = re.compile(
    r"(int|popcnt|[tl]zcnt|andn|bls\w+|rdtscp|xgetbv|xsave\w*|crc32\w*|cmpxchg16b|f\w+|v\w+)\s"
    r"|.*%[xyz]?mm\d"
)
PVH_NOTE = struct.pack("<III4s", 4, 8, 18, b"Xen")


@pytest.fixture(scope="module", params=["cc", pytest.param("zig", marks=pytest.mark.full)])
def elf(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest as one of the compilers makes it."""
    words = ["make", "-s", "-C", str(ROOT / "guest"), f"PYTHON={sys.executable}"]
    if request.param == "cc":
        needs.program("cc")
    else:
        words.append("CC=there-is-no-compiler")
        if importlib.util.find_spec("ziglang") is None:
            needs.lacking("ziglang", "pip install ziglang")
    path = tmp_path_factory.mktemp(request.param) / "guest.elf"
    subprocess.run([*words, f"ELF={path}"], check=True, timeout=100)
    return path


def test_it_has_a_note_that_names_its_entry(elf: Path) -> None:
    image = elf.read_bytes()
    (entry,) = struct.unpack_from("<Q", image, image.index(PVH_NOTE) + len(PVH_NOTE))
    (elf_entry,) = struct.unpack_from("<Q", image, 24)

    assert 0x100000 <= entry < 0x110000
    assert elf_entry == entry


def test_it_uses_no_instruction_that_may_be_refused(elf: Path) -> None:
    objdump = needs.program("objdump")
    command = [objdump, "-d", "--no-show-raw-insn", str(elf)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    code = [line.split("\t")[1] + " " for line in text.splitlines() if "\t" in line]

    assert any(instruction.startswith("lidt") for instruction in code)
    assert [instruction for instruction in code if FORBIDDEN.match(instruction)] == []


@pytest.mark.parametrize("vmm", [QEMU_TCG, MINIQEMU_KVM], ids=str)
def test_it_passes_its_self_test(vmm: Vmm, elf: Path, image: Path) -> None:
    assert boot(vmm, [Disk(image)], "selftest", elf=elf, smp=2).status == GOOD


def test_make_names_the_way_out_when_there_is_no_compiler(tmp_path: Path) -> None:
    python = tmp_path / "python-without-ziglang"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    words = ["make", "-C", str(ROOT / "guest"), "CC=there-is-no-compiler", f"PYTHON={python}"]

    done = subprocess.run(
        [*words, f"ELF={tmp_path}/guest.elf"], capture_output=True, text=True, check=False
    )

    assert done.returncode != 0
    assert "pip install ziglang" in done.stderr
