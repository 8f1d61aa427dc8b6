# SPDX-License-Identifier: GPL-2.0-only
"""miniqemu-img beside qemu-img: info, map and compare say the same, and so do wrong lines."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from tests.support.both_tools import Tools, lines_of
from tests.support.qemu_tools import qemu_img, qemu_io

pytestmark = pytest.mark.full

MISTAKES = """
info | info a b | info -x a | info a -qz | info -Uf | info --o a | info --output=x full.raw | info --outp
info --image-opts -f raw a | info nope | info -f nope full.raw | info --force-share=x a | info ''
map | map -s | map -s z a | map -l 9E a | map --output=x a | map nope | map -f foo full.raw
compare a | compare -T bad a b | compare full.raw nope | compare nope full.raw | compare -s
create | create -o | create -o ,a x 1 | create -o a, x 1 | create x 1 2 | create x 9E | create x 1Z
create -f foo x 1M | create -f raw x | create x -5 | create -f raw -o help | create -f raw -o help x
create -f qcow2 -b nope -u x 1M | create -f qcow2 -b '' x 1M | create -f qcow2 -b nope -F raw -u x
create -f qcow2 -o size=3M x 1M | create -f raw -b '' x 1M | create -f raw -o foo=1 x 1M | create -b | info -- full.raw -f | info --image-opts driver=nope
"""  # noqa: E501  # several commands a line

ODD = b"n\xc3\xbc \xff,x\n.qcow2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus: images that the real tools have made."""
    folder = tmp_path_factory.mktemp("corpus")
    before = Path.cwd()
    os.chdir(folder)
    try:
        make_raw()
        make_qcow2()
    finally:
        os.chdir(before)
    return folder


def make_raw() -> None:
    Path("full.raw").write_bytes(b"full" * (300 << 10))
    Path("empty.raw").write_bytes(b"")
    Path("odd.raw").write_bytes(b"x" * 700)
    qemu_img("create", "-f", "raw", "sparse.raw", "3M")
    qemu_io("raw", "sparse.raw", "write -P 1 64k 100k", "write -P 2 2M 4k")
    for name, change in (("longer.raw", ""), ("other.raw", "write -P 9 80000 1")):
        Path(name).write_bytes(Path("sparse.raw").read_bytes() + bytes(1 << 20))
        if change:
            qemu_io("raw", name, change)
    Path("tail.raw").write_bytes(Path("longer.raw").read_bytes()[:-1] + b"!")
    qemu_img("create", "-f", "raw", "huge.raw", "1T")
    qemu_io("raw", "huge.raw", "write -P 1 900G 64k")


def make_qcow2() -> None:
    qemu_img("create", "-f", "qcow2", "base.qcow2", "10M")
    qemu_io("qcow2", "base.qcow2", "write -P 3 64k 100k", "write -P 5 3M 1M", "write -z 1M 256k")
    qemu_img("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2", "12M")
    qemu_io("qcow2", "top.qcow2", "write -P 6 0 64k", "write -z 3M 64k", "write -P 7 11M 64k")
    qemu_img("create", "-f", "qcow2", "-b", "top.qcow2", "-F", "qcow2", "./a:b c.qcow2")
    qemu_img("create", "-f", "qcow2", "-b", "sparse.raw", "-F", "raw", ODD, "5M")
    # One cluster, in both: what is compressed has no place that could be told.
    Path("small.raw").write_bytes(b"abcd" * (16 << 10))
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "small.raw", "small.qcow2")
    # Neighbours for the guest, but not in the file.
    qemu_img("create", "-f", "qcow2", "-o", "cluster_size=512", "mixed.qcow2", "64k")
    qemu_io("qcow2", "mixed.qcow2", *(f"write -P 1 {at * 512} 512" for at in (70, 64, 63, 65, 62)))
    qemu_img("create", "-f", "qcow2", "-o", "compat=0.10,cluster_size=4k", "old.qcow2", "700k")
    qemu_img("create", "-f", "qcow2", "-o", "lazy_refcounts=on,refcount_bits=1", "lazy.qcow2", "1T")
    qemu_img("create", "-f", "qcow2", "-o", "preallocation=metadata", "pre.qcow2", "4M")
    qemu_img("convert", "-O", "qcow2", "sparse.raw", "same.qcow2")
    qemu_img("create", "-f", "qcow2", "-u", "-b", "gone.raw", "-F", "raw", "orphan.qcow2", "1M")
    qemu_img("create", "-f", "qcow2", "loop.qcow2", "1M")
    qemu_img("rebase", "-u", "-b", "loop.qcow2", "-F", "qcow2", "loop.qcow2")


IMAGES = [
    *("full.raw", "empty.raw", "odd.raw", "sparse.raw", "huge.raw", "base.qcow2", "top.qcow2"),
    *("./a:b c.qcow2", "file:a:b c.qcow2", os.fsdecode(ODD), "old.qcow2", "lazy.qcow2"),
    *("pre.qcow2", "orphan.qcow2", "loop.qcow2", "small.qcow2", "mixed.qcow2"),
    'json:{"driver":"qcow2","file":{"driver":"file","filename":"base.qcow2"}}',
    'json:{"driver":"qcow2","l2-cache-size":"1M","file":{"driver":"file","filename":"top.qcow2"}}',
    "null-co://",
    'json:{"driver":"raw","offset":65536,"size":131072,"file.filename":"sparse.raw"}',
]


@pytest.mark.parametrize("image", IMAGES)
def test_info_is_the_same_text_and_the_same_json(
    folder: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch, image: str
) -> None:
    monkeypatch.chdir(folder)
    tools.agree("info", image)
    tools.agree("info", "--output=json", image)
    tools.agree("info", "--backing-chain", "-U", image)
    tools.agree("info", "--backing-chain", "--output=json", image)


# A loop has no end that both tools would find at the same depth.
@pytest.mark.parametrize("image", [image for image in IMAGES if image != "loop.qcow2"])
def test_a_map_is_the_same_text_and_the_same_json(
    folder: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch, image: str
) -> None:
    monkeypatch.chdir(folder)
    tools.agree("map", image)
    tools.agree("map", "--output=json", image)
    tools.agree("map", "--output=json", "--start-offset=70000", "--max-length=3M", image)
    tools.agree("map", "-s", "20M", image)


PAIRS = [
    ("sparse.raw", "sparse.raw"),
    ("sparse.raw", "same.qcow2"),
    ("same.qcow2", "sparse.raw"),
    ("sparse.raw", "longer.raw"),
    ("longer.raw", "other.raw"),
    ("sparse.raw", "tail.raw"),
    ("tail.raw", "sparse.raw"),
    ("base.qcow2", "top.qcow2"),
    ("top.qcow2", "./a:b c.qcow2"),
    ("full.raw", "sparse.raw"),
    ("empty.raw", "full.raw"),
    ("odd.raw", "empty.raw"),
    ("lazy.qcow2", "huge.raw"),
    ("orphan.qcow2", "full.raw"),
    ("sparse.raw", os.fsdecode(ODD)),
    ("small.raw", "small.qcow2"),
]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("flags", [[], ["-s"], ["-q"]], ids=["plain", "strict", "quiet"])
def test_two_images_compare_the_same(
    folder: Path,
    tools: Tools,
    monkeypatch: pytest.MonkeyPatch,
    pair: tuple[str, str],
    flags: list[str],
) -> None:
    monkeypatch.chdir(folder)
    tools.agree("compare", *flags, *pair)


def test_progress_is_told_in_the_same_lines(
    folder: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    status, out, _ = tools.agree("compare", "-p", "sparse.raw", "same.qcow2")
    assert status == 0
    assert b"(100.00/100%)\r" in out


@pytest.mark.parametrize("line", lines_of(MISTAKES))
def test_a_wrong_line_gets_the_same_answer(
    folder: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.chdir(folder)
    status, _, err = tools.agree(*shlex.split(line))
    assert "help" in line or (status != 0 and err)
