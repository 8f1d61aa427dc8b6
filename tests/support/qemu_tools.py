# SPDX-License-Identifier: GPL-2.0-only
"""The real QEMU's tools, for tests that let them judge our images."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support import needs


def qemu(program: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a tool of QEMU's to its end."""
    command = [needs.program(program), *map(os.fspath, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def qemu_done(program: str, *words: str | Path) -> str:
    """As qemu, of what must succeed; returns what it said."""
    done = qemu(program, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def is_clean(image: Path, fmt: str) -> None:
    """`qemu-img check` finds neither errors nor leaks."""
    qemu_done("qemu-img", "check", "-f", fmt, image)


def holds(image: Path, data: bytes | bytearray, fmt: str) -> None:
    """`qemu-img compare` finds the same bytes."""
    reference = image.with_suffix(".reference")
    reference.write_bytes(data)
    qemu_done("qemu-img", "compare", "-f", fmt, "-F", "raw", image, reference)
