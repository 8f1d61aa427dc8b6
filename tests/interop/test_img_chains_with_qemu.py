# SPDX-License-Identifier: GPL-2.0-only
"""miniqemu-img commit and rebase beside qemu-img: what a chain shows stays the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.both_tools import Tools, lines_of
from tests.support.qemu_tools import qemu_img, qemu_io

pytestmark = pytest.mark.full


def make_chain() -> None:
    """top.qcow2 (8M) over mid.qcow2 (5M) over base.qcow2 (7M), and another.raw (6M)."""
    qemu_img("convert", "-O", "qcow2", "disk.raw", "base.qcow2")
    qemu_img("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "mid.qcow2", "5M")
    qemu_img("create", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "top.qcow2", "8M")
    qemu_io("qcow2", "mid.qcow2", "write -P 3 0 64k", "write -z 64k 64k", "write -P 4 2M 300k")
    qemu_io("qcow2", "top.qcow2", "write -P 5 64k 4k", "write -P 6 6M 1M", "write -z 2M 64k")
    Path("another.raw").write_bytes(Path("disk.raw").read_bytes()[: 6 << 20])


REBASES = ["base.qcow2 qcow2", "another.raw raw", "disk.raw raw", "mid.qcow2 qcow2"]


@pytest.mark.parametrize("target", REBASES)
@pytest.mark.parametrize("tool", ["mine", "theirs"])
def test_a_rebased_image_reads_as_before(work: Path, tools: Tools, target: str, tool: str) -> None:
    make_chain()
    qemu_img("convert", "-O", "raw", "top.qcow2", "before.raw")
    backing, fmt = target.split()
    line = ["rebase", "-b", backing, "-F", fmt, "top.qcow2"]
    assert getattr(tools, tool)(line) == (0, b"", b"")
    qemu_img("compare", "before.raw", "top.qcow2")
    qemu_img("check", "top.qcow2")
    info = tools.theirs(["info", "-U", "top.qcow2"])[1].decode()
    assert f"backing file: {backing}\nbacking file format: {fmt}\n" in info


def test_an_image_can_stand_alone(work: Path, tools: Tools) -> None:
    make_chain()
    qemu_img("convert", "-O", "raw", "top.qcow2", "before.raw")
    assert tools.mine(["rebase", "-b", "", "top.qcow2"]) == (0, b"", b"")
    for name in ("mid.qcow2", "base.qcow2"):
        Path(name).unlink()
    qemu_img("compare", "before.raw", "top.qcow2")
    assert b"backing" not in tools.theirs(["info", "top.qcow2"])[1]


def test_an_unsafe_rebase_changes_the_name_and_nothing_else(work: Path, tools: Tools) -> None:
    make_chain()
    for name in ("base.qcow2", "mid.qcow2"):
        Path(name).rename(f"moved-{name}")
    before = Path("top.qcow2").stat().st_size
    line = ["rebase", "-u", "-b", "moved-mid.qcow2", "-F", "qcow2", "top.qcow2"]
    assert tools.mine(line) == (0, b"", b"")
    info = tools.theirs(["info", "top.qcow2"])[1]
    assert b"backing file: moved-mid.qcow2\nbacking file format: qcow2\n" in info
    assert Path("top.qcow2").stat().st_size == before


@pytest.mark.parametrize("flags", ["", "-d", "-b mid.qcow2", "-b base.qcow2", "-b ./base.qcow2"])
def test_a_committed_image_is_in_its_base(work: Path, tools: Tools, flags: str) -> None:
    make_chain()
    qemu_img("convert", "-O", "raw", "top.qcow2", "before.raw")
    status, out, err = tools.mine(["commit", *flags.split(), "top.qcow2"])
    assert (status, out, err) == (0, b"Image committed.\n", b"")
    base = "base.qcow2" if "base" in flags else "mid.qcow2"
    qemu_img("compare", "before.raw", base)
    qemu_img("compare", "before.raw", "top.qcow2")
    qemu_img("check", base)
    qemu_img("check", "top.qcow2")
    is_empty = (
        b'"depth": 0, "present": true' not in tools.theirs(["map", "--output=json", "top.qcow2"])[1]
    )
    assert is_empty == (not flags)


@pytest.mark.parametrize("base", ["mid.qcow2", "folder/mid.qcow2", "{here}/folder/mid.qcow2"])
def test_a_relative_base_is_seen_from_the_image_above_it(
    work: Path, tools: Tools, base: str
) -> None:
    make_chain()
    folder = Path("folder")
    folder.mkdir()
    for name in ("base", "mid", "top"):
        Path(f"{name}.qcow2").rename(folder / f"{name}.qcow2")
    status, _, _ = tools.agree("commit", "-d", "-b", base.format(here=work), "folder/top.qcow2")
    assert (status != 0) == base.startswith("folder")


@pytest.mark.parametrize("base", ["", "-b base.qcow2"])
@pytest.mark.parametrize("form", ["options", "json"])
def test_a_chain_is_described_by_options(work: Path, tools: Tools, form: str, base: str) -> None:
    make_chain()
    options = {"driver": "qcow2", "file.filename": "top.qcow2"}
    options |= {"backing.driver": "qcow2", "backing.lazy-refcounts": "on"}
    options |= {"backing.backing.overlap-check": "all"}
    words = ["--image-opts", ",".join(f"{name}={value}" for name, value in options.items())]
    if form == "json":
        words = [f"json:{json.dumps(options)}"]
    said = []
    for tool in (tools.mine, tools.theirs):
        for name in ("top", "mid", "base"):
            Path(f"{name}.qcow2").unlink()
        make_chain()
        said.append(tool(["commit", "-d", *base.split(), *words]))
        qemu_img("compare", "top.qcow2", "base.qcow2" if base else "mid.qcow2")
    assert said[0] == said[1] == (0, b"Image committed.\n", b"")


OF_A_CHAIN = """
commit | commit base.qcow2 | commit -t foo top.qcow2 | commit -b nope top.qcow2 | commit nope
rebase -b x | rebase top.qcow2 | rebase -b disk.raw top.qcow2 | rebase -b a -F foo top.qcow2
rebase -u -b disk.raw top.qcow2 | rebase -b nope -F raw top.qcow2 | rebase -t foo -b a top.qcow2
rebase -T foo -b a top.qcow2 | rebase -f raw -u -b a -F raw disk.raw | rebase -b a nope
"""


@pytest.mark.parametrize("line", lines_of(OF_A_CHAIN))
def test_what_commit_and_rebase_refuse(work: Path, tools: Tools, line: str) -> None:
    make_chain()
    Path("before.qcow2").write_bytes(Path("top.qcow2").read_bytes())
    status, _, err = tools.agree(*line.split())
    assert status != 0
    assert err
    qemu_img("compare", "before.qcow2", "top.qcow2")
