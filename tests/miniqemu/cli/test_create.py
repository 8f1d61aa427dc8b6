# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu create` beside `qemu-img create`: the same line, the same words, the same file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import block
from miniqemu.cli import miniqemu
from tests.support.qemu_tools import qemu

LINES = {
    "raw": "-f raw x 5M",
    "default": "x 1M",
    "qcow2": "-f qcow2 x 1M",
    "qed": "-f qed -o table_size=2 x 1M",
    "options": "-f qcow2 -o preallocation=metadata,cluster_size=4k x 1M",
    "two -o": "-f qcow2 -o cluster_size=512 -o compat=0.10 x 1M",
    "size in -o": "-f qcow2 -o size=3M x",
    "backing": "-f qcow2 -b base.raw -F raw x",
    "backing and size": "-f qcow2 -F raw x -b base.raw 7M",
    "unsafe": "-u -f qcow2 -b no.raw -F raw x 1M",
    "quiet": "-q -f qcow2 x 1M",
    "no size": "-f qcow2 x",
    "no such format": "-f foo x 1M",
    "raw with backing": "-f raw -b base.raw x 1M",
    "no such option": "-f qcow2 -o foo=1 x 1M",
    "itself": "-f qcow2 -b x -F raw x 1M",
    "no backing": "-f qcow2 -b no.raw -F raw x",
    "wrong backing format": "-f qcow2 -b base.raw -F foo x 1M",
    "bad size": "-f qcow2 x 1Z",
    "no directory": "-f raw nonexist/x 1M",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.raw").write_bytes(bytes(1 << 20))
    return tmp_path


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_it_says_and_makes_what_qemu_img_does(
    folder: Path, capfd: pytest.CaptureFixture[str], line: str
) -> None:
    status = miniqemu.main(["qemu-img", "create", *line.split()])
    mine = capfd.readouterr()
    made = (folder / "x").read_bytes() if (folder / "x").exists() else None
    (folder / "x").unlink(missing_ok=True)
    theirs = qemu("qemu-img", "create", *line.split())
    assert (status, mine.out, mine.err) == (theirs.returncode, theirs.stdout, theirs.stderr)
    assert made == ((folder / "x").read_bytes() if (folder / "x").exists() else None)


def test_without_a_backing_format_the_guess_is_told(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert miniqemu.main(["prog", "create", "-f", "qcow2", "-b", "base.raw", "x", "1M"]) == 1
    assert capfd.readouterr().err == (
        "prog: x: Backing file specified without backing format\nDetected format of raw.\n"
    )


def test_an_overlay_is_made_while_somebody_writes_below_it(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    block.create("base.qcow2", "qcow2", "1M")
    with block.open("base.qcow2", format="qcow2") as disk:
        disk.pwrite(0, b"a guest's")
        line = "create -q -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2"
        assert (miniqemu.main(["prog", *line.split()]), *capfd.readouterr()) == (0, "", "")


def test_a_line_that_is_none_is_refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for line, complaint in (
        ("", "Expecting image file name"),
        ("x 1M 2M", "Unexpected argument: 2M"),
        ("-z x 1M", "unrecognized option '-z'"),
    ):
        assert miniqemu.main(["prog", "create", *line.split()]) == 1
        advice = "Try 'prog --help' for more information"
        assert capfd.readouterr().err == f"prog: {complaint}\n{advice}\n"


@pytest.mark.parametrize("line", ["--help", "-h", "-f qcow2 --help x 1M"])
def test_help_tells_how_the_command_is_used_and_makes_nothing(
    folder: Path, capfd: pytest.CaptureFixture[str], line: str
) -> None:
    assert miniqemu.main(["prog", "create", *line.split()]) == 0
    said = capfd.readouterr()
    assert said.out.startswith("usage: prog create [-q] [-u] [-f fmt] [-b backing_file")
    assert all(f"  '{flag}'" in said.out for flag in ("-f", "-F", "-b", "-o", "-q", "-u"))
    assert "  '--object'" in said.out
    assert max(map(len, said.out.splitlines())) <= 100
    assert said.err == ""
    assert not (folder / "x").exists()


def test_help_lists_the_options_of_the_format(capfd: pytest.CaptureFixture[str]) -> None:
    assert miniqemu.main(["prog", "create", "-f", "qcow2", "-o", "help"]) == 0
    said = capfd.readouterr().out
    assert said.startswith("Supported qcow2 options:\n  backing_file=<str>")
    assert "cluster_size=<size>    - qcow2 cluster size\n" in said


def test_a_start_of_the_machine_does_not_pay_for_it() -> None:
    program = (
        "import sys; from miniqemu.cli.miniqemu import main; main(['p', '--version']); "
        "sys.exit(' '.join(m for m in ('construct', 'miniqemu.cli.create', 'block.ops', "
        "'block.formats.qcow2', 'getopt') if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr.strip() == ""
