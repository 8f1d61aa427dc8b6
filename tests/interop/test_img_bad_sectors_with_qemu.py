# SPDX-License-Identifier: GPL-2.0-only
"""A sector that cannot be read or written: miniqemu-img and qemu-img tell of it in the same way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.both_tools import Tools
from tests.support.qcow2_damage import CLUSTER, COPIED, REFBLOCK, Image
from tests.support.qcow2_packed import poke, text
from tests.support.qemu_tools import qemu_img, qemu_io

pytestmark = pytest.mark.full

BROKEN = 5 << 20


def broken(name: str, event: str, fmt: str = "raw", place: int = BROKEN) -> str:
    """Options of an image of which one sector cannot be read or written."""
    error = f"file.inject-error.0.event={event},file.inject-error.0.sector={place // 512}"
    return f"driver={fmt},file.driver=blkdebug,file.image.filename={name},{error}"


# With one worker the buffer has held other data before.
@pytest.mark.parametrize("flags", ["", "-W", "-m 1", "--salvage", "--salvage -m 1", "--salvage -q"])
def test_a_source_that_cannot_be_read_is_told(work: Path, tools: Tools, flags: str) -> None:
    Path("full.raw").write_bytes(b"x" * (7 << 20))
    source = ["--image-opts", broken("full.raw", "read_aio")]
    said, made = [], []
    for tool in (tools.theirs, tools.mine):
        said.append(tool(["convert", *flags.split(), *source, "copy.raw"]))
        made.append(Path("copy.raw").read_bytes())
    assert said[0] == said[1]
    assert said[0][0] == (0 if "salvage" in flags else 1)
    if "salvage" in flags:
        assert made[0] == made[1]
        assert made[1][BROKEN : BROKEN + 512] == bytes(512)
        assert made[1].count(0) == 512


def test_every_bad_sector_is_salvaged_and_told_as_by_qemu(work: Path, tools: Tools) -> None:
    """With one worker: several tell it in the order in which they come to it."""
    size = (5 << 20) + 512
    Path("full.raw").write_bytes(b"x" * size)
    bad = [0, 7, 8, 4095, 4096, 5000, *range(6000, 6009), size // 512 - 1]
    source = "driver=raw,file.driver=blkdebug,file.image.filename=full.raw" + "".join(
        f",file.inject-error.{n}.event=read_aio,file.inject-error.{n}.sector={sector}"
        for n, sector in enumerate(bad)
    )
    made = []
    for tool in (tools.theirs, tools.mine):
        status, _, err = tool(["convert", "--salvage", "-m", "1", "--image-opts", source, "c.raw"])
        made.append((status, err, Path("c.raw").read_bytes()))
    assert made[0] == made[1]
    status, err, data = made[0]
    assert [int(line.split()[-3][:-1]) for line in err.splitlines()] == [512 * n for n in bad]
    assert (status, data.count(0)) == (0, 512 * len(bad))


@pytest.mark.parametrize("fmt", ["qcow2", "vmdk"])
def test_what_was_packed_and_is_broken_is_salvaged_as_by_qemu(
    work: Path, tools: Tools, fmt: str
) -> None:
    cluster, count = 65536, 40
    Path("full.raw").write_bytes(b"".join(text(n, cluster) for n in range(count)))
    how = ["-c"] if fmt == "qcow2" else ["-o", "subformat=streamOptimized"]
    qemu_img("convert", "-f", "raw", "-O", fmt, *how, "full.raw", "packed")
    for place in (400_000, 600_000):  # the beginning of one at least: each takes 20 kB
        poke(Path("packed"), place, b"\xff" * 30_000)
    made = []
    for tool in (tools.theirs, tools.mine):
        said = tool(["convert", "--salvage", "-m", "1", "-f", fmt, "packed", "copy.raw"])
        made.append((said, Path("copy.raw").read_bytes()))
    assert made[0] == made[1]
    (status, _, err), data = made[0]
    broken = [n for n in range(count) if data[n * cluster :][:cluster] == bytes(cluster)]
    assert (status, len(err.splitlines())) == (0, 128 * len(broken))
    assert 2 <= len(broken) <= 6


def test_a_target_that_cannot_be_written_is_told(work: Path, tools: Tools) -> None:
    Path("full.raw").write_bytes(b"x" * (7 << 20))
    before = Path("full.raw").read_bytes()
    qemu_img("create", "-f", "raw", "copy.raw", "7M")
    target = ["--target-image-opts", broken("copy.raw", "write_aio")]
    status, _, err = tools.agree("convert", "-n", "-f", "raw", *target[:1], "full.raw", target[1])
    assert status == 1
    assert err == b"qemu-img: error while writing at byte 4194304: Input/output error\n"
    assert Path("full.raw").read_bytes() == before


def test_images_that_cannot_be_compared_end_with_4(work: Path, tools: Tools) -> None:
    Path("full.raw").write_bytes(b"x" * (7 << 20))
    whole, half = "driver=raw,file.filename=full.raw", broken("full.raw", "read_aio")
    assert tools.agree("compare", "--image-opts", whole, half)[0] == 4
    assert tools.agree("compare", "--image-opts", half, whole)[0] == 4


@pytest.mark.parametrize("flags", ["", "-q", "--output=json"])
def test_a_check_that_cannot_read_all_ends_with_1_whatever_else_it_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tools: Tools, flags: str
) -> None:
    """The refcounts cannot be read, and an entry points to no cluster."""
    monkeypatch.chdir(tmp_path)
    qemu_img("create", "-f", "qcow2", "disk.qcow2", "1M")
    qemu_io("qcow2", "disk.qcow2", "write 0 64k")
    damaged = Image(Path("disk.qcow2"))
    damaged.entry(0, 5 * CLUSTER + 512 | COPIED)
    damaged.save()
    image = broken("disk.qcow2", "none", "qcow2", REFBLOCK)
    words = ["check", *flags.split(), "--image-opts", image]
    theirs, mine = tools.theirs(words), tools.mine(words)
    assert mine[:2] == theirs[:2]
    assert theirs[0] == 1
    # Of the refcounts QEMU says a line for each, and we one for all.
    assert mine[2].splitlines()[-1] == theirs[2].splitlines()[-1] == b"qemu-img: Check failed"
