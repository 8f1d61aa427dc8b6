# SPDX-License-Identifier: GPL-2.0-only
"""Where standard output or standard error cannot be written, the tools do their work all the same.

Whoever reads a pipe may leave when he has seen enough: no failure, as scripts that end in `| head`
have it from QEMU's tools. A full disk is told, once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import block
from tests.support import needs

pytestmark = needs.linux()

BIN = Path(__file__).parents[3] / "bin"
FULL = "standard output: No space left on device\n"
LINES = {
    "info": "img info disk.qcow2",
    "a map": "img map --output=json disk.qcow2",
    "snapshots": "img snapshot -l disk.qcow2",
    "help": "img --help",
    "a request": "io -c 'read -v 0 64k' -c 'write -P 7 0 512' -f raw disk.raw",
    "a script": "io -f raw disk.raw <script",
    "a short answer": "io -c 'write -q -P 7 0 512' -c length -f raw disk.raw",
}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("disk.raw").write_bytes(bytes(65536))
    Path("script").write_text("read -v 0 64k\nwrite -P 7 0 512\n")
    block.create("disk.qcow2", "qcow2", "1M")
    run("img snapshot -c monday disk.qcow2")
    return tmp_path


def run(line: str, redirect: str = "", stdout: int = subprocess.PIPE) -> tuple[int, str, str]:
    """How a tool ends, and what it says; called through the shell."""
    done = subprocess.run(
        f"{sys.executable} {BIN}/miniqemu-{line} {redirect}",
        shell=True, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout or "", done.stderr


def is_written() -> bool:
    """Whether the request after the one that says so much is done."""
    return Path("disk.raw").read_bytes()[:513] == b"\7" * 512 + b"\0"


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_full_disk_is_told_once(work: Path, line: str) -> None:
    program = line.split()[0]
    assert run(line, ">/dev/full") == (1, "", f"miniqemu-{program}: {FULL}")
    assert is_written() == (program == "io")


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_reader_who_has_left_is_no_failure(work: Path, line: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert run(line, stdout=writer) == (0, "", "")
    os.close(writer)
    assert is_written() == line.startswith("io")


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_standard_output_may_be_closed(work: Path, line: str) -> None:
    assert run(line, ">&-") == (0, "", "")
    assert is_written() == line.startswith("io")


@pytest.mark.parametrize("redirect", ["2>/dev/full", "2>&-"])
def test_a_warning_that_nobody_hears_stops_nothing(work: Path, redirect: str) -> None:
    assert run("io -c length disk.raw", redirect) == (0, "64 KiB\n", "")
    assert run("img resize disk.raw 1M", redirect) == (0, "Image resized.\n", "")
    assert run("img info nothing", redirect)[:2] == (1, "")
