# SPDX-License-Identifier: GPL-2.0-only
"""An image that is emptied: what it held is gone, its backing file shows through."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest

import block
from block.core import snapshot
from block.core.error import BlockError
from block.core.make_empty import make_empty
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.support.qcow2_cuts import CLEAN, check, new_image
from tests.support.qcow2_cuts import SIZE as TAPE_SIZE
from tests.support.qcow2_disk import Tape, open_on


def empty(disk: block.BlockBackend) -> None:
    assert disk.bs is not None
    make_empty(disk.bs)


@pytest.mark.parametrize(
    "options",
    [{}, {"compat": "0.10"}, {"cluster_size": 512}, {"refcount_bits": 1}, {"lazy_refcounts": True}],
    ids=str,
)
def test_the_backing_file_shows_through(
    tmp_path: Path, opener: Opener, options: dict[str, Any]
) -> None:
    base, top = tmp_path / "base", tmp_path / "top"
    base.write_bytes(b"b" * SIZE)
    block.create(os.fspath(top), "qcow2", SIZE, backing_file="base", backing_fmt="raw", **options)
    disk = opener(top)
    fresh = top.stat().st_size
    disk.pwrite(0, b"x" * SIZE)
    disk.pwrite_zeroes(CLUSTER, CLUSTER)
    disk.flush()
    empty(disk)
    assert disk.pread(0, SIZE) == b"b" * SIZE
    if options.get("compat") != "0.10" and options.get("cluster_size") != 512:
        assert top.stat().st_size == fresh + -fresh % CLUSTER, "as short as a new one"
    disk.pwrite(3 * CLUSTER, b"y" * 512)
    assert disk.pread(3 * CLUSTER, 1024) == b"y" * 512 + b"b" * 512
    disk.close()
    assert check(top) == CLEAN
    assert top.read_bytes()[72:80] == bytes(8) or options.get("compat") == "0.10"


def test_a_new_image_and_an_emptied_one_are_the_same(image: Path, opener: Opener) -> None:
    before = image.read_bytes()
    disk = opener()
    disk.pwrite(0, os.urandom(SIZE))
    empty(disk)
    disk.close()
    assert image.read_bytes() == before[: image.stat().st_size].ljust(image.stat().st_size, b"\0")


@pytest.mark.parametrize("cluster_size", [65536, 4096])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("repairs", ["we", "qemu"])
def test_a_power_cut_on_the_way_is_repaired(
    tmp_path: Path,
    cluster_size: int,
    shuffle: bool,
    repairs: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    tape = Tape(new_image(tmp_path, cluster_size=cluster_size))
    with open_on(tape) as disk:
        disk.pwrite(0, b"x" * TAPE_SIZE)
        disk.flush()
        before = len(tape.writes)
        empty(disk)
        after = len(tape.writes)
    source, path = random.Random(1), tmp_path / "cut.qcow2"
    for at in range(before, after + 1):
        path.write_bytes(tape.cut(at, source, shuffle))
        if repairs == "qemu":
            check(path, "-r", "all")
        with block.open(os.fspath(path), format="qcow2") as disk:
            found = disk.pread(0, TAPE_SIZE)
        assert found in (b"x" * TAPE_SIZE, bytes(TAPE_SIZE))
        assert check(path) == CLEAN
    capfd.readouterr()


def test_a_failure_on_the_way_leaves_a_node_that_is_not_used(tmp_path: Path) -> None:
    tape = Tape(new_image(tmp_path))
    path = tmp_path / "failed.qcow2"
    with open_on(tape) as disk:
        disk.pwrite(0, b"x" * TAPE_SIZE)
        real = tape.note

        async def fail_in_the_header(name: str, *args: Any) -> None:
            await real(name, *args)
            if name == "pwritev" and args[0] == 40:
                raise BlockError(errno.EIO, "bad sector")

        tape.note = fail_in_the_header  # type: ignore[method-assign]  # a disk with a bad place
        with pytest.raises(BlockError, match=r"Failed to empty .*: bad sector"):
            empty(disk)
        tape.note = real  # type: ignore[method-assign]  # it is whole again
        with pytest.raises(BlockError, match="Image is half empty"):
            disk.pwrite(0, b"y")
    path.write_bytes(tape.data)
    check(path, "-r", "all")
    assert check(path) == CLEAN


def test_a_format_that_cannot_do_that_says_so(tmp_path: Path, opener: Opener) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(CLUSTER))
    with pytest.raises(BlockError, match="raw does not support emptying of image files"):
        empty(opener(path, format="raw"))


def test_a_read_only_image_is_not_emptied(image: Path, opener: Opener) -> None:
    before = image.read_bytes()
    with pytest.raises(BlockError, match="read-only"):
        empty(opener(read_only=True))
    assert image.read_bytes() == before


def test_snapshots_keep_what_they_have(image: Path, opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, b"x" * SIZE)
    assert disk.bs is not None
    snapshot.create(disk.bs, snapshot.SnapshotInfo("s"))
    empty(disk)
    assert disk.pread(0, SIZE) == bytes(SIZE)
    assert state_of(disk).nb_snapshots == 1
    snapshot.goto(disk.bs, "s")
    assert disk.pread(0, SIZE) == b"x" * SIZE
    disk.close()
    assert check(image) == CLEAN
