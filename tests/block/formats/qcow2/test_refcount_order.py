# SPDX-License-Identifier: GPL-2.0-only
"""Another width of refcounts for an image in place: it stays whole, whenever the power goes."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest

import block
from block.core.error import BlockError
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.support.qcow2_amend import change, cut_all, fill
from tests.support.qcow2_cuts import CLEAN, check, new_image, plain
from tests.support.qcow2_cuts import SIZE as TAPE_SIZE
from tests.support.qcow2_disk import Tape, open_on
from tests.support.qcow2_tables import cluster_of

WIDTHS = (1, 2, 4, 8, 16, 32, 64)


@pytest.mark.parametrize("cluster_size", [512, 65536])
def test_every_width_becomes_every_other(tmp_path: Path, opener: Opener, cluster_size: int) -> None:
    path = tmp_path / "a.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, cluster_size=cluster_size)
    disk = opener(path)
    seen = fill(disk, SIZE)
    widths = random.Random(1).sample([*WIDTHS, *WIDTHS], 8)
    for bits in [*widths, 1, 64, 1, 16]:
        change(disk, refcount_bits=bits)
        assert state_of(disk).refcount_bits == bits
        disk.pwrite(0, seen[:512])
        disk.pwrite_zeroes(SIZE // 2, cluster_size)
    disk.close()
    assert check(path) == CLEAN
    assert opener(path).pread(0, SIZE) == seen


def test_a_refcount_that_is_too_large_is_named(image: Path, opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, b"x" * CLUSTER)
    place = cluster_of(disk, 0)
    disk.close()
    data = bytearray(image.read_bytes())
    refblock = 2 * CLUSTER
    data[refblock + 2 * (place // CLUSTER) + 1] = 2
    image.write_bytes(data)
    disk = opener()
    complaint = f"width to 1 bits: Cluster at offset {place:#x} has a refcount of 2"
    with pytest.raises(BlockError, match=complaint):
        change(disk, refcount_bits=1)
    assert state_of(disk).refcount_bits == 16
    disk.close()
    assert image.read_bytes() == data


@pytest.mark.parametrize("fails_at", ["a block", "the header"])
def test_a_failure_leaves_the_old_refcounts(tmp_path: Path, fails_at: str) -> None:
    tape = Tape(new_image(tmp_path, cluster_size=512))
    path = tmp_path / "failed.qcow2"
    with open_on(tape) as disk:
        seen = fill(disk, TAPE_SIZE)
        disk.flush()
        real, end = tape.note, len(tape.data)

        async def fail(name: str, *args: Any) -> None:
            await real(name, *args)
            if name == "pwritev" and (args[0] == 0 if fails_at == "the header" else args[0] > end):
                tape.note = real  # type: ignore[method-assign]  # it fails once
                raise BlockError(errno.EIO, "bad sector")

        tape.note = fail  # type: ignore[method-assign]  # a disk that fails in one place
        with pytest.raises(BlockError, match="bad sector"):
            change(disk, refcount_bits=64)
        assert state_of(disk).refcount_bits == 16
        disk.pwrite(TAPE_SIZE // 2, b"y" * 4096)
    path.write_bytes(tape.data)
    assert check(path) == CLEAN
    expected = seen[: TAPE_SIZE // 2] + b"y" * 4096 + seen[TAPE_SIZE // 2 + 4096 :]
    assert plain(path, tmp_path) == expected


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("before", "after"), [(16, 64), (16, 1), (1, 32)])
def test_a_power_cut_while_refcounts_change_leaves_leaks_at_most(
    tmp_path: Path, before: int, after: int, shuffle: bool
) -> None:
    tape = Tape(new_image(tmp_path, cluster_size=512, refcount_bits=before))
    with open_on(tape) as disk:
        seen = fill(disk, TAPE_SIZE)
        disk.flush()
        start = len(tape.writes)
        change(disk, refcount_bits=after)
    cut_all(tape, start, 10, shuffle, tmp_path, seen)
