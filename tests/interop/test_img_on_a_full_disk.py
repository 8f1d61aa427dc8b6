# SPDX-License-Identifier: GPL-2.0-only
"""The disk is full in the middle of a command: one clear error, the sources as they were, and no
image, or one in which `qemu-img check` finds leaks at most.

Full it is by RLIMIT_FSIZE: no file can become longer than that, wherever the tests run.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.qemu_tools import qemu, qemu_done

pytestmark = pytest.mark.full
PROGRAM = Path(__file__).parents[2] / "bin" / "miniqemu-img"
MIB = 1 << 20
LIMITS = (0, 65536, 200_000, MIB, 2_000_000)
GOOD = (0, 3)  # of qemu-img check: nothing found; leaks
# Some formats have nothing that could be checked, and say so.
UNCHECKED = 63


class Line(NamedTuple):
    """A command, and the image that it makes or changes."""

    words: str
    target: str

    @property
    def fmt(self) -> str:
        return self.target.rpartition(".")[2]


MAKE = [
    Line("convert -O raw src.qcow2 new.raw", "new.raw"),
    Line("convert -O qcow2 src.raw new.qcow2", "new.qcow2"),
    Line("convert -c -O qcow2 src.raw new.qcow2", "new.qcow2"),
    Line("convert -O qed src.raw new.qed", "new.qed"),
    Line("convert -O vmdk src.raw new.vmdk", "new.vmdk"),
    Line("convert -O vmdk -o subformat=streamOptimized src.raw new.vmdk", "new.vmdk"),
    Line("create -q -f qcow2 -o preallocation=full new.qcow2 3M", "new.qcow2"),
    Line(
        "create -q -f qcow2 -o preallocation=metadata,cluster_size=512 new.qcow2 30M", "new.qcow2"
    ),
    Line("create -q -f raw -o preallocation=full new.raw 3M", "new.raw"),
    Line("dd -O qcow2 bs=64k if=src.raw of=new.qcow2", "new.qcow2"),
]
CHANGE = [
    Line("commit -q -d top2.qcow2", "top.qcow2"),
    Line("rebase -b other.raw -F raw top.qcow2", "top.qcow2"),
    Line("resize -q --preallocation=full grow.qcow2 4M", "grow.qcow2"),
    Line("amend -o size=8T grow.qcow2", "grow.qcow2"),
    Line("bitmap --add -g 512 src.qcow2 b", "src.qcow2"),
    Line("snapshot -c s1 top.qcow2", "top.qcow2"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images, made by the real tools."""
    folder = tmp_path_factory.mktemp("corpus")
    pick = random.Random(1)
    (folder / "src.raw").write_bytes(pick.randbytes(MIB) + bytes(MIB) + pick.randbytes(MIB))
    (folder / "other.raw").write_bytes(pick.randbytes(3 * MIB))
    before = Path.cwd()
    os.chdir(folder)
    try:
        qemu_done("qemu-img", "convert", "-O", "qcow2", "src.raw", "src.qcow2")
        qemu_done("qemu-img", "create", "-f", "qcow2", "grow.qcow2", "64k")
        for name, below, fmt, start in (
            ("top", "src.raw", "raw", "0"),
            ("top2", "top.qcow2", "qcow2", "100k"),
        ):
            image = f"{name}.qcow2"
            options = ("-o", "cluster_size=4k", "-b", below, "-F", fmt)
            qemu_done("qemu-img", "create", "-f", "qcow2", *options, image)
            qemu_done("qemu-io", "-f", "qcow2", "-c", f"write -P 5 {start} 700k", image)
    finally:
        os.chdir(before)
    return folder


def no_longer_than(limit: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def run(line: Line, folder: Path, limit: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, os.fspath(PROGRAM), *line.words.split()],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
        preexec_fn=partial(no_longer_than, limit),
    )  # fmt: skip


def contents(folder: Path, without: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != without}


def is_sound(image: Path, fmt: str) -> None:
    if fmt != "raw":
        done = qemu("qemu-img", "check", "-f", fmt, image)
        assert done.returncode in (*GOOD, UNCHECKED), done.stdout + done.stderr


@pytest.mark.parametrize("line", [*MAKE, *CHANGE], ids=lambda line: line.words)
def test_a_full_disk_is_an_error_that_leaves_all_else_as_it_was(
    corpus: Path, tmp_path: Path, line: Line
) -> None:
    failures = 0
    for limit in LIMITS:
        folder = tmp_path / str(limit)
        shutil.copytree(corpus, folder)
        others = contents(folder, line.target)
        done = run(line, folder, limit)
        assert "Traceback" not in done.stderr
        assert contents(folder, line.target) == others
        target = folder / line.target
        if target.exists():
            is_sound(target, line.fmt)
        if done.returncode:
            failures += 1
            assert done.returncode == 1
            assert ": " in done.stderr.splitlines()[-1].removeprefix("miniqemu-img: ")
            assert "too large" in done.stderr
        else:
            assert (done.stderr, target.exists()) == ("", True)
        shutil.rmtree(folder)
    assert failures > 1


@pytest.mark.parametrize(
    "line", [line for line in MAKE if line.fmt != "raw"], ids=lambda x: x.words
)
def test_half_an_image_is_taken_away(corpus: Path, tmp_path: Path, line: Line) -> None:
    shutil.copytree(corpus, tmp_path, dirs_exist_ok=True)
    done = run(line, tmp_path, 1000)
    assert done.returncode == 1
    assert not (tmp_path / line.target).exists()
