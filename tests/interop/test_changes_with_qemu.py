# SPDX-License-Identifier: GPL-2.0-only
"""qcow2 images whose length and options change between writes: any sequence of steps, each by us or
by the real tools. After each the other one finds a clean image with the same bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import block
from block.core import flags as f
from miniqemu.cli.img import main as img
from tests.support.qemu_tools import holds, is_clean, qemu_done

pytestmark = pytest.mark.full

CLUSTER = 4096
BIGGEST = 96  # clusters
MODES = ("off", "metadata", "falloc", "full")
AMENDS = (
    "refcount_bits=1", "refcount_bits=8", "refcount_bits=64", "refcount_bits=16",
    "lazy_refcounts=on", "lazy_refcounts=off", "compat=1.1", "compat=0.10,refcount_bits=16",
)  # fmt: skip


class Step(NamedTuple):
    """`cluster` and `count` say where, or how long the disk becomes."""

    what: str
    cluster: int
    count: int
    pattern: int
    choice: str


STEPS = st.one_of(
    st.builds(
        Step,
        st.sampled_from(("write", "write", "zeroes", "discard")),
        st.integers(0, BIGGEST - 1),
        st.integers(1, 20),
        st.integers(1, 255),
        st.just(""),
    ),
    st.builds(
        Step,
        st.just("resize"),
        st.integers(1, BIGGEST),
        st.just(0),
        st.just(0),
        st.sampled_from(MODES),
    ),
    st.builds(Step, st.just("amend"), st.just(0), st.just(0), st.just(0), st.sampled_from(AMENDS)),
)


class Disk:
    """The image, and what must be in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = bytearray(40 * CLUSTER)
        self.bits = 16
        self.version = 3

    def words(self, step: Step) -> list[str]:
        """The step as words for qemu-io or qemu-img."""
        start, nbytes = self.place(step)
        line = {
            "write": f"write -P {step.pattern} {start} {nbytes}",
            "zeroes": f"write -z {start} {nbytes}",
            "discard": f"discard {start} {nbytes}",
        }.get(step.what)
        if line is not None:
            return ["qemu-io", "-f", "qcow2", "-d", "unmap", "-c", line, os.fspath(self.path)]
        if step.what == "amend":
            return ["qemu-img", "amend", "-o", step.choice, os.fspath(self.path)]
        size = step.cluster * CLUSTER
        mode = step.choice if size > len(self.model) else "off"
        words = ["--shrink", f"--preallocation={mode}", os.fspath(self.path), str(size)]
        return ["qemu-img", "resize", "-f", "qcow2", *words]

    def place(self, step: Step) -> tuple[int, int]:
        start = step.cluster * CLUSTER % len(self.model)
        return start, min(step.count * CLUSTER, len(self.model) - start)

    def possible(self, step: Step) -> bool:
        """Version 2 knows neither lazy refcounts nor other widths."""
        if self.version == 3 or step.what != "amend":
            return True
        return step.choice in ("compat=1.1", "lazy_refcounts=off", "refcount_bits=16")

    def note(self, step: Step) -> None:
        start, nbytes = self.place(step)
        if step.what == "resize":
            size = step.cluster * CLUSTER
            del self.model[size:]
            self.model.extend(bytes(size - len(self.model)))
        elif step.what == "amend":
            self.version = {"compat=1.1": 3, AMENDS[-1]: 2}.get(step.choice, self.version)
        else:
            byte = step.pattern if step.what == "write" else 0
            self.model[start : start + nbytes] = bytes([byte]) * nbytes

    def by_us(self, step: Step) -> None:
        if step.what in ("resize", "amend"):
            assert img.main(["miniqemu-img", *self.words(step)[1:]]) == 0
            return
        start, nbytes = self.place(step)
        options = {"discard": "unmap"}
        with block.open(os.fspath(self.path), format="qcow2", options=options) as disk:
            if step.what == "write":
                disk.pwrite(start, bytes([step.pattern]) * nbytes)
            elif step.what == "zeroes":
                disk.pwrite_zeroes(start, nbytes, f.REQ_MAY_UNMAP)
            else:
                disk.pdiscard(start, nbytes)

    def check(self, by_us: bool) -> None:
        """The one that did nothing looks."""
        if by_us:
            is_clean(self.path, "qcow2")
            holds(self.path, self.model, "qcow2")
        else:
            assert img.main(["miniqemu-img", "check", "-q", os.fspath(self.path)]) == 0
            with block.open(os.fspath(self.path), format="qcow2", read_only=True) as disk:
                assert disk.pread(0, disk.length) == self.model


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(STEPS, st.booleans()), min_size=8, max_size=14))
def test_any_sequence_of_changes(
    tmp_path_factory: pytest.TempPathFactory, sequence: list[tuple[Step, bool]]
) -> None:
    disk = Disk(tmp_path_factory.mktemp("changes") / "a.qcow2")
    block.create(os.fspath(disk.path), "qcow2", len(disk.model), cluster_size=CLUSTER)
    for step, by_us in sequence:
        if not disk.possible(step):
            continue
        if by_us:
            disk.by_us(step)
        else:
            qemu_done(*disk.words(step))
        disk.note(step)
        disk.check(by_us)


def test_a_long_life_by_us_alone(tmp_path: Path) -> None:
    """Many more steps, checked by QEMU in the end."""
    import random

    source, disk = random.Random(20), Disk(tmp_path / "a.qcow2")
    block.create(os.fspath(disk.path), "qcow2", len(disk.model), cluster_size=CLUSTER)
    for number in range(150):
        what = source.choice(("write", "write", "write", "zeroes", "discard", "resize", "amend"))
        choice = source.choice(AMENDS if what == "amend" else MODES)
        cluster = source.randrange(1, BIGGEST)
        step = Step(what, cluster, source.randrange(1, 20), source.randrange(1, 256), choice)
        if disk.possible(step):
            disk.by_us(step)
            disk.note(step)
        if number % 50 == 49:
            disk.check(by_us=True)
