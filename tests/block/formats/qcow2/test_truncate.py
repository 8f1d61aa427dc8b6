# SPDX-License-Identifier: GPL-2.0-only
"""Shorter and longer disks: what is let go, what is kept, what is there beforehand."""

from __future__ import annotations

import errno
import os
import random
import struct
from pathlib import Path
from typing import Any

import pytest

import block
from block.core import flags as f
from block.core.error import BlockError
from block.formats.qcow2 import zero
from block.formats.qcow2.cache import Table
from block.formats.qcow2.layout import SIZE_AT
from block.formats.qcow2.state import Qcow2State
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.support.drivers import Disk
from tests.support.qcow2_cuts import CLEAN, LEAKS, check, new_image, plain
from tests.support.qcow2_cuts import SIZE as TAPE_SIZE
from tests.support.qcow2_disk import FLUSH, Tape, open_on


def clean(path: Path) -> None:
    assert check(path) == CLEAN


# -- shorter


def test_a_shorter_disk_keeps_what_lies_before_its_end(image: Path, opener: Opener) -> None:
    disk = opener()
    data = os.urandom(SIZE)
    disk.pwrite(0, data)
    disk.truncate(3 * CLUSTER + 1024)
    assert disk.length == 3 * CLUSTER + 1024
    assert disk.pread(0, disk.length) == data[: disk.length]
    disk.close()
    clean(image)
    assert opener().pread(0, 3 * CLUSTER + 1024) == data[: 3 * CLUSTER + 1024]


def test_the_file_becomes_shorter_too(image: Path, opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, b"x" * SIZE)
    disk.flush()
    before = image.stat().st_size
    disk.truncate(CLUSTER)
    assert image.stat().st_size <= before - SIZE + 2 * CLUSTER
    disk.close()
    clean(image)


def test_what_was_cut_off_does_not_come_back(image: Path, opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, b"x" * SIZE)
    disk.truncate(CLUSTER + 512)
    disk.truncate(SIZE)
    assert disk.pread(0, SIZE) == b"x" * (CLUSTER + 512) + bytes(SIZE - CLUSTER - 512)
    disk.pwrite(SIZE - 512, b"y" * 512)
    disk.close()
    clean(image)


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_what_was_cut_off_shows_no_backing_file(tmp_path: Path, compat: str) -> None:
    base, top = tmp_path / "base", tmp_path / "top"
    base.write_bytes(b"b" * (2 * CLUSTER + 512))
    options = {"backing_file": "base", "backing_fmt": "raw", "compat": compat}
    block.create(os.fspath(top), "qcow2", SIZE, **options)
    with block.open(os.fspath(top), format="qcow2") as disk:
        disk.pwrite(CLUSTER, b"x" * CLUSTER)
        disk.truncate(CLUSTER)
        if compat == "0.10":
            with pytest.raises(BlockError) as caught:
                disk.truncate(SIZE)
            assert caught.value.errno == errno.ENOTSUP
            said = "Failed to zero out new clusters: Operation not supported"
            assert caught.value.message == said
            return
        disk.truncate(SIZE)
        assert disk.pread(0, SIZE) == b"b" * CLUSTER + bytes(SIZE - CLUSTER)
    clean(top)


def test_what_hides_a_backing_file_is_safe_before_the_size_is_written(tmp_path: Path) -> None:
    """Else a power cut in between leaves a longer disk that shows it."""
    base, top = tmp_path / "base", tmp_path / "top"
    base.write_bytes(b"b" * 3 * CLUSTER)
    options = {"backing_file": os.fspath(base), "backing_fmt": "raw"}
    block.create(os.fspath(top), "qcow2", CLUSTER, **options)
    tape = Tape(top.read_bytes())
    with open_on(tape) as disk:
        disk.truncate(3 * CLUSTER)
    at = [offset for offset, _ in tape.writes].index(SIZE_AT)
    safe = max(n for n, write in enumerate(tape.writes[:at]) if write == FLUSH)
    image = bytearray(tape.cut(safe, random.Random(0), False))
    image[SIZE_AT : SIZE_AT + 8] = tape.writes[at][1]
    top.write_bytes(image)
    with block.open(os.fspath(top), format="qcow2") as disk:
        assert disk.pread(0, 3 * CLUSTER) == b"b" * CLUSTER + bytes(2 * CLUSTER)


def test_what_clusters_held_before_does_not_come_to_light(image: Path, opener: Opener) -> None:
    """Preallocated ones may have been somebody's; the new part of a disk reads as zeroes."""
    disk = opener(options={"pass-discard-request": "off"})
    disk.pwrite(0, b"x" * SIZE)
    disk.pdiscard(0, SIZE)
    disk.flush()
    disk.truncate(2 * SIZE, prealloc="metadata")
    assert disk.pread(0, 2 * SIZE) == bytes(2 * SIZE)
    disk.close()
    clean(image)


def test_l2_tables_and_refcount_blocks_go(tmp_path: Path, opener: Opener) -> None:
    path = tmp_path / "small.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, cluster_size=512)
    disk = opener(path)
    disk.pwrite(0, b"x" * SIZE)
    disk.flush()
    s = state_of(disk)
    before = sum(map(bool, s.reftable))
    disk.truncate(512 * 64 * 3)
    assert sum(map(bool, s.l1_table)) == 3
    assert sum(map(bool, s.reftable)) < before // 4
    disk.pwrite(0, b"y" * disk.length)
    disk.truncate(SIZE)
    disk.pwrite(SIZE - 512, b"z" * 512)
    assert disk.pread(512 * 64 * 3, 512) == bytes(512)
    disk.close()
    clean(path)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_refcounts_of_any_width_are_shrunk(tmp_path: Path, opener: Opener, bits: int) -> None:
    path = tmp_path / "wide.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, cluster_size=512, refcount_bits=bits)
    disk = opener(path)
    disk.pwrite(0, b"x" * SIZE)
    disk.truncate(512)
    disk.close()
    clean(path)
    assert path.stat().st_size < SIZE // 8


def test_an_empty_tail_of_a_huge_disk_costs_nothing(
    tmp_path: Path, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "huge.qcow2"
    block.create(os.fspath(path), "qcow2", 1 << 40)
    disk = opener(path)
    disk.pwrite(0, b"x")
    asked: list[int] = []
    real = zero.load_slice

    async def load_slice(s: Qcow2State, offset: int) -> Table | None:
        asked.append(offset)
        return await real(s, offset)

    monkeypatch.setattr(zero, "load_slice", load_slice)
    disk.truncate(1 << 20)
    assert len(asked) == 16, "slices of the one L2 table that there is"
    disk.close()
    clean(path)


def test_a_file_that_cannot_be_cut_stays_long(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tape = Tape(new_image(tmp_path))
    with open_on(tape) as disk:
        disk.pwrite(0, b"x" * TAPE_SIZE)
        length = len(tape.data)
        tape.errors["truncate"] = BlockError(errno.EPERM, "a block device")
        disk.truncate(CLUSTER)
        assert (disk.length, len(tape.data)) == (CLUSTER, length)
    assert "Failed to truncate the tail of the image: a block device" in capfd.readouterr().err


def test_where_the_l1_table_cannot_be_written_tables_are_leaked_at_most(tmp_path: Path) -> None:
    tape = Tape(new_image(tmp_path, cluster_size=512))
    path = tmp_path / "failed.qcow2"
    with open_on(tape) as disk:
        disk.pwrite(0, b"x" * TAPE_SIZE)
        disk.flush()
        real, seen = tape.note, []

        async def fail_at_l1(name: str, *args: Any) -> None:
            await real(name, *args)
            if name == "pwritev" and state_of(disk).l1_offset <= args[0] < 512 * 40:
                seen.append(args[0])
                raise BlockError(errno.EIO, "bad sector")

        tape.note = fail_at_l1  # type: ignore[method-assign]  # a disk that fails in one place
        with pytest.raises(BlockError, match="bad sector"):
            disk.truncate(512)
        assert seen
        tape.note = real  # type: ignore[method-assign]  # it is whole again
        disk.pwrite(TAPE_SIZE - 512, b"y" * 512)
    path.write_bytes(tape.data)
    assert check(path) in (CLEAN, LEAKS)
    assert plain(path, tmp_path)[-512:] == b"y" * 512


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("cluster_size", [pytest.param(512, marks=pytest.mark.full), 4096])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_power_cut_while_it_shrinks_keeps_what_lies_before_the_end(
    tmp_path: Path, cluster_size: int, shuffle: bool, lazy: bool
) -> None:
    tape = Tape(new_image(tmp_path, cluster_size=cluster_size, lazy_refcounts=lazy))
    data, size = os.urandom(TAPE_SIZE), 300 * 512
    # No table is written only because it had to make room for another one.
    with open_on(tape, **{"refcount-cache-size": "1M"}) as disk:
        disk.pwrite(0, data)
        disk.flush()
        before = len(tape.writes)
        disk.truncate(size)
        after = len(tape.writes)
    source, path = random.Random(cluster_size), tmp_path / "cut.qcow2"
    for at in sorted(source.sample(range(before, after + 1), min(12, after - before))):
        path.write_bytes(tape.cut(at, source, shuffle))
        if lazy:
            check(path, "-r", "all")
        assert check(path) in (CLEAN, LEAKS)
        assert plain(path, tmp_path)[:size] == data[:size]


# -- longer


def fields(path: Path) -> int:
    (size,) = struct.unpack_from(">Q", path.read_bytes(), SIZE_AT)
    return int(size)


@pytest.mark.parametrize("mode", ["metadata", "falloc", "full"])
@pytest.mark.parametrize(
    ("old", "used"), [(0, 0), (SIZE, 1024), (SIZE - 512, 1024), (SIZE - 512, 0)]
)
def test_a_preallocated_part_has_its_places(
    tmp_path: Path, opener: Opener, mode: str, old: int, used: int
) -> None:
    path = tmp_path / "a.qcow2"
    block.create(os.fspath(path), "qcow2", old)
    disk = opener(path)
    if used:
        disk.pwrite(old - used, b"x" * used)
    disk.truncate(old + SIZE, prealloc=mode)
    length = path.stat().st_size
    assert length >= SIZE
    assert disk.bs is not None
    status, _, _, _ = disk.bs.block_status(old, SIZE)
    assert status & f.BDRV_BLOCK_OFFSET_VALID
    assert disk.pread(old, SIZE) == bytes(SIZE)
    disk.pwrite(old, b"y" * SIZE)
    disk.flush()
    assert path.stat().st_size == length, "all had a place"
    assert disk.pread(old - used, used) == b"x" * used
    assert disk.pread(old, SIZE) == b"y" * SIZE
    disk.close()
    clean(path)
    assert fields(path) == old + SIZE


@pytest.mark.parametrize(
    ("mode", "filled"), [("metadata", False), ("falloc", True), ("full", True)]
)
def test_the_file_has_room_if_it_was_asked_for(tmp_path: Path, mode: str, filled: bool) -> None:
    path = tmp_path / "a.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, preallocation=mode)
    assert (path.stat().st_blocks * 512 >= SIZE) == filled
    clean(path)


@pytest.mark.parametrize("mode", ["metadata", "falloc"])
def test_preallocation_shows_no_backing_file(tmp_path: Path, opener: Opener, mode: str) -> None:
    base, top = tmp_path / "base", tmp_path / "top"
    base.write_bytes(b"b" * 4 * CLUSTER)
    old = CLUSTER + 512
    block.create(os.fspath(top), "qcow2", old, backing_file="base", backing_fmt="raw")
    disk = opener(top)
    disk.truncate(8 * CLUSTER, prealloc=mode)
    assert disk.pread(0, 8 * CLUSTER) == b"b" * old + bytes(8 * CLUSTER - old)
    disk.close()
    clean(top)


def test_a_preallocation_that_fails_gives_all_back(tmp_path: Path) -> None:
    tape = Tape(new_image(tmp_path, cluster_size=512))
    path = tmp_path / "failed.qcow2"
    with open_on(tape, **{"l2-cache-entry-size": 512}) as disk:
        asked = len(tape.asked("truncate"))
        real = Disk.note

        async def no_space(name: str, *args: Any) -> None:
            await real(tape, name, *args)
            if name == "truncate" and len(tape.asked("truncate")) > asked + 5:
                raise BlockError(errno.ENOSPC, "No space left on device")

        tape.note = no_space  # type: ignore[method-assign]  # a disk that becomes full
        with pytest.raises(
            BlockError, match="Failed to resize underlying file: No space"
        ) as caught:
            disk.truncate(2 * TAPE_SIZE, prealloc="falloc")
        assert caught.value.errno == errno.ENOSPC
        assert disk.length == TAPE_SIZE
        tape.note = real.__get__(tape)  # type: ignore[method-assign]  # it has room again
        disk.truncate(2 * TAPE_SIZE)
        assert disk.bs is not None
        for at in range(TAPE_SIZE, 2 * TAPE_SIZE, 1 << 15):
            assert not disk.bs.block_status(at, 512)[0] & f.BDRV_BLOCK_OFFSET_VALID
    path.write_bytes(tape.data)
    clean(path)


def test_a_power_cut_while_it_preallocates_leaves_leaks_at_most(tmp_path: Path) -> None:
    tape = Tape(new_image(tmp_path, cluster_size=4096))
    with open_on(tape, **{"l2-cache-size": 1024, "l2-cache-entry-size": 512}) as disk:
        disk.pwrite(0, b"x" * 4096)
        disk.flush()
        before = len(tape.writes)
        disk.truncate(3 * TAPE_SIZE, prealloc="metadata")
        after = len(tape.writes)
    source, path = random.Random(0), tmp_path / "cut.qcow2"
    for at in sorted(source.sample(range(before, after + 1), 10)):
        path.write_bytes(tape.cut(at, source, False))
        assert check(path) in (CLEAN, LEAKS)
        assert plain(path, tmp_path)[:4096] == b"x" * 4096
