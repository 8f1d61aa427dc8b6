# SPDX-License-Identifier: GPL-2.0-only
"""Every format with its options, ours and QEMU's side by side: the interoperability matrix.

A Kind is one way to make an image. All values of all options together would be thousands of
images; `pairs` chooses few in which every value of an option still meets every value of every
other. Each kind is tried in two directions:

    ours    we create and write; QEMU finds no fault, reads the same, and writes on; we read that
    QEMU's  QEMU creates and writes; we read the same, and write on; QEMU finds no fault, reads it

`python -m tests.interop` (make interop-matrix) runs them and prints how many there were.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import block
from block.core import flags as f
from miniqemu.cli.img import main as img
from tests.support.qcow2_work import Op, OurImage, Work, qemu_io
from tests.support.qemu_tools import is_clean, qemu_done

OURS, QEMUS = "ours", "QEMU's"
DIRECTIONS = (OURS, QEMUS)
OUR_OPS, QEMU_OPS = 60, 40
ODD = 7 * 512  # no disk is a whole number of clusters

Options = dict[str, str]


class Kind(NamedTuple):
    """One way to make an image. Options are qemu-img's, spelled as there; `backing`: over a raw
    file half as long; `packed`: some compressed clusters come first; `snapshot`: whoever begins
    takes one half-way; `once`: it is written in one go, by convert."""

    fmt: str
    options: Options
    backing: bool = False
    packed: bool = False
    snapshot: bool = False
    once: bool = False

    def __str__(self) -> str:
        words = [f"{name}={value}" for name, value in self.options.items()]
        return "-".join([self.fmt, *words, *(["backing"] if self.backing else [])])

    @property
    def unit(self) -> int:
        """What is allocated together: a cluster or a grain."""
        size = self.options.get("cluster_size", "65536")
        return int(size.removesuffix("M")) << 20 if size.endswith("M") else int(size)

    @property
    def size(self) -> int:
        """The disk's length: some dozens of clusters."""
        return min(max(64 * self.unit, 1 << 18), 6 << 20) * (2 if self.unit > 1 << 20 else 1) + ODD


# -- which kinds there are

# What qcow2 has. `data`: none, a data file, one that is raw.
QCOW2: Mapping[str, tuple[str, ...]] = {
    "cluster_size": ("512", "4096", "16384", "65536", "2M"),
    "refcount_bits": ("1", "2", "4", "8", "16", "32", "64"),
    "extended_l2": ("off", "on"),
    "data": ("no", "file", "raw"),
    "lazy_refcounts": ("off", "on"),
    "preallocation": ("off", "metadata", "falloc", "full"),
    "compression_type": ("none", "zlib", "zstd"),
    "snapshot": ("no", "yes"),
    "backing": ("no", "yes"),
}
QED: Mapping[str, tuple[str, ...]] = {
    "cluster_size": ("4096", "65536", "1M"),
    "table_size": ("2", "4", "16"),  # with 1 QEMU makes images that it cannot open
    "backing": ("no", "yes"),
}
VMDK: Mapping[str, tuple[str, ...]] = {
    "subformat": (
        "monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat",
    ),
    "zeroed_grain": ("off", "on"),
    "compat6": ("off", "on"),
    "adapter_type": ("ide", "lsilogic"),
    "backing": ("no", "yes"),
}  # fmt: skip
RAW: Mapping[str, tuple[str, ...]] = {"offset": ("0", "1048576", "66048"), "rest": ("0", "131072")}


def can_be(fmt: str, row: Options) -> bool:
    """Whether an image can be made with these values."""
    backing = row.get("backing") == "yes"
    if fmt == "vmdk":
        flat = row["subformat"].endswith("Flat")
        return not (flat and (backing or row["zeroed_grain"] == "on"))
    if fmt != "qcow2":
        return True
    extended, packed = row["extended_l2"] == "on", row["compression_type"] != "none"
    return not (
        (extended and row["cluster_size"] in ("512", "4096"))
        or (backing and row["data"] == "raw")
        or (backing and row["preallocation"] != "off" and not extended)
        or (packed and (row["data"] != "no" or row["preallocation"] != "off"))
        or (row["snapshot"] == "yes" and (row["data"] != "no" or row["refcount_bits"] == "1"))
    )


def rows(fmt: str, axes: Mapping[str, tuple[str, ...]]) -> list[Options]:
    """All combinations that can be."""
    names = list(axes)
    every = (dict(zip(names, values, strict=True)) for values in itertools.product(*axes.values()))
    return [row for row in every if can_be(fmt, row)]


def pairs(every: list[Options]) -> list[Options]:
    """Few rows, in which each two values of two options that can meet do so (greedy).

    Each pair of values has a bit, and each row a number with the bits of its pairs.
    """
    bits: dict[tuple[tuple[str, str], tuple[str, str]], int] = {}
    meets = []
    for row in every:
        met = itertools.combinations(row.items(), 2)
        meets.append(sum(bits.setdefault(pair, 1 << len(bits)) for pair in met))
    left = (1 << len(bits)) - 1
    chosen = []
    while left:
        news = [(met & left).bit_count() for met in meets]
        best = news.index(max(news))
        chosen.append(every[best])
        left &= ~meets[best]
    return chosen


def qcow2_kind(row: Options) -> Kind:
    packed = row["compression_type"] != "none"
    left_out = {"data", "backing", "snapshot", "" if packed else "compression_type"}
    options = {name: value for name, value in row.items() if name not in left_out}
    if row["data"] != "no":
        options["data_file"] = "data.raw"
    if row["data"] == "raw":
        options["data_file_raw"] = "on"
    return Kind("qcow2", options, row["backing"] == "yes", packed, row["snapshot"] == "yes")


def plain_kind(fmt: str, row: Options) -> Kind:
    options = {name: value for name, value in row.items() if name != "backing"}
    return Kind(fmt, options, row.get("backing") == "yes")


def kinds(every: bool = False) -> list[Kind]:
    """All kinds of the matrix; with `every`, each combination instead of each pair."""
    choose = (lambda table: table) if every else pairs
    found = [
        Kind("qcow2", {"compat": "0.10", "cluster_size": size}, backing)
        for size in QCOW2["cluster_size"]
        for backing in (False, True)
    ]
    found += map(qcow2_kind, choose(rows("qcow2", QCOW2)))
    for fmt, axes in (("qed", QED), ("vmdk", VMDK), ("raw", RAW)):
        found += [plain_kind(fmt, row) for row in choose(rows(fmt, axes))]
    return [*found, Kind("vmdk", {"subformat": "streamOptimized"}, once=True)]


# -- one cell


def _img(*words: str | Path) -> int:
    """Runs our miniqemu-img; its exit status."""
    return img.run_command("miniqemu-img", list(map(os.fspath, words)))


class Cell:
    """One kind in one direction, in a folder of its own, which is the working directory."""

    def __init__(self, kind: Kind, seed: int) -> None:
        self.kind = kind
        self.image = Path(f"disk.{kind.fmt}").absolute()
        base = b""
        if kind.backing:
            base = random.Random(seed).randbytes(kind.size // 2 // 512 * 512)
            Path("base.raw").write_bytes(base)
            if kind.fmt == "vmdk":  # takes no other
                qemu_done("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "base.raw", "base.vmdk")
        self.work = Work(seed, kind.size, kind.unit, base)
        self.version = 2 if kind.options.get("compat") == "0.10" else 3
        self.operations = 0

    def run(self, direction: str) -> int:
        """Tries it; returns how many operations were done."""
        then: bytes | None = None
        if self.kind.once:
            self._once(direction)
        elif direction == OURS:
            self._create_ours()
            self._pack_ours()
            self._work_ours()
            then = self._snapshot(ours=True)
            self._judged_by_qemu()
            self._work_qemus()
            self._read_by_us()
        else:
            self._create_qemus()
            self._pack_qemus()
            self._work_qemus()
            then = self._snapshot(ours=False)
            self._read_by_us()
            self._work_ours()
            self._judged_by_qemu()
        if then is not None:
            self._is_in_snapshot(then)
        return self.operations

    # -- creating

    def _options(self) -> Options:
        if self.kind.fmt == "raw":
            return {}
        if not self.kind.backing:
            return self.kind.options
        base = "vmdk" if self.kind.fmt == "vmdk" else "raw"
        return {**self.kind.options, "backing_file": f"base.{base}", "backing_fmt": base}

    def _create_ours(self) -> None:
        if self.kind.fmt == "raw":
            self._create_raw()
        else:
            block.create(os.fspath(self.image), self.kind.fmt, self.kind.size, **self._options())

    def _create_qemus(self) -> None:
        if self.kind.fmt == "raw":
            self._create_raw()
            return
        options = ",".join(f"{name}={value}" for name, value in self._options().items())
        command = ["create", "-q", "-f", self.kind.fmt, *(["-o", options] if options else [])]
        qemu_done("qemu-img", *command, self.image, str(self.kind.size))

    def _create_raw(self) -> None:
        """The disk is a part of a file that holds something else before and behind it."""
        before, behind = (int(self.kind.options[name]) for name in ("offset", "rest"))
        self.image.write_bytes(b"#" * before + bytes(self.kind.size) + b"#" * behind)

    def _raw_options(self) -> dict[str, int]:
        if self.kind.fmt != "raw":
            return {}
        return {"offset": int(self.kind.options["offset"]), "size": self.kind.size}

    # -- working

    def _may(self, op: Op, qemus: bool) -> bool:
        """Whether an operation means the same to both (why not: docs/qed.md, docs/vmdk.md)."""
        if op.what == "reopen":
            return not qemus
        if op.what == "discard":
            return self.kind.fmt == "qcow2" and self.version > 2
        if op.what in ("zeroes", "unmap"):
            return not (self.kind.fmt == "qed" and self.kind.backing)
        return True

    def _packed(self) -> list[Op]:
        """Compressed writes go to clusters in which nothing is."""
        if not self.kind.packed:
            return []
        self.operations += 1
        return [Op("write", self.kind.unit, 2 * self.kind.unit, 7)]

    def _pack_ours(self) -> None:
        for op in self._packed():
            with block.open(os.fspath(self.image), format=self.kind.fmt) as disk:
                disk.pwrite(op.offset, bytes([op.pattern]) * op.nbytes, f.REQ_WRITE_COMPRESSED)
            self.work.note(op)

    def _pack_qemus(self) -> None:
        for op in self._packed():
            command = f"write -c -P {op.pattern} {op.offset} {op.nbytes}"
            qemu_done("qemu-io", "-c", command, *self._named())
            self.work.note(op)

    def _ops(self, count: int, qemus: bool) -> Iterator[Op]:
        for op in self.work.ops(count):
            if self._may(op, qemus):
                self.operations += 1
                yield op

    def _open_ours(self) -> OurImage:
        options = self._raw_options()
        return OurImage(self.image, self.work, self.version, self.kind.fmt, **options)

    def _work_ours(self) -> None:
        ours = self._open_ours()
        try:
            for op in self._ops(OUR_OPS, qemus=False):
                ours.apply(op)
        finally:
            ours.close()

    def _work_qemus(self) -> None:
        commands: list[str | Path] = []
        for op in self._ops(QEMU_OPS, qemus=True):
            command = qemu_io(op)
            assert command is not None, op
            commands += ["-c", command]
            self.work.note(op, self.kind.backing, self.version)
        said = qemu_done("qemu-io", "-d", "unmap", "-t", "unsafe", *commands, *self._named())
        assert "failed" not in said, said

    # -- judging

    def _named(self) -> list[str | Path]:
        """How QEMU's tools are told which image it is."""
        if self.kind.fmt != "raw":
            return ["-f", self.kind.fmt, self.image]
        place = ",".join(f"{name}={value}" for name, value in self._raw_options().items())
        return ["--image-opts", f"driver=raw,{place},file.driver=file,file.filename={self.image}"]

    def _read_by_us(self) -> None:
        ours = self._open_ours()
        ours.close()  # which reads all of it
        if self.kind.fmt in ("qcow2", "qed", "vmdk"):
            assert _img("check", "-q", "-f", self.kind.fmt, self.image) == 0, (
                "our check finds fault"
            )

    def _judged_by_qemu(self) -> None:
        if self.kind.fmt == "raw":
            before = int(self.kind.options["offset"])
            content = self.image.read_bytes()
            assert content[before : before + self.kind.size] == self.work.model
            assert set(content[:before] + content[before + self.kind.size :]) <= {ord("#")}
            return
        is_clean(self.image, self.kind.fmt)
        reference = Path("reference.raw")
        reference.write_bytes(self.work.model)
        qemu_done("qemu-img", "compare", "-f", self.kind.fmt, "-F", "raw", self.image, reference)
        if self.kind.options.get("data_file_raw") == "on":
            content = Path("data.raw").read_bytes()
            assert content[: self.kind.size] == self.work.model, "the data file is the disk"
            # QEMU copies up to the end of the last cluster; we leave the file as long as it is.
            assert not any(content[self.kind.size :])

    def _snapshot(self, ours: bool) -> bytes | None:
        """Takes a snapshot; returns what it holds."""
        if not self.kind.snapshot:
            return None
        self.operations += 1
        words = ("snapshot", "-c", "then", self.image)
        if ours:
            assert _img(*words) == 0
        else:
            qemu_done("qemu-img", *words)
        return bytes(self.work.model)

    def _is_in_snapshot(self, then: bytes) -> None:
        """Both read the snapshot, whatever has been written since."""
        words = ("convert", "-l", "then", "-f", self.kind.fmt, "-O", "raw", self.image)
        assert _img(*words, "ours.raw") == 0
        qemu_done("qemu-img", *words, "qemus.raw")
        assert Path("ours.raw").read_bytes() == Path("qemus.raw").read_bytes() == then

    def _once(self, direction: str) -> None:
        for op in self.work.ops(OUR_OPS):
            if op.what in ("write", "zeroes"):
                self.work.note(op)
                self.operations += 1
        source, back = Path("source.raw"), Path("back.raw")
        source.write_bytes(self.work.model)
        options = ",".join(f"{name}={value}" for name, value in self.kind.options.items())
        there = ["convert", "-f", "raw", "-O", self.kind.fmt, "-o", options, "source.raw"]
        again = ["convert", "-f", self.kind.fmt, "-O", "raw", os.fspath(self.image), "back.raw"]
        if direction == OURS:
            assert _img(*there, self.image) == 0
            is_clean(self.image, self.kind.fmt)
            qemu_done("qemu-img", *again)
        else:
            qemu_done("qemu-img", *there, self.image)
            assert _img(*again) == 0
        assert back.read_bytes() == self.work.model
