# SPDX-License-Identifier: GPL-2.0-only
"""Hundreds of command lines, each given to our miniqemu-img and to QEMU's qemu-img.

lines/img.txt has them. Each is run in a folder of its own images, for both the same; what it has
changed there is put back for the next one.
"""

from __future__ import annotations

import os
import shlex
import shutil
from itertools import groupby
from pathlib import Path

import pytest

import block
from tests.support.qcow2_damage import Image
from tests.support.qemu_tools import qemu_done
from tests.support.side_by_side import SideBySide

pytestmark = pytest.mark.full

LINES = [
    line
    for line in (Path(__file__).parent / "lines/img.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
GROUPS = {name: list(lines) for name, lines in groupby(LINES, lambda line: line.split()[0])}


def change(image: Path, *commands: str, fmt: str = "qcow2") -> None:
    words = [word for command in commands for word in ("-c", command)]
    qemu_done("qemu-io", "-f", fmt, *words, image)


def hurt(image: Path, guest_cluster: int, entry: int | None) -> None:
    """Puts an L2 entry in place of another; None: that of the cluster before."""
    data = Image(image)
    table = data.get(data.get(40)) & ~(1 << 63)  # what the header's l1_table_offset points to
    place = table + 8 * guest_cluster
    data.put(place, data.get(place - 8) if entry is None else entry)
    data.save()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of all kinds, made by QEMU."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "full.raw").write_bytes(b"f" * (256 << 10))
    (folder / "base.raw").write_bytes(b"f" * 70000 + b"hello" + b"f" * 192139)
    (folder / "empty.raw").touch()
    (folder / "odd.raw").write_bytes(b" " * 699 + b"x")
    create = ("create", "-q", "-f")
    qemu_done("qemu-img", *create, "qcow2", folder / "a.qcow2", "4M")
    change(folder / "a.qcow2", "write -P 1 0 100k", "write -P 2 1M 64k", "write -z 2M 64k")
    for name in ("m", "s", "leaky", "bad"):
        shutil.copy(folder / "a.qcow2", folder / f"{name}.qcow2")
    qemu_done(
        "qemu-img", *create, "qcow2", "-b", "base.raw", "-F", "raw", folder / "top.qcow2", "3M"
    )
    change(folder / "top.qcow2", "write -P 3 0 64k", "write -P 4 2M 1k")
    qemu_done("qemu-img", "bitmap", "--add", folder / "m.qcow2", "b0")
    qemu_done("qemu-img", "bitmap", "--add", "--disable", "-g", "512", folder / "m.qcow2", "off")
    change(folder / "m.qcow2", "write 3M 1k")
    for name, pattern in (("one", 5), ("two", 6)):
        qemu_done("qemu-img", "snapshot", "-c", name, folder / "s.qcow2")
        change(folder / "s.qcow2", f"write -P {pattern} 0 1M")
    lost = ("-u", "-b", "nope", "-F", "raw", folder / "lost.qcow2", "1M")
    qemu_done("qemu-img", *create, "qcow2", *lost)
    old = ("-o", "compat=0.10", folder / "old.qcow2", "1M")
    qemu_done("qemu-img", *create, "qcow2", *old)
    for fmt, name in (("qcow2", "old.qcow2"), ("vmdk", "v.vmdk"), ("qed", "d.qed")):
        if fmt != "qcow2":
            qemu_done("qemu-img", *create, fmt, folder / name, "1M")
        change(folder / name, "write 64k 1k", fmt=fmt)
    packed = ("-c", "-f", "raw", "-O", "qcow2", folder / "odd.raw", folder / "c.qcow2")
    qemu_done("qemu-img", "convert", *packed)
    change(folder / "leaky.qcow2", "write 3M 128k")
    hurt(folder / "leaky.qcow2", 48, 0)
    hurt(folder / "bad.qcow2", 1, None)
    with block.open(os.fspath(folder / "m.qcow2"), format="qcow2"):
        shutil.copy(folder / "m.qcow2", folder / "broken.qcow2")
    return folder


class Folder:
    """A copy of the images; `put_back` undoes what a line has done."""

    def __init__(self, images: Path, place: Path) -> None:
        self.images, self.place = images, place
        self.before: dict[str, tuple[int, int]] = {}

    def put_back(self) -> None:
        now = {entry.name: entry.stat() for entry in os.scandir(self.place)}
        for name in now.keys() - self.before.keys():
            (self.place / name).unlink()
        for image in self.images.iterdir():
            seen = now.get(image.name)
            if seen is None or (seen.st_size, seen.st_mtime_ns) != self.before.get(image.name):
                made = shutil.copy(image, self.place / image.name)
                stat = Path(made).stat()
                self.before[image.name] = stat.st_size, stat.st_mtime_ns


@pytest.mark.parametrize("lines", GROUPS.values(), ids=GROUPS)
def test_both_answer_the_same(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], lines: list[str]
) -> None:
    pair = SideBySide(tmp_path, capfd)
    folders = [Folder(images, place) for place in pair.folders]
    differ = []
    for line in lines:
        for folder in folders:
            folder.put_back()
        words = shlex.split(line)
        theirs, mine = pair.ask_qemu("qemu-img", *words), pair.ask_us("qemu-img", *words)
        if mine != theirs:
            differ.append(f"{line}\n  {theirs}\n  {mine}")
    assert not differ, "\n".join(differ)
