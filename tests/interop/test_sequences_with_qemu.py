# SPDX-License-Identifier: GPL-2.0-only
"""Any sequence of work on a chain of qcow2 images: our tools, QEMU's, and a plain bytearray.

Both sides do the same in folders of their own, with the same answers, and now and then they go on
with what the other has left. After each step `info` and `map` of both are the same, but for places
in the file. The bytes, and what `check` says, are looked at now and then and at the end: by us in
both folders, and by QEMU in both.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import block
from tests.support.disk_chain import Layer, Saved, own_extents, without_places
from tests.support.qemu_tools import holds, is_clean, qemu_done
from tests.support.side_by_side import Answer, Capture, SideBySide

pytestmark = pytest.mark.full

LARGEST = 1 << 20
DEEPEST = 4
NAMES = ("eins", "zwei", "drei")
BITMAPS = ("b0", "b1")

KINDS = (
    "cluster_size=512", "cluster_size=4k", "cluster_size=64k", "cluster_size=512,compat=0.10",
    "cluster_size=4k,compat=0.10", "cluster_size=16k,extended_l2=on",
    "cluster_size=64k,extended_l2=on", "cluster_size=4k,lazy_refcounts=on",
    "cluster_size=512,refcount_bits=1", "cluster_size=4k,refcount_bits=64,compression_type=zstd",
    "cluster_size=64k,compression_type=zstd,extended_l2=on",
)  # fmt: skip
AMENDMENTS = (
    "compat=0.10", "compat=1.1", "lazy_refcounts=on", "lazy_refcounts=off", "refcount_bits=1",
    "refcount_bits=8", "refcount_bits=16", "refcount_bits=64", "compat=1.1,lazy_refcounts=on",
    "compat=0.10,refcount_bits=16", "cluster_size=8k",
)  # fmt: skip
BITMAP_CHANGES = ("--add", "--remove", "--clear", "--enable", "--disable")

sizes = st.integers(1, LARGEST // 512).map(lambda sectors: sectors * 512)
# Where: a number that the disk's size bounds; and what to round it to, and how long.
places = st.tuples(
    st.integers(0, LARGEST - 1),
    st.sampled_from(["odd", "sector", "cluster"]),
    st.sampled_from([1, 512, 3000, 4096, 16384, 100_000, 1 << 18]),
    st.sampled_from(["odd", "cluster"]),
)
bytes_ = st.integers(1, 255)
kinds = st.sampled_from(KINDS)

Place = tuple[int, str, int, str]


class Sequences(RuleBasedStateMachine):
    """Both tools, and the layers that say what must come out; the last one is worked on."""

    def __init__(self, capture: Capture) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        self.root = Path(self.temporary.name)
        self.tools = SideBySide(self.root, capture)
        self.layers: list[Layer] = []
        self.number = 0
        self.info: dict[str, Any] = {}
        # QEMU commits in pieces of 4 KiB and more, of which we copy only what is allocated. What
        # has a cluster differs then, and with it what later is known to be zero.
        self.compares_maps = True

    def teardown(self) -> None:
        try:
            if self.layers:
                self.judge()
        finally:
            self.temporary.cleanup()

    @property
    def top(self) -> Layer:
        return self.layers[-1]

    @property
    def below(self) -> Layer:
        return self.layers[-2]

    @property
    def cluster_size(self) -> int:
        return int(self.info["cluster-size"])

    @property
    def version(self) -> int:
        return 2 if self.info["format-specific"]["data"]["compat"] == "0.10" else 3

    def has_backing(self) -> bool:
        return len(self.layers) > 1

    def new_name(self, fmt: str) -> str:
        self.number += 1
        return f"disk{self.number}.{fmt}"

    def img(self, *words: str) -> Answer:
        return self.tools.both("qemu-img", *words)

    def io(self, command: str, *options: str) -> Answer:
        return self.tools.both("qemu-io", "-f", "qcow2", *options, "-c", command, self.top.name)

    def place(self, place: Place) -> tuple[int, int]:
        """An offset and a length within the disk."""
        at, rounding, nbytes, length_rounding = place
        units = {"odd": 1, "sector": 512, "cluster": self.cluster_size}
        offset = at % len(self.top.data)
        offset -= offset % units[rounding]
        unit = units[length_rounding]
        return offset, min(-(-nbytes // unit) * unit, len(self.top.data) - offset)

    # -- the beginning: a raw file, an image over it, and one over that

    @initialize(base=sizes, size=sizes, kind=kinds, top_kind=kinds, seed=st.integers(1, 250))
    def begin(self, base: int, size: int, kind: str, top_kind: str, seed: int) -> None:
        data = bytearray(base)
        data[: base // 2] = bytes(range(seed, seed + 5)) * (base // 10 + 1)
        del data[base:]
        self.layers = [Layer(self.new_name("raw"), "raw", data)]
        for folder in self.tools.folders:
            (folder / self.top.name).write_bytes(data)
        self.put_over(kind, size)
        self.put_over(top_kind, None)

    def put_over(self, kind: str, size: int | None) -> None:
        name = self.new_name("qcow2")
        words = ["-b", self.top.name, "-F", self.top.fmt, name]
        assert self.img(
            *("create", "-f", "qcow2", "-o", kind, *words), *([str(size)] if size else [])
        ).status == 0  # fmt: skip
        layer = Layer(name, "qcow2", bytearray(self.top.data))
        if size:
            layer.resize(size)
        self.layers.append(layer)

    # -- a guest's work

    @rule(place=places, byte=bytes_)
    def write(self, place: Place, byte: int) -> None:
        offset, nbytes = self.place(place)
        assert self.io(f"write -P {byte} {offset} {nbytes}").status == 0
        self.top.fill(offset, nbytes, byte)

    @rule(place=places, byte=bytes_, flush=st.booleans())
    def write_through(self, place: Place, byte: int, flush: bool) -> None:
        offset, nbytes = self.place(place)
        words = f"{'-f ' if flush else ''}-P {byte} {offset} {nbytes}"
        assert self.io(f"write {words}", "-t", "writethrough").status == 0
        assert self.io("flush").status == 0
        self.top.fill(offset, nbytes, byte)

    @rule(place=places, flags=st.sampled_from(["-z", "-z -u"]), unmap=st.booleans())
    def zero(self, place: Place, flags: str, unmap: bool) -> None:
        offset, nbytes = self.place(place)
        mode = ("-d", "unmap") if unmap else ()
        assert self.io(f"write {flags} {offset} {nbytes}", *mode).status == 0
        self.top.fill(offset, nbytes, 0)

    @rule(place=places)
    def discard(self, place: Place) -> None:
        offset, nbytes = self.place(place)
        assert self.io(f"discard {offset} {nbytes}", "-d", "unmap").status == 0
        if self.version > 2 or not self.has_backing():
            self.top.discard(offset, nbytes, self.cluster_size)

    @rule(at=st.integers(0, LARGEST), byte=bytes_)
    def write_compressed(self, at: int, byte: int) -> None:
        """One cluster: of several, some might be written before one is refused."""
        offset, nbytes = self.place((at, "cluster", 1, "cluster"))
        if self.io(f"write -c -P {byte} {offset} {nbytes}").status == 0:
            self.top.fill(offset, nbytes, byte)
            self.top.is_packed = True

    @rule(place=places)
    def read(self, place: Place) -> None:
        offset, nbytes = self.place(place)
        answer = self.io(f"read -v {offset} {min(nbytes, 3000)}")
        assert answer.status == 0

    # -- snapshots and bitmaps

    @rule(name=st.sampled_from(NAMES))
    def take_snapshot(self, name: str) -> None:
        """Not of an image alone with refcounts of one bit: its zeroes may have a table that no
        snapshot can share, and with us have none."""
        narrow = self.info["format-specific"]["data"]["refcount-bits"] == 1
        if self.top.find(name) or (narrow and not self.has_backing()):
            return
        if self.img("snapshot", "-c", name, self.top.name).status == 0:
            self.top.saved.append(Saved(name, bytes(self.top.data)))
        else:
            # Where refcounts are too narrow QEMU leaks the copy of the L1 table.
            self.tools.ask_qemu("qemu-img", "check", "-q", "-r", "leaks", self.top.name)

    @rule(name=st.sampled_from(NAMES))
    def apply_snapshot(self, name: str) -> None:
        answer = self.img("snapshot", "-a", name, self.top.name)
        saved = self.top.find(name)
        if answer.status:
            return
        assert saved is not None, "there is no such snapshot"
        self.top.data = bytearray(saved.data if saved.data is not None else self.what_qemu_reads())

    @rule(name=st.sampled_from(NAMES))
    def delete_snapshot(self, name: str) -> None:
        answer = self.img("snapshot", "-d", name, self.top.name)
        saved = self.top.find(name)
        assert (answer.status == 0) == (saved is not None)
        if saved:
            self.top.saved.remove(saved)

    @rule(change=st.sampled_from(BITMAP_CHANGES), name=st.sampled_from(BITMAPS))
    def change_bitmap(self, change: str, name: str) -> None:
        self.img("bitmap", change, self.top.name, name)

    def what_qemu_reads(self) -> bytes:
        out = self.root / "read"
        qemu_done("qemu-img", "convert", "-O", "raw", self.tools.theirs / self.top.name, out)
        return out.read_bytes()

    # -- the image's shape

    @rule(size=sizes, shrink=st.booleans())
    def resize(self, size: int, shrink: bool) -> None:
        """Shrinks to whole clusters: of others QEMU shows the rest, when the disk grows again."""
        if size < len(self.top.data):
            size = min(-(-size // self.cluster_size) * self.cluster_size, len(self.top.data))
        if self.qemu_cannot_grow(self.top, size):
            return
        words = ["--shrink"] if shrink else []
        if self.img("resize", "-f", "qcow2", *words, self.top.name, str(size)).status == 0:
            self.top.resize(size)

    @staticmethod
    def qemu_cannot_grow(layer: Layer, size: int) -> bool:
        """With subclusters, and over a longer file, QEMU refuses if the disk ends within a
        compressed cluster. We unpack it."""
        odd_end = len(layer.data) % (64 << 10) != 0
        return layer.is_packed and odd_end and size > len(layer.data)

    @rule(options=st.sampled_from(AMENDMENTS))
    def amend(self, options: str) -> None:
        """To version 2 QEMU takes bitmaps, which are lost, and zstd, which it takes for zlib there;
        of clusters that a snapshot has it may fill some with zeroes. We refuse all of these."""
        kind = self.info["format-specific"]["data"]
        kept = self.top.saved or "bitmaps" in kind or kind["compression-type"] == "zstd"
        if not ("0.10" in options and kept):
            self.img("amend", "-o", options, self.top.name)

    @rule(kind=kinds, packed=st.booleans(), over=st.booleans())
    def convert(self, kind: str, packed: bool, over: bool) -> None:
        """A copy of other options takes the image's place; over the same backing file, or alone."""
        name = self.new_name("qcow2")
        words = ["-c"] if packed else []
        if over and self.has_backing():
            words += ["-B", self.below.name, "-F", self.below.fmt]
        line = ["convert", "-O", "qcow2", "-o", kind, *words, self.top.name, name]
        assert self.img(*line).status == 0
        base = self.layers[:-1] if "-B" in words else []
        if base:  # QEMU may copy more than is needed over a backing file that is shorter
            self.compares_maps = False
        self.layers = [*base, Layer(name, "qcow2", self.top.data, is_packed=packed)]

    # -- the chain

    @precondition(lambda self: len(self.layers) < DEEPEST)
    @rule(kind=kinds, size=st.none() | sizes)
    def go_up(self, kind: str, size: int | None) -> None:
        self.put_over(kind, size)

    @precondition(lambda self: self.has_backing() and self.below.fmt == "qcow2")
    @rule()
    def go_down(self) -> None:
        """The top is thrown away."""
        del self.layers[-1]

    @precondition(has_backing)
    @rule(keep=st.booleans())
    def commit(self, keep: bool) -> None:
        if self.qemu_cannot_grow(self.below, len(self.top.data)):
            return
        words = ["-d"] if keep else []
        if self.img("commit", "-f", "qcow2", *words, self.top.name).status == 0:
            below = self.below
            below.resize(max(len(below.data), len(self.top.data)))
            self.top.commit(below)
            self.compares_maps = False
            self.top.forget_saved()

    @rule(depth=st.integers(0, DEEPEST))
    def rebase(self, depth: int) -> None:
        """Over one that is farther below, or over none."""
        base = self.layers[: min(depth, len(self.layers) - 1)]
        words = ["-b", base[-1].name, "-F", base[-1].fmt] if base else ["-b", ""]
        if self.img("rebase", *words, self.top.name).status == 0:
            self.layers = [*base, self.top]
            self.top.forget_saved()

    @precondition(has_backing)
    @rule(fmt=st.sampled_from(["raw", "qcow2"]), unsafe=st.booleans())
    def rebase_to_a_copy(self, fmt: str, unsafe: bool) -> None:
        name = self.new_name(fmt)
        assert self.img("convert", "-O", fmt, self.below.name, name).status == 0
        words = ["-u"] if unsafe else []
        line = ["rebase", *words, "-b", name, "-F", fmt, self.top.name]
        assert self.img(*line).status == 0
        self.layers = [Layer(name, fmt, self.below.data), self.top]

    @rule()
    def swap(self) -> None:
        self.judge()
        self.tools.swap()

    # -- what must be true

    @invariant()
    def both_tell_the_same(self) -> None:
        """About the image that is worked on."""
        if self.layers:
            name = self.top.name
            self.info = self.tools.both_json(without_places, "info", "--output=json", name)
            assert self.info["virtual-size"] == len(self.top.data)
            if self.compares_maps:
                self.tools.both_json(own_extents, "map", "--output=json", name)

    def judge(self) -> None:
        """Both folders, by us and by QEMU: the bytes of all layers, and no fault in any."""
        for layer in self.layers:
            for who, folder in zip(("we", "QEMU"), self.tools.folders, strict=True):
                path = folder / layer.name
                with block.open(os.fspath(path), format=layer.fmt, read_only=True) as disk:
                    found = disk.pread(0, disk.length)
                    assert found == layer.data, f"{layer.name}, where {who} worked last"
                holds(path, layer.data, layer.fmt)
                if layer.fmt == "qcow2":
                    is_clean(path, layer.fmt)
            if layer.fmt == "qcow2":
                assert self.tools.ask_us("qemu-img", "check", layer.name).status == 0


# No phase that shrinks: each try costs seconds, and a sequence is short enough to be read.
CALM = settings(
    max_examples=40,
    stateful_step_count=15,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(600)
def test_any_sequence_of_work_leaves_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    run_state_machine_as_test(lambda: Sequences(capfd), settings=CALM)
