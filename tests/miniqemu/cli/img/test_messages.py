# SPDX-License-Identifier: GPL-2.0-only
"""What miniqemu-img says to a wrong command line, and what it refuses by name."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from miniqemu.cli.img import info
from miniqemu.cli.img import main as img
from miniqemu.cli.img.common import size_to_str

ROOT = Path(__file__).parents[4]


def run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = img.main(["prog", *words])
    said = capfd.readouterr()
    return status, said.out, said.err


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "Not enough arguments"),
        ("nothing", "Command not found: nothing"),
        ("-q", "unrecognized option '-q'"),
        ("--trace", "missing argument for option '--trace'"),
        ("info", "Expecting one image file name"),
        ("info -x a", "unrecognized option '-x'"),
        ("map -s", "missing argument for option '-s'"),
        ("compare a", "Expecting two image file names"),
        ("create", "Expecting image file name"),
        ("create x 1M 2M", "Unexpected argument: 2M"),
    ],
)
def test_a_line_that_cannot_be_meant_gets_advice(
    capfd: pytest.CaptureFixture[str], line: str, complaint: str
) -> None:
    advice = "Try 'prog --help' for more information"
    assert run(capfd, *line.split()) == (1, "", f"prog: {complaint}\n{advice}\n")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("-T all info x", "option '--trace' is not available in this version of miniqemu"),
        (
            "info --object tls-creds-psk,id=a x",
            "object 'tls-creds-psk' is not available in this version of miniqemu",
        ),
    ],
)
def test_what_is_not_there_yet_is_refused_by_name(
    capfd: pytest.CaptureFixture[str], line: str, complaint: str
) -> None:
    assert run(capfd, *line.split()) == (1, "", f"prog: {complaint}\n")


@pytest.mark.parametrize("line", ["-h", "--help", "info -h", "map --help", "compare --he"])
def test_help_tells_all_commands(capfd: pytest.CaptureFixture[str], line: str) -> None:
    status, out, err = run(capfd, *line.split())
    assert (status, err) == (0, "")
    assert "usage: prog [standard options] command [command options]\n" in out
    for command in img.COMMANDS:
        assert f"\n  {command} " in out
    assert "Supported formats: blkdebug" in out


def test_the_version_is_that_of_the_tool_it_is_like(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "--version") == (0, "prog version 7.2.0 (miniqemu 0.1.0)\n", "")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1023 << 10, "0.999 MiB"),
        (10 << 20, "10 MiB"),
        (12345678901, "11.5 GiB"),
        ((1 << 63) - 512, "8 EiB"),
    ],
)
def test_sizes_are_told_in_three_digits(size: int, text: str) -> None:
    assert size_to_str(size) == text


def test_the_script_runs_the_tool_by_whatever_name(tmp_path: Path) -> None:
    link = tmp_path / "qemu-img"
    link.symlink_to(ROOT / "bin" / "miniqemu-img")
    code = f"import runpy, sys; sys.argv = [{str(link)!r}, 'info']; runpy.run_path({str(link)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == 1
    assert done.stderr.startswith("qemu-img: Expecting one image file name\n")


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError(errno.EMFILE, ""), "Too many open files"), (MemoryError(), "Cannot allocate memory")],
)
def test_what_this_process_lacks_is_told(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
) -> None:
    monkeypatch.setattr(info, "run", Mock(side_effect=error))
    assert run(capfd, "info", "x") == (1, "", f"prog: {reason}\n")


def test_nobody_waits_for_a_benchmark_without_requests_in_flight(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run(capfd, "bench", "-d", "0", "x") == (1, "", "prog: Invalid queue depth specified\n")


def test_an_object_lives_as_long_as_its_command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "disk").write_bytes(bytes(512))
    line = ("info", "--object", "secret,id=a,data=x", "-f", "raw", os.fspath(tmp_path / "disk"))
    assert run(capfd, *line)[0] == 0
    assert run(capfd, *line)[0] == 0
    twice = "attempt to add duplicate property 'a' to object (type 'container')"
    assert run(capfd, *line[:3], *line[1:]) == (1, "", f"prog: {twice}\n")
    assert run(capfd, *line)[0] == 0
