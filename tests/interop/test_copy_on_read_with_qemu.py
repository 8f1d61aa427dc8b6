# SPDX-License-Identifier: GPL-2.0-only
"""Copy-on-read, ours and the real qemu-io's: the same reads leave the same images."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import block
from block.core import flags as f
from block.core.open import open_backend
from tests.support.qemu_tools import qemu_done

pytestmark = pytest.mark.full

BASE_SIZE = (4 << 20) - 3 * 512  # no whole number of clusters
SIZE = (5 << 20) + 5 * 512  # longer than what is below
Span = tuple[int, int]


class Chain:
    """base.raw below middle.qcow2 (which has holes) below top.qcow2."""

    def __init__(self, folder: Path, seed: int, cluster_size: int) -> None:
        self.folder = folder
        dice = random.Random(seed)
        base = bytearray(dice.randbytes(BASE_SIZE))
        base[1 << 20 : 2 << 20] = bytes(1 << 20)
        (folder / "base.raw").write_bytes(base)
        for name, backing, backing_format in (
            ("middle", "base.raw", "raw"),
            ("top", "middle.qcow2", "qcow2"),
        ):
            path = str(folder / f"{name}.qcow2")
            block.create(
                path, "qcow2", SIZE, backing_file=backing, backing_fmt=backing_format,
                cluster_size=cluster_size,
            )  # fmt: skip
            with block.open(path, format="qcow2") as disk:
                for _ in range(3):
                    disk.pwrite(dice.randrange(SIZE - 100_000), dice.randbytes(100_000))
        self.reads = [self.span(dice) for _ in range(12)]
        self.whole = self.content(folder / "top.qcow2")

    def span(self, dice: random.Random) -> Span:
        start = dice.randrange(SIZE - 300_000)
        return start, dice.randrange(1, 300_000)

    def content(self, top: Path) -> bytes:
        with block.open(str(top), format="qcow2", read_only=True) as disk:
            return disk.pread(0, SIZE)

    def copy(self, name: str) -> Path:
        """Another top over the same chain."""
        return Path(shutil.copy(self.folder / "top.qcow2", self.folder / name))


def map_of(image: Path) -> list[tuple[object, ...]]:
    """What qemu-img map says, but for where in the file clusters lie."""
    entries = json.loads(qemu_done("qemu-img", "map", "-f", "qcow2", "--output=json", image))
    return [(e["start"], e["length"], e["depth"], e["zero"], e["data"]) for e in entries]


def read_by_qemu_flag(image: Path, reads: list[Span], bottom: str | None) -> None:
    commands = [word for start, size in reads for word in ("-c", f"read -q {start} {size}")]
    qemu_done("qemu-io", "-C", "-f", "qcow2", *commands, image)


def read_by_qemu_filter(image: Path, reads: list[Span], bottom: str | None) -> None:
    commands = [word for start, size in reads for word in ("-c", f"read -q {start} {size}")]
    options = {"driver": "copy-on-read", "file": nodes(image)}
    if bottom is not None:
        options["bottom"] = bottom
    qemu_done("qemu-io", *commands, "json:" + json.dumps(options))


def read_by_our_flag(image: Path, reads: list[Span], bottom: str | None) -> None:
    flags = f.BDRV_O_RDWR | f.BDRV_O_COPY_ON_READ
    with open_backend(str(image), options={"driver": "qcow2"}, flags=flags) as disk:
        for start, size in reads:
            disk.pread(start, size)


def read_by_our_filter(image: Path, reads: list[Span], bottom: str | None) -> None:
    options: dict[str, object] = {"driver": "copy-on-read", "file": nodes(image)}
    if bottom is not None:
        options["bottom"] = bottom
    with block.open(options=options) as disk:
        for start, size in reads:
            disk.pread(start, size)


def nodes(image: Path) -> dict[str, object]:
    """The chain with a name for its middle."""
    middle = {"driver": "file", "filename": str(image.parent / "middle.qcow2")}
    return {
        "driver": "qcow2",
        "file": {"driver": "file", "filename": str(image)},
        "backing": {"driver": "qcow2", "node-name": "middle", "file": middle},
    }


Reader = Callable[[Path, list[Span], str | None], None]


# One table of clusters maps the whole disk. Where there are several, QEMU copies table by table
# and finds zeroes in smaller pieces than ours does; the content is the same, the map is not.
@pytest.mark.parametrize("cluster_size", [8192, 65536])
@pytest.mark.parametrize(
    ("ours", "theirs", "bottom"),
    [
        (read_by_our_flag, read_by_qemu_flag, None),
        (read_by_our_filter, read_by_qemu_filter, None),
        (read_by_our_filter, read_by_qemu_filter, "middle"),
    ],
    ids=["flag", "filter", "bottom"],
)
def test_the_same_reads_leave_the_same_image(
    tmp_path: Path, ours: Reader, theirs: Reader, bottom: str | None, cluster_size: int
) -> None:
    chain = Chain(tmp_path, cluster_size, cluster_size)
    before = map_of(tmp_path / "top.qcow2")
    mine, other = chain.copy("ours.qcow2"), chain.copy("theirs.qcow2")
    ours(mine, chain.reads, bottom)
    theirs(other, chain.reads, bottom)
    assert map_of(mine) == map_of(other) != before
    for image in (mine, other):
        qemu_done("qemu-img", "check", "-q", "-f", "qcow2", image)
        assert chain.content(image) == chain.whole
    qemu_done("qemu-img", "compare", "-q", "-f", "qcow2", "-F", "qcow2", mine, other)


def test_after_all_has_been_read_qemu_needs_no_backing_file(tmp_path: Path) -> None:
    chain = Chain(tmp_path, 7, 65536)
    image = chain.copy("ours.qcow2")
    read_by_our_filter(image, [(0, SIZE)], None)
    alone = {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": str(image)}}
    reference = tmp_path / "reference.raw"
    reference.write_bytes(chain.whole)
    both = ("json:" + json.dumps(options) for options in (alone, raw(reference)))
    qemu_done("qemu-img", "compare", "-q", *both)


def raw(path: Path) -> dict[str, object]:
    return {"driver": "raw", "file": {"driver": "file", "filename": str(path)}}
