# SPDX-License-Identifier: GPL-2.0-only
"""The real QEMU's tools, for tests that let them judge our images."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support import needs


def qemu(
    program: str, *words: str | bytes | Path, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a tool of QEMU's to its end, in a folder if there is need.

    It is called by its bare name, with which its complaints about options begin.
    """
    needs.program(program)
    return subprocess.run(
        [program, *map(os.fspath, words)], cwd=cwd, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, errors="surrogateescape", timeout=60, check=False,
    )  # fmt: skip


def qemu_done(program: str, *words: str | bytes | Path, cwd: Path | None = None) -> str:
    """As qemu, of what must succeed; returns what it said."""
    done = qemu(program, *words, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def qemu_img(*words: str | bytes | Path) -> str:
    """As qemu_done, of qemu-img."""
    return qemu_done("qemu-img", *words)


def qemu_io(fmt: str, name: str, *commands: str) -> str:
    """As qemu_done, of qemu-io, which does some commands to an image."""
    words = [word for command in commands for word in ("-c", command)]
    return qemu_done("qemu-io", "-f", fmt, *words, name)


def is_clean(image: Path, fmt: str) -> None:
    """`qemu-img check` finds neither errors nor leaks."""
    qemu_done("qemu-img", "check", "-f", fmt, image)


def holds(image: Path, data: bytes | bytearray, fmt: str) -> None:
    """`qemu-img compare` finds the same bytes."""
    reference = image.with_suffix(".reference")
    reference.write_bytes(data)
    qemu_done("qemu-img", "compare", "-f", fmt, "-F", "raw", image, reference)
