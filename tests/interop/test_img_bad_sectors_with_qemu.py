# SPDX-License-Identifier: GPL-2.0-only
"""A sector that cannot be read or written: miniqemu-img and qemu-img tell of it in the same way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.both_tools import Tools, qemu_img, qemu_io
from tests.support.qcow2_damage import CLUSTER, COPIED, REFBLOCK, Image

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
