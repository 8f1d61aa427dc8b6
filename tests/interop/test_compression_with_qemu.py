# SPDX-License-Identifier: GPL-2.0-only
"""Compressed clusters, ours and the real QEMU's: each reads, checks and writes over the other's."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import block
from block.core import flags as f
from block.core.error import BlockError
from tests.support.qcow2_work import OurImage, Work
from tests.support.qemu_tools import holds, is_clean, qemu, qemu_done

pytestmark = pytest.mark.full

# (options of create, size): the last cluster is not whole.
KINDS = {
    "zlib": ({}, (3 << 20) + 7 * 512),
    "zstd": ({"compression_type": "zstd"}, (3 << 20) + 7 * 512),
    "512": ({"cluster_size": 512}, (256 << 10) + 512),
    "4k-zstd-refcount4": (
        {"cluster_size": 4096, "refcount_bits": 4, "compression_type": "zstd"}, (1 << 20) + 512
    ),
    "2M": ({"cluster_size": 2 << 20}, (7 << 20) + 512),
    "subclusters": ({"extended_l2": "on"}, (2 << 20) + 512),
    "v2": ({"compat": "0.10"}, (2 << 20) + 512),
}  # fmt: skip


def content(size: int, seed: int = 1) -> bytes:
    """Words, noise, and holes of a few KiB to a few hundred."""
    source = random.Random(seed)
    words = [source.randbytes(source.randint(3, 40)) for _ in range(100)]
    parts: list[bytes] = []
    left = size
    while left > 0:
        n = min(left, source.choice((5000, 70_000, 300_000)))
        kind = source.random()
        if kind < 0.5:
            part = b"".join(source.choice(words) for _ in range(n // 3))[:n].ljust(n, b"-")
        else:
            part = source.randbytes(n) if kind < 0.75 else bytes(n)
        parts.append(part)
        left -= n
    return b"".join(parts)


def spelled(options: dict[str, object]) -> list[str]:
    words = ",".join(f"{name}={value}" for name, value in options.items())
    return ["-o", words] if words else []


def ours(command: str, *words: str | Path) -> None:
    from miniqemu.cli.img.main import main

    assert main(["miniqemu-img", command, *map(os.fspath, words)]) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_we_compress_qemu_reads_and_finds_no_fault_with(tmp_path: Path, kind: str) -> None:
    options, size = KINDS[kind]
    plain, image = tmp_path / "plain.raw", tmp_path / "ours.qcow2"
    data = content(size)
    plain.write_bytes(data)
    ours("convert", "-c", "-f", "raw", "-O", "qcow2", *spelled(dict(options)), plain, image)
    is_clean(image, "qcow2")
    holds(image, data, "qcow2")
    assert image.stat().st_size % 512 == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_qemu_compresses_we_read_and_write_over(tmp_path: Path, kind: str) -> None:
    options, size = KINDS[kind]
    plain, image = tmp_path / "plain.raw", tmp_path / "theirs.qcow2"
    data = content(size)
    plain.write_bytes(data)
    words = ["-c", "-f", "raw", "-O", "qcow2", *spelled(dict(options))]
    qemu_done("qemu-img", "convert", *words, plain, image)
    work = Work(5, size, int(str(options.get("cluster_size", 65536))), data)
    mine = OurImage(image, work, 2 if "compat" in options else 3)
    try:
        assert mine.disk.pread(0, size) == data
        for op in work.ops(120):
            mine.apply(op)
    finally:
        mine.close()
    is_clean(image, "qcow2")
    holds(image, work.model, "qcow2")


def test_both_take_the_same_room(tmp_path: Path) -> None:
    plain, ours_, theirs = (tmp_path / name for name in ("plain.raw", "a.qcow2", "b.qcow2"))
    plain.write_bytes(content(6 << 20))
    words = ("-c", "-f", "raw", "-O", "qcow2")
    ours("convert", *words, plain, ours_)
    qemu_done("qemu-img", "convert", *words, plain, theirs)
    assert ours_.stat().st_size <= 1.1 * theirs.stat().st_size


# -- anything, in any order, by either


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("compress", "write", "zero", "discard", "theirs", "theirs -c")),
        st.integers(0, 15),
        st.integers(1, 3),
    ),
    min_size=3,
    max_size=14,
)
CLUSTER = 4096


class Both:
    """One image that we write, and QEMU writes, and what must be in it."""

    def __init__(self, path: Path, method: str) -> None:
        self.path = path
        self.size = 16 * CLUSTER
        self.model = bytearray(self.size)
        path.unlink(missing_ok=True)
        block.create(
            os.fspath(path), "qcow2", self.size, cluster_size=CLUSTER, compression_type=method
        )
        self.number = 0

    def data(self, nbytes: int) -> bytes:
        self.number += 1
        noise = random.Random(self.number).randbytes(nbytes // 3)
        return noise.ljust(nbytes, bytes([self.number % 251 + 1]))

    def run(self, steps: list[Step]) -> None:
        at = 0
        while at < len(steps):
            if steps[at][0].startswith("theirs"):
                self._theirs(*steps[at])
                at += 1
                continue
            with block.open(os.fspath(self.path), format="qcow2") as disk:
                while at < len(steps) and not steps[at][0].startswith("theirs"):
                    self._ours(disk, *steps[at])
                    at += 1
                assert disk.pread(0, self.size) == self.model

    def _ours(self, disk: block.BlockBackend, what: str, cluster: int, count: int) -> None:
        start = cluster * CLUSTER
        nbytes = min(count * CLUSTER, self.size - start)
        data = self.data(nbytes)
        if what == "compress":
            for at in range(0, nbytes, CLUSTER):
                part = data[at : at + CLUSTER]
                if was_taken(disk, start + at, part):
                    self.model[start + at : start + at + CLUSTER] = part
        elif what == "write":
            inside = slice(start + 100, start + nbytes - 100)
            disk.pwrite(start + 100, data[100 : nbytes - 100])
            self.model[inside] = data[100 : nbytes - 100]
        elif what == "zero":
            disk.pwrite_zeroes(start, nbytes)
            self.model[start : start + nbytes] = bytes(nbytes)
        else:
            disk.pdiscard(start, nbytes)
            self.model[start : start + nbytes] = disk.pread(start, nbytes)

    def _theirs(self, what: str, cluster: int, count: int) -> None:
        start = cluster * CLUSTER
        pattern = self.number % 250 + 1
        for at in range(start, min(start + count * CLUSTER, self.size), CLUSTER):
            command = f"write {what.removeprefix('theirs')} -P {pattern} {at} {CLUSTER}"
            done = qemu("qemu-io", "-f", "qcow2", "-c", command, self.path)
            if "wrote" in done.stdout:
                self.model[at : at + CLUSTER] = bytes([pattern]) * CLUSTER
            else:
                assert "-c" in what, done.stdout


def was_taken(disk: block.BlockBackend, offset: int, data: bytes) -> bool:
    """Writes a cluster compressed; False: it was in use, and stays as it is."""
    try:
        disk.pwrite(offset, data, f.REQ_WRITE_COMPRESSED)
    except BlockError as error:
        if "cluster in use" in str(error):
            return False
        raise
    return True


@pytest.mark.timeout(120)
@given(steps=STEPS, method=st.sampled_from(("zlib", "zstd")))
@settings(max_examples=12, deadline=None)
def test_any_sequence_of_writes_by_both_leaves_an_image_without_fault(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step], method: str
) -> None:
    path = tmp_path_factory.mktemp("both") / "both.qcow2"
    both = Both(path, method)
    both.run(steps)
    is_clean(path, "qcow2")
    holds(path, both.model, "qcow2")


def test_what_is_refused_is_refused_by_both_with_the_same_number(tmp_path: Path) -> None:
    image = tmp_path / "a.qcow2"
    block.create(os.fspath(image), "qcow2", 4 * 65536)
    qemu_done("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 64k", image)
    for place, message in (
        ("0 64k", "Input/output error"),
        ("512 64k", "Invalid argument"),
        ("64k 512", "Invalid argument"),
    ):
        done = qemu("qemu-io", "-f", "qcow2", "-c", f"write -c {place}", image)
        assert message in done.stdout
        offset, nbytes = (int(word.replace("64k", "65536")) for word in place.split())
        with (
            block.open(os.fspath(image), format="qcow2") as disk,
            pytest.raises(BlockError) as caught,
        ):
            disk.pwrite(offset, bytes(nbytes), f.REQ_WRITE_COMPRESSED)
        assert os.strerror(caught.value.errno or 0) == message


def test_several_buffers_are_packed_at_once_and_each_lands_in_its_place(tmp_path: Path) -> None:
    plain, image = tmp_path / "plain.raw", tmp_path / "ours.qcow2"
    data = content(24 << 20, seed=2)
    plain.write_bytes(data)
    ours("convert", "-c", "-f", "raw", "-O", "qcow2", plain, image)
    is_clean(image, "qcow2")
    holds(image, data, "qcow2")


@pytest.mark.parametrize("method", ["zlib", "zstd"])
def test_what_qemu_packed_among_other_clusters_is_mapped_and_converted_as_by_qemu(
    tmp_path: Path, method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    below, image = tmp_path / "below.raw", tmp_path / "mixed.qcow2"
    size, cluster = 64 * 16384, 16384
    below.write_bytes(content(size, seed=4))
    options = f"compression_type={method},cluster_size={cluster}"
    words = ["-f", "qcow2", "-o", options, "-b", below, "-F", "raw"]
    qemu_done("qemu-img", "create", *words, image, str(size))
    source, commands = random.Random(3), list[str]()
    for number in range(64):
        command = source.choice(("-c -P", "-c -P", "-c -P", "-P", "-z", "hole"))
        value = f" {number + 1}" if command.endswith("P") else ""
        if command != "hole":
            commands += ["-c", f"write {command}{value} {number * cluster} {cluster}"]
    qemu_done("qemu-io", "-f", "qcow2", *commands, image)
    capfd.readouterr()
    ours("map", "--output=json", image)
    theirs = qemu_done("qemu-img", "map", "--output=json", image)
    assert json.loads(capfd.readouterr().out) == json.loads(theirs)
    found = [tmp_path / name for name in ("ours.raw", "theirs.raw")]
    ours("convert", "-f", "qcow2", "-O", "raw", image, found[0])
    qemu_done("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, found[1])
    assert found[0].read_bytes() == found[1].read_bytes()
    packed = tmp_path / "packed.qcow2"
    ours("convert", "-c", "-f", "qcow2", "-O", "qcow2", "-o", options, image, packed)
    is_clean(packed, "qcow2")
    holds(packed, found[1].read_bytes(), "qcow2")
