# SPDX-License-Identifier: GPL-2.0-only
"""Any sequence of writes, wishes and openings, beside a plain set of numbers for each bitmap."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

import block
from block.core.backend import BlockBackend
from block.ops import bitmap as ops
from tests.support.qcow2_bitmaps import AUTO, Areas, stored
from tests.support.qcow2_damage import counts, run_check

BLOCK = 4096
BLOCKS = 24
NAMES = ("a", "b", "c")
GRANULARITIES = (512, 4096, 16384, 65536)


class Model:
    """What must be known of one bitmap: which sectors its dirty pieces cover."""

    def __init__(self, granularity: int, disabled: bool) -> None:
        self.granularity = granularity
        self.disabled = disabled
        self.pieces: set[int] = set()

    def touch(self, sectors: Iterable[int]) -> None:
        self.pieces |= {sector * 512 // self.granularity for sector in sectors}

    def sectors(self, total: int) -> set[int]:
        per = self.granularity // 512
        return {at for piece in self.pieces for at in range(piece * per, (piece + 1) * per)} & set(
            range(total)
        )


def sectors_of(areas: Iterable[tuple[int, int]]) -> set[int]:
    return {at for start, size in areas for at in range(start // 512, -(-(start + size) // 512))}


class Side:
    """An image with its models."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.length = BLOCKS * BLOCK
        self.models: dict[str, Model] = {}
        block.create(os.fspath(path), "qcow2", self.length, cluster_size=512)
        self.disk = self.open()

    def open(self) -> BlockBackend:
        return block.open(
            os.fspath(self.path), format="qcow2", cache="unsafe", options={"discard": "unmap"}
        )

    def do(self, what: str, name: str, other: str, first: int, count: int) -> None:
        offset = min(first * 1024, self.length - 512)
        nbytes = min(count * 1536, self.length - offset)
        if what in ("pwrite", "zeroes", "discard"):
            self.change(what, offset, nbytes)
        elif what == "reopen":
            self.disk.close()
            self.compare_file()
            self.disk = self.open()
        elif what == "grow":
            self.length += count * 512
            self.disk.truncate(self.length)
        elif what == "add" and name not in self.models:
            granularity, disabled = GRANULARITIES[first % 4], count % 3 == 0
            ops.add(self.disk.bs, name, granularity, persistent=True, disabled=disabled)
            self.models[name] = Model(granularity, disabled)
        elif name in self.models:
            self.wish(what, name, other)

    def change(self, what: str, offset: int, nbytes: int) -> None:
        if what == "pwrite":
            self.disk.pwrite(offset, b"x" * nbytes)
        elif what == "zeroes":
            self.disk.pwrite_zeroes(offset, nbytes)
        else:
            self.disk.pdiscard(offset, nbytes)
        for model in self.models.values():
            if not model.disabled:
                model.touch(sectors_of([(offset, nbytes)]))

    def wish(self, what: str, name: str, other: str) -> None:
        bs, model = self.disk.bs, self.models[name]
        if what == "remove":
            ops.remove(bs, name)
            del self.models[name]
        elif what == "clear":
            ops.clear(bs, name)
            model.pieces.clear()
        elif what == "merge" and other in self.models:
            ops.merge(bs, name, bs, other)
            model.touch(self.models[other].sectors(self.length // 512))
        elif what in ("enable", "disable"):
            ops.enable(bs, name, what == "enable")
            model.disabled = what == "disable"

    def compare(self, name: str, areas: Areas) -> None:
        assert sectors_of(areas) == self.models[name].sectors(self.length // 512), name

    def compare_memory(self) -> None:
        assert {bitmap.name for bitmap in self.disk.bs.dirty_bitmaps} == set(self.models)
        for name, model in self.models.items():
            bitmap = ops.lookup(self.disk.bs, name)
            assert bitmap.disabled == model.disabled
            self.compare(name, list(bitmap.areas()))

    def compare_file(self) -> None:
        found = stored(self.path)
        assert set(found) == set(self.models)
        for name, it in found.items():
            model = self.models[name]
            assert (it.flags, it.granularity) == (0 if model.disabled else AUTO, model.granularity)
            self.compare(name, it.areas)
        result, lines = run_check(self.path)
        assert (counts(result), lines) == ((0, 0, 0), [])


CHANGES = ["pwrite", "zeroes", "discard"]
WISHES = ["add", "add", "clear", "merge", "enable", "disable", "remove", "grow", "reopen"]
STEP: st.SearchStrategy[Any] = st.tuples(
    st.sampled_from(CHANGES + WISHES),
    st.sampled_from(NAMES),
    st.sampled_from(NAMES),
    st.integers(0, 4 * BLOCKS),
    st.integers(1, 12),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEP, min_size=3, max_size=14))
def test_bitmaps_are_what_a_set_would_be(steps: list[tuple[str, str, str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        side = Side(Path(folder) / "a.qcow2")
        try:
            side.do("add", "a", "a", 0, 1)
            for step in steps:
                side.do(*step)
                side.compare_memory()
        finally:
            side.disk.close()
        side.compare_file()
