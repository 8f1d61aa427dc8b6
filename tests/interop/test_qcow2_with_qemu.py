# SPDX-License-Identifier: GPL-2.0-only
"""qcow2 images, ours and the real QEMU's: each reads what the other wrote, and finds no fault."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import block
from tests.support.qcow2_work import OurImage, Work, qemu_io
from tests.support.qemu_tools import holds, is_clean, qemu

# What images there are: options of create, size of the disk.
KINDS = {
    "64k": ({}, 8 << 20),
    "512": ({"cluster_size": 512}, 4 << 20),
    "4k-refcount1": ({"cluster_size": 4096, "refcount_bits": 1}, 8 << 20),
    "1k-refcount64": ({"cluster_size": 1024, "refcount_bits": 64}, 6 << 20),
    "2M": ({"cluster_size": 2 << 20}, 24 << 20),
    "v2": ({"compat": "0.10"}, 8 << 20),
    "prealloc": ({"preallocation": "metadata"}, 8 << 20),
}
ODD = 7 * 512  # sizes are no whole number of clusters


def make(folder: Path, kind: str, seed: int, backing: bool) -> tuple[Path, Work, int]:
    """An image of that kind, the model of its disk, its version."""
    options, size = KINDS[kind]
    options = dict(options)
    base = b""
    if backing:
        options.pop("preallocation", None)
        base = random.Random(seed).randbytes(size // 2 + 3 * 512)
        (folder / "base.raw").write_bytes(base)
        options.update(backing_file="base.raw", backing_fmt="raw")
    image = folder / "a.qcow2"
    block.create(os.fspath(image), "qcow2", size + ODD, **options)
    cluster_size = options.get("cluster_size", 65536)
    version = 2 if options.get("compat") == "0.10" else 3
    return image, Work(seed, size + ODD, int(str(cluster_size)), base), version


def small_caches(seed: int) -> dict[str, object]:
    """The smallest caches there can be, for every second seed."""
    return {"l2-cache-size": 1024, "l2-cache-entry-size": 512} if seed % 2 else {}


def work_and_check(folder: Path, kind: str, seed: int, backing: bool, count: int) -> None:
    image, work, version = make(folder, kind, seed, backing)
    ours = OurImage(image, work, version, **small_caches(seed))
    try:
        for op in work.ops(count):
            ours.apply(op)
    finally:
        ours.disk.flush()
        ours.close()
    is_clean(image, "qcow2")
    holds(image, work.model, "qcow2")


@pytest.mark.parametrize("backing", [False, True], ids=["alone", "overlay"])
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_random_operations_leave_a_clean_and_equal_image(
    tmp_path: Path, kind: str, backing: bool
) -> None:
    """Ten thousand in all kinds together."""
    work_and_check(tmp_path, kind, 2 * len(kind) + backing, backing, 360 if kind == "2M" else 810)


@pytest.mark.full
@pytest.mark.parametrize(
    ("kind", "backing"), [("64k", True), ("512", False), ("4k-refcount1", True), ("v2", False)]
)
def test_ten_thousand_random_operations_on_one_image(
    tmp_path: Path, kind: str, backing: bool
) -> None:
    work_and_check(tmp_path, kind, 77 + backing, backing, 10_000)


@pytest.mark.parametrize("backing", [False, True], ids=["alone", "overlay"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_qemu_writes_we_read_and_go_on_with(tmp_path: Path, kind: str, backing: bool) -> None:
    """QEMU creates and writes, we read and write, QEMU checks and reads."""
    image, work, version = make(tmp_path, kind, 5, backing)
    options, size = KINDS[kind]
    spelled = ",".join(f"{name}={value}" for name, value in options.items() if not backing)
    base = ["-b", "base.raw", "-F", "raw"] if backing else []
    if backing:
        cluster = options.get("cluster_size", 65536)
        spelled = f"cluster_size={cluster},compat={options.get('compat', '1.1')}"
    image.unlink()
    command = ["create", "-q", "-f", "qcow2", *base, *(["-o", spelled] if spelled else [])]
    done = qemu("qemu-img", *command, image, str(size + ODD))
    assert done.returncode == 0, done.stderr
    commands: list[str] = []
    for op in work.ops(150):
        command_line = qemu_io(op)
        if command_line and not (op.what == "unmap" and version == 2):
            commands += ["-c", command_line]
            if op.what != "discard":
                work.note(op)
            else:
                commands[-2:] = []
    done = qemu("qemu-io", "-f", "qcow2", "-t", "unsafe", *commands, image)
    assert done.returncode == 0, done.stdout + done.stderr
    ours = OurImage(image, work, version)
    try:
        assert ours.disk.pread(0, work.size) == work.model
        for op in work.ops(150):
            ours.apply(op)
    finally:
        ours.close()
    is_clean(image, "qcow2")
    holds(image, work.model, "qcow2")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cluster_size": "512"},
        {"cluster_size": "2M", "refcount_bits": "1"},
        {"compat": "0.10"},
        {"lazy_refcounts": "on"},
        {"preallocation": "metadata"},
        {"backing_file": "base.raw", "backing_fmt": "raw"},
        {"backing_file": "base.raw", "backing_fmt": "raw", "cluster_size": "4096"},
    ],
    ids=lambda options: "-".join(options) or "default",
)
def test_a_new_image_is_qemus_byte_for_byte(tmp_path: Path, options: dict[str, str]) -> None:
    (tmp_path / "base.raw").write_bytes(bytes(1 << 20))
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    block.create(os.fspath(mine), "qcow2", "100M", **options)
    spelled = ",".join(f"{name}={value}" for name, value in options.items())
    words = ["create", "-q", "-f", "qcow2", *(["-o", spelled] if spelled else [])]
    done = qemu("qemu-img", *words, theirs, "100M")
    assert done.returncode == 0, done.stderr
    assert mine.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        {"cluster_size": "1000"},
        {"cluster_size": "256"},
        {"cluster_size": "4M"},
        {"refcount_bits": "3"},
        {"refcount_bits": "128"},
        {"compat": "0.10", "refcount_bits": "8"},
        {"compat": "0.10", "lazy_refcounts": "on"},
        {"compat": "2"},
        {"backing_fmt": "raw"},
        {"backing_file": "base.raw", "backing_fmt": "raw", "preallocation": "metadata"},
    ],
    ids=lambda options: "-".join(f"{name}={value}" for name, value in options.items()),
)
def test_what_cannot_be_created_is_refused_in_qemus_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.raw").write_bytes(bytes(1 << 20))
    with pytest.raises(block.BlockError) as caught:
        block.create("mine", "qcow2", "1M", **options)
    assert not (tmp_path / "mine").exists()
    spelled = ",".join(f"{name}={value}" for name, value in options.items())
    said = qemu("qemu-img", "create", "-f", "qcow2", "-o", spelled, "theirs", "1M").stderr
    assert said == f"qemu-img: theirs: {caught.value}\n"


def test_compressed_clusters_are_read_and_written_over(tmp_path: Path) -> None:
    source, image = tmp_path / "plain.raw", tmp_path / "packed.qcow2"
    data = b"".join(bytes([n % 251]) * 1000 + os.urandom(24) for n in range(2048))
    source.write_bytes(data)
    done = qemu("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", source, image)
    assert done.returncode == 0, done.stderr
    work = Work(3, len(data), 65536, data)
    ours = OurImage(image, work)
    try:
        for op in work.ops(400):
            ours.apply(op)
    finally:
        ours.close()
    is_clean(image, "qcow2")
    holds(image, work.model, "qcow2")


def test_an_image_with_snapshots_is_written_and_the_snapshots_stay(tmp_path: Path) -> None:
    image, work, _ = make(tmp_path, "64k", 8, backing=False)
    ours = OurImage(image, work)
    for op in work.ops(100):
        ours.apply(op)
    ours.close()
    before = bytes(work.model)
    assert qemu("qemu-img", "snapshot", "-c", "first", image).returncode == 0
    ours = OurImage(image, work)
    for op in work.ops(200):
        ours.apply(op)
    ours.close()
    is_clean(image, "qcow2")
    holds(image, work.model, "qcow2")
    assert qemu("qemu-img", "snapshot", "-a", "first", image).returncode == 0
    holds(image, before, "qcow2")


def test_a_chain_of_three_reads_as_qemu_reads_it(tmp_path: Path) -> None:
    base, middle, top = (tmp_path / name for name in ("base.qcow2", "middle.qcow2", "top.qcow2"))
    block.create(os.fspath(base), "qcow2", 4 << 20)
    block.create(os.fspath(middle), "qcow2", 6 << 20, backing_file="base.qcow2",
                 backing_fmt="qcow2")  # fmt: skip
    block.create(os.fspath(top), "qcow2", 5 << 20, backing_file="middle.qcow2",
                 backing_fmt="qcow2", cluster_size=4096)  # fmt: skip
    for number, path in enumerate((base, middle, top)):
        size = (4, 6, 5)[number] << 20
        with block.open(os.fspath(path), format="qcow2") as disk:
            work = Work(number, size, 65536)
            for op in work.ops(40):
                if op.what == "write":
                    disk.pwrite(op.offset, bytes([op.pattern]) * op.nbytes)
                elif op.what == "zeroes":
                    disk.pwrite_zeroes(op.offset, op.nbytes)
    with block.open(os.fspath(top), read_only=True) as disk:
        data = disk.pread(0, 5 << 20)
    holds(top, data, "qcow2")
    is_clean(top, "qcow2")


def test_a_grown_disk_hides_what_the_backing_file_has_behind_the_old_end(tmp_path: Path) -> None:
    (tmp_path / "base.raw").write_bytes(b"b" * (4 << 20))
    image = tmp_path / "a.qcow2"
    block.create(os.fspath(image), "qcow2", (1 << 20) + 512, backing_file="base.raw",
                 backing_fmt="raw", cluster_size=512)  # fmt: skip
    with block.open(os.fspath(image), format="qcow2") as disk:
        disk.truncate(3 << 20)
        data = disk.pread(0, 3 << 20)
    assert data == b"b" * ((1 << 20) + 512) + bytes((2 << 20) - 512)
    is_clean(image, "qcow2")
    holds(image, data, "qcow2")


def test_the_map_of_an_image_is_qemus(tmp_path: Path) -> None:
    import json

    from block.core import flags as f

    image, work, _ = make(tmp_path, "64k", 21, backing=False)
    ours = OurImage(image, work)
    for op in work.ops(60):
        if op.what != "reopen":
            ours.apply(op)
    ours.close()
    said = qemu("qemu-img", "map", "--output=json", "-f", "qcow2", image).stdout
    theirs = [(e["start"], e["length"], e["data"], e["zero"]) for e in json.loads(said)]
    mine: list[tuple[int, int, bool, bool]] = []
    with block.open(os.fspath(image), format="qcow2", read_only=True) as disk:
        assert disk.bs is not None
        offset = 0
        while offset < work.size:
            found, length, _, _ = disk.bs.block_status(offset, work.size - offset)
            mine.append((offset, length, bool(found & f.BDRV_BLOCK_DATA),
                         bool(found & f.BDRV_BLOCK_ZERO)))  # fmt: skip
            offset += length

    def merged(rows: list[tuple[int, int, bool, bool]]) -> list[tuple[int, bool, bool]]:
        """Where the kind of bytes changes, whatever pieces they were told in."""
        edges: list[tuple[int, bool, bool]] = []
        for start, _, data, zero in rows:
            if not edges or edges[-1][1:] != (data, zero):
                edges.append((start, data, zero))
        return edges

    assert merged(mine) == merged(theirs)
