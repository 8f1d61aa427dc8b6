# SPDX-License-Identifier: GPL-2.0-only
"""A disk of 1 TiB costs the memory of what is on its way, not what its length suggests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import block
from tests.support import needs

MIB = 1 << 20
PIECES = 96
# VmHWM belongs to what the process is now; getrusage also knows what it was before exec.
SCRIPT = """
import re, sys
from miniqemu.cli.img.main import main
assert main(["miniqemu-img", *sys.argv[1:]]) == 0
print(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
"""


@needs.linux()
@pytest.mark.parametrize("packing", [[], ["-c"]], ids=["plain", "packed"])
def test_a_sparse_disk_of_a_tebibyte_is_converted_in_150_megabytes(
    tmp_path: Path, packing: list[str]
) -> None:
    source, target = os.fspath(tmp_path / "huge.qcow2"), os.fspath(tmp_path / "copy.qcow2")
    block.create(source, "qcow2", 1 << 40)
    step = (1 << 40) // PIECES // MIB * MIB
    with block.open(source, format="qcow2", cache="unsafe") as disk:
        for number in range(PIECES):
            disk.pwrite(number * step, bytes([number + 1]) * MIB)
    words = ["convert", *packing, "-f", "qcow2", "-O", "qcow2", source, target]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 < 150e6
    with block.open(target, format="qcow2", read_only=True) as copy:
        assert copy.length == 1 << 40
        for number in (0, 1, PIECES - 1):
            assert copy.pread(number * step, MIB) == bytes([number + 1]) * MIB
        assert copy.pread(step - 4096, 4096) == bytes(4096)
