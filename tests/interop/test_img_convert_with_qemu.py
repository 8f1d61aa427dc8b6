# SPDX-License-Identifier: GPL-2.0-only
"""miniqemu-img convert beside qemu-img: the same bytes and holes, the same complaints."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.support.both_tools import Tools, lines_of
from tests.support.qemu_tools import qemu_img, qemu_io

pytestmark = pytest.mark.full

CONVERSIONS = {
    "raw": "-O raw",
    "raw, sparse from 64 KiB on": "-O raw -S 64k",
    "raw, sparse from 12 KiB on": "-O raw -S 12k",
    "raw, everything written": "-O raw -S 0",
    "raw, in any order": "-O raw -W -m 16",
    "raw, without the cache": "-O raw -t none -T none",
    "qcow2": "-O qcow2",
    "qcow2, everything written": "-O qcow2 -S 0",
    "qcow2, small clusters": "-O qcow2 -o cluster_size=4k",
    "qcow2, prepared": "-O qcow2 -o preallocation=metadata",
}


@pytest.mark.parametrize("source", ["raw", "qcow2"])
@pytest.mark.parametrize("line", CONVERSIONS.values(), ids=CONVERSIONS)
def test_a_converted_image_has_the_same_data_and_holes(
    work: Path, tools: Tools, source: str, line: str
) -> None:
    words = ["convert", "-f", source, *line.split(), f"disk.{source}"]
    assert tools.theirs([*words, "theirs"]) == (0, b"", b"")
    assert tools.mine([*words, "mine"]) == (0, b"", b"")
    fmt = "qcow2" if "qcow2" in line else "raw"
    qemu_img("compare", "-s", "-f", fmt, "-F", fmt, "theirs", "mine")
    qemu_img("compare", "-f", "raw", "-F", fmt, "disk.raw", "mine")
    if fmt == "qcow2":
        qemu_img("check", "-f", "qcow2", "mine")


def test_with_a_backing_file_only_the_layer_is_copied(work: Path, tools: Tools) -> None:
    qemu_img("create", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", "top.qcow2", "8M")
    qemu_io("qcow2", "top.qcow2", "write -P 9 64k 64k", "write -z 2M 64k", "write -P 4 7M 64k")
    line = ["-O", "qcow2", "-B", "disk.raw", "-F", "raw", "top.qcow2"]
    for name, tool in (("theirs", tools.theirs), ("mine", tools.mine)):
        assert tool(["convert", *line, name]) == (0, b"", b"")
    qemu_img("compare", "-s", "theirs", "mine")
    qemu_img("compare", "top.qcow2", "mine")


def test_several_images_become_one(work: Path, tools: Tools) -> None:
    Path("odd.raw").write_bytes(b"odd" * 1000)
    words = ["convert", "-O", "qcow2", "-f", "raw", "odd.raw", "disk.raw", "odd.raw"]
    for name, tool in (("theirs", tools.theirs), ("mine", tools.mine)):
        assert tool([*words, name])[0] == 0
    # Not -s: what lies in a cluster behind the data is a hole of our file, and not of theirs.
    qemu_img("compare", "theirs", "mine")


@pytest.mark.parametrize("flags", ["-n", "-n --target-is-zero", "-n -S 0"])
def test_an_existing_target_is_filled(work: Path, tools: Tools, flags: str) -> None:
    for name, tool in (("theirs", tools.theirs), ("mine", tools.mine)):
        qemu_img("create", "-f", "qcow2", name, "9M")
        if "zero" not in flags:
            qemu_io("qcow2", name, "write -P 5 0 9M")
        assert tool(["convert", *flags.split(), "-O", "qcow2", "disk.raw", name]) == (0, b"", b"")
    qemu_img("compare", "theirs", "mine")
    qemu_img("check", "mine")


def test_progress_of_a_copy_ends_as_theirs(work: Path, tools: Tools) -> None:
    theirs = tools.theirs(["convert", "-p", "-O", "raw", "disk.qcow2", "theirs"])
    mine = tools.mine(["convert", "-p", "-O", "raw", "disk.qcow2", "mine"])
    assert mine == theirs


CONVERT_MISTAKES = """
convert | convert disk.raw | convert nope x | convert -f raw disk.raw disk.raw | convert -O nope disk.raw x
convert -f raw -n disk.raw disk.raw | convert -c -O raw disk.raw x | convert -S 7 disk.raw x
convert -m 17 disk.raw x | convert -m z disk.raw x | convert -l snap disk.raw x | convert -r z disk.raw x
convert --bitmaps disk.raw x | convert -C -c disk.raw x | convert -C -S 4k disk.raw x
convert -C --salvage disk.raw x | convert --target-image-opts disk.raw x | convert -n -o a=1 disk.raw x
convert --target-is-zero disk.raw x | convert -T foo disk.raw x | convert -t foo disk.raw x
convert -n disk.raw nope | convert -n -f raw disk.raw small.raw | convert -o foo=1 disk.raw x
convert -B disk.raw -O qcow2 disk.raw x | convert -B disk.raw -F raw disk.raw x
convert -O qcow2 -c -o preallocation=metadata disk.raw x | convert -B '' -O qcow2 disk.raw x
convert -O qcow2 -F raw disk.raw x | convert -O qcow2 -o cluster_size=3 disk.raw x
convert disk.raw nope/x | convert -O qcow2 -B a -F raw disk.raw disk.raw x | convert -o help | convert -o help a b
"""  # noqa: E501  # several commands a line


@pytest.mark.parametrize("line", lines_of(CONVERT_MISTAKES))
def test_a_wrong_copy_gets_the_same_answer(work: Path, tools: Tools, line: str) -> None:
    before = Path("disk.raw").read_bytes()
    qemu_img("create", "-f", "raw", "small.raw", "1M")
    status, _, err = tools.agree(*shlex.split(line))
    assert "help" in line or (status != 0 and err)
    assert Path("disk.raw").read_bytes() == before
