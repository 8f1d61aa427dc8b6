# SPDX-License-Identifier: GPL-2.0-only
"""Dirty bitmaps beside the real tools: each notes, saves, copies and refuses as the other does."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
from pathlib import Path

import pytest

import block
from block.core.error import BlockError
from block.ops import bitmap as ops
from tests.support.both_tools import Tools
from tests.support.qcow2_bitmaps import AUTO, IN_USE, Areas, stored
from tests.support.qemu_tools import is_clean, qemu, qemu_done

pytestmark = pytest.mark.full

MIB = 1 << 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several kinds, all made by QEMU.

    one     4 MiB, bitmaps b0 (64 KiB), fine (512 bytes) and off, which is disabled
    broken  as one, but it was not closed
    top     4 MiB over one, bitmap upper
    """
    path = tmp_path_factory.mktemp("made")
    for name in ("one", "other"):
        qemu_done("qemu-img", "create", "-q", "-f", "qcow2", path / name, "4M")
    qemu_done("qemu-img", "create", "-q", "-f", "qcow2", path / "long", "5M")
    qemu_done("qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10", path / "old", "4M")
    qemu_done("qemu-img", "create", "-q", "-f", "raw", path / "disk.raw", "4M")
    qemu_done("qemu-img", "create", "-q", "-f", "qcow2", "-b", "one", "-F", "qcow2", path / "top")
    for words in ("one b0", "-g 512 one fine", "--disable one off", "long b0", "top upper"):
        *options, image, name = words.split()
        qemu_done("qemu-img", "bitmap", "--add", *options, path / image, name)
    qemu_done("qemu-io", "-c", "write 1M 100k", "-c", "write -z 3M 1k", path / "one")
    qemu_done("qemu-io", "-c", "write 2M 64k", path / "top")
    qemu_done("qemu-img", "snapshot", "-c", "s", path / "one")
    make_broken(path / "one", path / "broken")
    return path


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with copies of them; the current one."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_broken(image: Path, copy: Path) -> None:
    """A copy of an image from while it was open for writing."""
    with block.open(os.fspath(image), format="qcow2"):
        shutil.copy(image, copy)


def seen_by_nbd(image: Path, name: str) -> Areas:
    """What qemu-nbd exports of a bitmap, as qemu-img's map sees it: dirty is 'no data'."""
    socket, pid = image.with_suffix(".socket"), image.with_suffix(".pid")
    qemu_done(
        "qemu-nbd", "--fork", "--persistent", "--pid-file", pid, "-k", socket, "-r", "-f",
        "qcow2", "-B", name, image,
    )  # fmt: skip
    try:
        said = qemu_done(
            "qemu-img", "map", "--output=json", "--image-opts",
            f"driver=nbd,server.type=unix,server.path={socket},"
            f"x-dirty-bitmap=qemu:dirty-bitmap:{name}",
        )  # fmt: skip
    finally:
        os.kill(int(pid.read_text()), signal.SIGTERM)
    return [(part["start"], part["length"]) for part in json.loads(said) if not part["data"]]


# -- what one tool noted, the other reads


def test_what_we_note_qemu_exports(folder: Path) -> None:
    with block.open("one", format="qcow2") as disk:
        disk.pwrite(2 * MIB + 100, b"x" * 5000)
        disk.pwrite_zeroes(4 * MIB - 512, 512)
    is_clean(folder / "one", "qcow2")
    for name in ("b0", "fine", "off"):
        assert seen_by_nbd(folder / "one", name) == stored(folder / "one")[name].areas
    assert stored(folder / "one")["fine"].areas == [
        (MIB, 100 << 10),
        (2 * MIB, 5120),
        (3 * MIB, 1024),
        (4 * MIB - 512, 512),
    ]


def test_where_qemu_lets_a_disk_grow_the_new_part_is_clean(folder: Path) -> None:
    with block.open("one", format="qcow2") as disk:
        disk.truncate(3 * MIB)
        disk.pwrite(0, b"x" * (3 * MIB))
    qemu_done("qemu-img", "resize", "-q", "-f", "qcow2", "one", "4M")
    for name in ("b0", "fine"):
        assert stored(folder / "one")[name].areas == [(0, 3 * MIB)]


def test_full_and_empty_clusters_of_bits_are_read_by_qemu(folder: Path) -> None:
    qemu_done("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "tiny", "9M")
    with block.open("tiny", format="qcow2") as disk:
        ops.add(disk.bs, "b", 512, persistent=True).set(MIB, 5 * MIB)
    is_clean(folder / "tiny", "qcow2")
    assert seen_by_nbd(folder / "tiny", "b") == [(MIB, 5 * MIB)]


@pytest.mark.parametrize("seed", range(2))
def test_both_take_turns_and_a_set_knows_the_result(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = folder / "turns"
    qemu_done("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", path, "3M")
    sizes = {"fine": 512, "coarse": 65536}
    for name, size in sizes.items():
        qemu_done("qemu-img", "bitmap", "--add", "-g", str(size), path, name)
    dirty: dict[str, set[int]] = {name: set() for name in sizes}
    for turn in range(8):
        wishes = [random_change(rng) for _ in range(3)]
        if turn % 2:
            change_here(path, wishes)
        else:
            words = [f"{what} {offset} {size}" for what, offset, size in wishes]
            qemu_done("qemu-io", *(word for line in words for word in ("-c", line)), path)
        for _, offset, size in wishes:
            for name, piece in sizes.items():
                dirty[name] |= set(range(offset // piece, -(-(offset + size) // piece)))
        for name, piece in sizes.items():
            areas = stored(path)[name].areas
            found = {at // piece for start, n in areas for at in range(start, start + n, piece)}
            assert found == dirty[name], (turn, name, wishes)
    is_clean(path, "qcow2")


def random_change(rng: random.Random) -> tuple[str, int, int]:
    what = rng.choice(["write", "write -z", "discard"])
    offset = rng.randrange(3 * MIB // 512 - 200) * 512
    return what, offset, rng.randrange(1, 200) * 512


def change_here(path: Path, wishes: list[tuple[str, int, int]]) -> None:
    with block.open(os.fspath(path), format="qcow2", options={"discard": "unmap"}) as disk:
        for what, offset, size in wishes:
            if what == "write":
                disk.pwrite(offset, b"x" * size)
            elif what == "discard":
                disk.pdiscard(offset, size)
            else:
                disk.pwrite_zeroes(offset, size)


OPTIONS = """
cluster_size=512 | lazy_refcounts=on | extended_l2=on,cluster_size=128k | data_file=data.raw
refcount_bits=1 | refcount_bits=64 | compression_type=zstd | cluster_size=2M
"""


@pytest.mark.parametrize("option", OPTIONS.replace("|", " ").split())
def test_with_every_kind_of_image_both_note(folder: Path, tools: Tools, option: str) -> None:
    path = folder / "kind"
    assert tools.mine(["create", "-q", "-f", "qcow2", "-o", option, "kind", "6M"])[0] == 0
    assert tools.mine(["bitmap", "--add", "-g", "4k", "kind", "b"]) == (0, b"", b"")
    change_here(path, [("write", MIB, 8192), ("write -z", 2 * MIB, 4096)])
    qemu_done("qemu-io", "-c", "write 3M 4k", "-c", "write -z 4M 8k", path)
    change_here(path, [("discard", 5 * MIB, 65536)])
    expected = [(MIB, 8192), (2 * MIB, 4096), (3 * MIB, 4096), (4 * MIB, 8192), (5 * MIB, 65536)]
    assert stored(path)["b"].areas == expected
    is_clean(path, "qcow2")
    qemu_done("qemu-img", "bitmap", "--clear", path, "b")
    with block.open(os.fspath(path), format="qcow2", read_only=True) as disk:
        assert ops.lookup(disk.bs, "b").count == 0


# -- an image that was not closed


def test_what_qemu_did_not_close_is_inconsistent_here(folder: Path) -> None:
    killed = qemu("qemu-io", "-c", "write 0 64k", "-c", "sigraise 9", "one")
    assert killed.returncode == -9
    with block.open("one", format="qcow2") as disk:
        assert {bitmap.status for bitmap in disk.bs.dirty_bitmaps} == {"inconsistent"}
        with pytest.raises(BlockError, match="Bitmap 'b0' is inconsistent and cannot be used"):
            ops.clear(disk.bs, "b0")
        ops.remove(disk.bs, "b0")
    assert set(stored(folder / "one")) == {"fine", "off"}
    is_clean(folder / "one", "qcow2")


def test_what_we_did_not_close_is_inconsistent_there(folder: Path) -> None:
    assert stored(folder / "broken")["b0"].flags == AUTO | IN_USE
    refused = qemu("qemu-img", "bitmap", "--clear", "broken", "b0")
    assert "Bitmap 'b0' is inconsistent and cannot be used" in refused.stderr
    for name in ("b0", "fine", "off"):
        qemu_done("qemu-img", "bitmap", "--remove", "broken", name)
    is_clean(folder / "broken", "qcow2")


# -- the same line, the same answer

LINES = """
info one | info --output=json one | info broken | info --output=json broken | info old | info -U one
measure -O qcow2 one | measure --output=json -O qcow2 one | measure -O qcow2 -o cluster_size=512 one
measure -O qcow2 -o compat=0.10 one | measure -O raw one | measure -O qcow2 disk.raw | measure -O qcow2 broken
bitmap --add one b0 | bitmap --add -g 100 one x | bitmap --add -g 256 one x | bitmap --add -g 4G one x
bitmap --add -g 8G one x | bitmap --add one '' | bitmap --add old x | bitmap --add -f raw disk.raw x
bitmap --clear one x | bitmap --enable one x | bitmap --disable one x | bitmap --remove one x
bitmap --merge x one b0 | bitmap --merge b0 one x | bitmap --merge b0 -b long one b0
bitmap --merge b0 -b nope one b0 | bitmap --merge b0 -b long -F raw one b0 | bitmap --add nope x
bitmap --clear broken b0 | bitmap --enable broken b0 | bitmap --merge b0 broken fine
bitmap --merge b0 -b broken one b0 | bitmap --add --clear --disable --remove one x --clear
bitmap --add one | bitmap one b0 | bitmap -g 1k --clear one b0 | bitmap -g z --add one x
bitmap --image-opts --add driver=raw,file.filename=disk.raw x | bitmap --image-opts -f raw --add a x
convert --bitmaps disk.raw x -O qcow2 | convert --bitmaps one x -O raw | convert --bitmaps old x -O qcow2
convert --bitmaps broken x -O qcow2 | convert --skip-broken-bitmaps one x | convert --bitmaps one other x
convert --bitmaps one x -O qcow2 -o compat=0.10 | convert -n --bitmaps one long -O qcow2
snapshot -a s one | snapshot -l one | convert -n --bitmaps one one -O qcow2 | resize broken 8M | resize --shrink broken 1M
"""  # noqa: E501  # several commands a line
NODE = re.compile(rb"#block\d+")


@pytest.mark.parametrize(
    "line", [line.strip() for line in LINES.strip().replace("\n", "|").split("|")]
)
def test_one_line_has_one_answer(folder: Path, tools: Tools, line: str) -> None:
    words = shlex.split(line)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    theirs = tools.theirs(words)
    for path in list(folder.iterdir()):
        if path.name not in before:
            path.unlink()
        elif path.read_bytes() != before[path.name]:
            path.write_bytes(before[path.name])
    mine = tools.mine(words)
    if "json" in line:
        assert json.loads(mine[1])["format-specific" if "info" in line else "bitmaps"]
    assert [NODE.sub(b"node", part) if isinstance(part, bytes) else part for part in mine] == [
        NODE.sub(b"node", part) if isinstance(part, bytes) else part for part in theirs
    ]


CHANGES = """
bitmap --add one new | bitmap --add --disable -g 4k one new | bitmap --remove one b0
bitmap --clear one fine | bitmap --disable one b0 | bitmap --enable one off
bitmap --merge fine one off | bitmap --merge b0 one fine | bitmap --merge fine -b one other b1
bitmap --add --merge fine --disable -b one -F qcow2 other b1 | bitmap --remove broken b0
bitmap --add --enable broken new | bitmap --add -g 2G one 'a:b c'
convert --bitmaps -O qcow2 one target | convert --bitmaps -O qcow2 -o cluster_size=512 one target
convert --bitmaps --skip-broken-bitmaps -O qcow2 broken target
convert -n --bitmaps -O qcow2 one other | resize one 6M
commit top | rebase -u -b '' one | rebase -b '' top
"""


@pytest.mark.parametrize(
    "line", [line.strip() for line in CHANGES.strip().replace("\n", "|").split("|")]
)
def test_one_line_leaves_one_result(folder: Path, tools: Tools, line: str) -> None:
    shutil.copytree(".", folder / "mine")
    words = shlex.split(line)
    theirs = tools.theirs(words)
    os.chdir("mine")
    assert tools.mine(words) == theirs
    os.chdir("..")
    images = [folder / name for name in ("one", "other", "broken", "top", "target")]
    for path in filter(Path.exists, images):
        mine = folder / "mine" / path.name
        assert without_places(mine) == without_places(path), path.name
        is_clean(mine, "qcow2")
        qemu_done("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", path, mine)


def without_places(path: Path) -> dict[str, tuple[int, int, Areas]]:
    return {name: it[:3] for name, it in stored(path).items()}
