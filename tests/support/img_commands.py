# SPDX-License-Identifier: GPL-2.0-only
"""Commands of miniqemu-img that make or change an image, for disks that fail, and their images."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import NamedTuple

from tests.support.qemu_tools import qemu, qemu_done

MIB = 1 << 20
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


def make_corpus(folder: Path) -> None:
    """The images that the commands are about, made by the real tools."""
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


def contents(folder: Path, without: str) -> dict[str, bytes]:
    """What all files hold but the one that a command makes or changes."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != without}


def is_sound(image: Path, fmt: str) -> None:
    """`qemu-img check` finds leaks at most."""
    if fmt != "raw":
        done = qemu("qemu-img", "check", "-f", fmt, image)
        assert done.returncode in (*GOOD, UNCHECKED), done.stdout + done.stderr
