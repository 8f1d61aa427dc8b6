# SPDX-License-Identifier: GPL-2.0-only
"""What is written before what, and what is left where a write fails or the power goes."""

from __future__ import annotations

import errno
import os
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import block
from block.core.backend import BlockBackend
from block.core.error import BlockError
from tests.block.formats.vmdk.conftest import GRAIN, SIZE, state_of
from tests.support.qcow2_disk import FLUSH, Tape, open_on
from tests.support.qcow2_work import Work
from tests.support.qemu_tools import is_clean
from tests.support.vmdk_images import cowd, descriptor, peek

FIRST = 128 * 512  # where the first grain of a new image of 8 MiB goes


@contextmanager
def on_tape(image: Path, **options: object) -> Iterator[tuple[BlockBackend, Tape]]:
    tape = Tape(image.read_bytes())
    with open_on(tape, driver="vmdk", **options) as disk:
        yield disk, tape


def names(image: Path, writes: list[tuple[int, bytes]]) -> list[str]:
    """What stands where a write went."""
    redundant, directory = peek(image, "rgdOffset") * 512, peek(image, "gdOffset") * 512
    found = []
    for write in writes:
        if write == FLUSH:
            found.append("flush")
        elif write[0] < redundant:
            found.append("descriptor")
        elif write[0] < directory:
            found.append("redundant entry")
        else:
            found.append("entry" if write[0] < FIRST else "data")
    return found


def test_data_then_both_entries_then_the_cid(image: Path) -> None:
    with on_tape(image) as (disk, tape):
        disk.pwrite(0, b"x" * 512)
        order = ["data", "flush", "entry", "redundant entry"]
        assert names(image, tape.writes) == [*order, "descriptor", "flush"]
        tape.writes.clear()
        disk.pwrite(GRAIN, b"y" * 512)
        disk.pwrite(0, b"z" * 512)
        assert names(image, tape.writes) == [*order, "data"]


def test_new_grains_side_by_side_take_one_write_and_one_entry(image: Path) -> None:
    with on_tape(image) as (disk, tape):
        disk.pwrite(GRAIN // 2, b"x" * 3 * GRAIN)
        data, _, entries, *_ = tape.writes
        assert data == (FIRST, bytes(GRAIN // 2) + b"x" * 3 * GRAIN + bytes(GRAIN // 2))
        assert entries[1] == struct.pack("<4I", 128, 256, 384, 512)


def overlay(image: Path, tmp_path: Path, **options: object) -> Path:
    with block.open(os.fspath(image), format="vmdk", cache="unsafe") as disk:
        disk.pwrite(0, b"b" * 4 * GRAIN)
    top = tmp_path / "top.vmdk"
    names = {"backing_file": os.fspath(image), "backing_fmt": "vmdk", **options}
    block.create(os.fspath(top), "vmdk", SIZE, **names)
    return top


def test_what_is_copied_from_the_backing_file_is_safe_before_an_entry_names_it(
    image: Path, tmp_path: Path
) -> None:
    top = overlay(image, tmp_path)
    with on_tape(top) as (disk, tape):
        disk.pwrite(512, b"x" * 512)
        assert names(top, tape.writes)[:4] == ["data", "flush", "entry", "redundant entry"]
        whole = bytearray(b"b" * GRAIN)
        whole[512:1024] = b"x" * 512
        assert tape.writes[0] == (FIRST, whole)


def test_nothing_is_copied_from_behind_the_end_of_the_disk(image: Path, tmp_path: Path) -> None:
    """The backing file is longer, and the last grain is not whole."""
    with block.open(os.fspath(image), format="vmdk", cache="unsafe") as disk:
        disk.pwrite(0, b"b" * GRAIN)
    top = tmp_path / "top.vmdk"
    block.create(os.fspath(top), "vmdk", 1024, backing_file="a.vmdk", backing_fmt="vmdk")
    with on_tape(top, backing=backing_options(image)) as (disk, tape):
        disk.pwrite(0, b"x" * 512)
        assert tape.writes[0][1] == b"x" * 512 + b"b" * 512 + bytes(GRAIN - 1024)


def test_a_zero_grain_is_only_an_entry(image: Path, tmp_path: Path) -> None:
    top = overlay(image, tmp_path, zeroed_grain=True)
    with on_tape(top) as (disk, tape):
        disk.pwrite_zeroes(GRAIN, 2 * GRAIN)
        assert names(top, tape.writes)[:2] == ["entry", "redundant entry"]
        assert tape.writes[0][1] == struct.pack("<2I", 1, 1)
        assert disk.pread(0, 4 * GRAIN) == b"b" * GRAIN + bytes(2 * GRAIN) + b"b" * GRAIN
        tape.writes.clear()
        disk.pwrite(GRAIN, b"x" * 512)  # nothing of the backing file shows through
        assert names(top, tape.writes) == ["data", "flush", "entry", "redundant entry"]
        assert disk.pread(GRAIN, GRAIN) == b"x" * 512 + bytes(GRAIN - 512)


def test_zeroes_where_nothing_is_cost_nothing(image: Path) -> None:
    with on_tape(image) as (disk, tape):
        disk.pwrite_zeroes(0, SIZE)
        assert names(image, tape.writes) == ["descriptor", "flush"]


def test_a_table_is_safe_before_the_directory_names_it(tmp_path: Path) -> None:
    """ESX makes tables when they are needed."""
    path = tmp_path / "a.vmdk"
    path.write_bytes(cowd(16384, grain=8, text=descriptor("vmfsSparse")))
    with on_tape(path) as (disk, tape):
        assert disk.pread(0, 512) == bytes(512)
        disk.pwrite(4096 * 3, b"x" * 4096)
        table, safe, entry, data, safe_too, link, *_ = tape.writes
        assert (table[1], safe, safe_too) == (bytes(16384), FLUSH, FLUSH)
        assert entry == (4 * 512, struct.pack("<I", table[0] // 512))
        assert link == (table[0] + 4 * 3, struct.pack("<I", data[0] // 512))
        assert disk.pread(4096 * 3, 4096) == b"x" * 4096


# -- failures


def test_a_grain_that_cannot_be_written_is_not_named(image: Path) -> None:
    with on_tape(image) as (disk, tape):
        tape.errors["pwritev"] = OSError(errno.ENOSPC, "full")
        with pytest.raises(OSError, match="full"):
            disk.pwrite(0, b"x" * 512)
        tape.errors.clear()
        assert tape.writes == []
        assert disk.pread(0, 512) == bytes(512)
        disk.pwrite(0, b"y" * 512)
        assert disk.pread(0, 513) == b"y" * 512 + b"\0"


def test_an_entry_that_cannot_be_written_names_nothing_in_memory_either(image: Path) -> None:
    with on_tape(image) as (disk, tape):
        disk.pread(0, 512)
        fail_write(tape, 1)
        with pytest.raises(OSError, match="entry"):
            disk.pwrite(0, b"x" * 512)
        assert disk.pread(0, 512) == bytes(512)
        assert names(image, tape.writes) == ["data", "flush"]


def test_an_entry_that_failed_and_is_there_all_the_same_is_found(
    image: Path, tmp_path: Path
) -> None:
    """What is written to the grain that it let go would be gone when the image is opened again."""
    top = overlay(image, tmp_path, zeroed_grain=True)
    with on_tape(top) as (disk, tape):
        disk.pwrite(0, b"x" * GRAIN)
        tape.writes_left, tape.keeps = 0, True
        with pytest.raises(OSError, match="torn"):
            disk.pwrite_zeroes(0, GRAIN)
        tape.writes_left = None
        disk.pwrite(0, b"y" * 512)
        disk.flush()
        top.write_bytes(tape.data)
    with block.open(os.fspath(top), format="vmdk", cache="unsafe") as disk:
        assert disk.pread(0, GRAIN) == b"y" * 512 + bytes(GRAIN - 512)


def fail_write(tape: Tape, number: int) -> None:
    """Lets the write with that number fail, counted from 0, and only that."""
    note, seen = tape.note, [0]

    async def failing(name: str, *args: object) -> None:
        await note(name, *args)
        if name == "pwritev":
            seen[0] += 1
            if seen[0] == number + 1:
                raise OSError(errno.EIO, "no entry")

    tape.note = failing  # type: ignore[method-assign]  # of this one tape


def test_a_cid_that_cannot_be_written_is_tried_again(image: Path) -> None:
    with on_tape(image) as (disk, tape):
        fail_write(tape, 3)
        before = state_of(disk).cid
        with pytest.raises(OSError, match="entry"):
            disk.pwrite(0, b"x" * 512)
        assert state_of(disk).cid == before
        disk.pwrite(0, b"x" * 512)
        assert names(image, tape.writes)[-3:] == ["data", "descriptor", "flush"]
        assert state_of(disk).cid != before


def test_the_descriptor_keeps_all_but_its_cid(image: Path) -> None:
    before = image.read_bytes()
    with block.open(os.fspath(image), format="vmdk") as disk:
        disk.pwrite(0, b"x")
        cid = state_of(disk).cid
    after = image.read_bytes()
    old, new = (data[512 : 21 * 512].rstrip(b"\0").split(b"\n") for data in (before, after))
    assert new[2] == b"CID=%08x" % cid
    assert old[:2] + old[3:] == new[:2] + new[3:]


def test_an_overlay_of_a_changed_backing_file_is_not_believed(image: Path, tmp_path: Path) -> None:
    top = overlay(image, tmp_path)
    with block.open(os.fspath(image), format="vmdk") as disk:
        disk.pwrite(0, b"changed")
    with block.open(os.fspath(top), format="vmdk") as disk:
        for request in (lambda: disk.pread(0, 512), lambda: disk.pwrite(0, b"x")):
            with pytest.raises(BlockError, match=r"descriptor\.parentCID is [0-9a-f]{8}$") as said:
                request()
            assert said.value.errno == errno.EINVAL
        disk.pwrite_zeroes(0, 0)


# -- power cuts


@pytest.mark.full
@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "late writes lost"])
@pytest.mark.parametrize("zeroed", [False, True], ids=["plain", "zero grains"])
def test_a_power_cut_loses_nothing_that_was_flushed_or_in_the_backing_file(
    image: Path, tmp_path: Path, shuffle: bool, zeroed: bool
) -> None:
    base = random.Random(3).randbytes(SIZE)
    with block.open(os.fspath(image), format="vmdk", cache="unsafe") as disk:
        disk.pwrite(0, base)
    top = tmp_path / "top.vmdk"
    block.create(
        os.fspath(top), "vmdk", SIZE, backing_file="a.vmdk", backing_fmt="vmdk", zeroed_grain=zeroed
    )
    work = Work(4 + zeroed, SIZE, GRAIN, base)
    safe, changed = [(0, bytes(base))], []
    with on_tape(top, backing=backing_options(image)) as (disk, tape):
        for op in work.ops(80):
            before = len(tape.writes)
            if op.what == "write":
                disk.pwrite(op.offset, bytes([op.pattern]) * op.nbytes)
            elif op.what in ("zeroes", "unmap"):
                disk.pwrite_zeroes(op.offset, op.nbytes)
            elif op.what == "flush":
                disk.flush()
                safe.append((len(tape.writes), bytes(work.model)))
            if op.what in ("write", "zeroes", "unmap"):
                work.note(op)
                changed.append((before, op.offset, op.offset + op.nbytes))
    source = random.Random(1)
    for at in sorted(source.sample(range(len(tape.writes)), 12)):
        cut = tmp_path / "cut.vmdk"
        cut.write_bytes(tape.cut(at, source, shuffle))
        is_clean(cut, "vmdk")
        moment, wanted = max((each for each in safe if each[0] <= at), key=lambda each: each[0])
        expected, found = bytearray(wanted), bytearray(read_all(cut))
        for when, start, end in changed:
            if when >= moment:
                expected[start:end] = found[start:end] = bytes(end - start)
        assert found == expected, f"cut at write {at}"


def backing_options(image: Path) -> dict[str, object]:
    file = {"driver": "file", "filename": os.fspath(image)}
    return {"driver": "vmdk", "file": file}


def read_all(path: Path) -> bytes:
    with block.open(os.fspath(path), format="vmdk", read_only=True) as disk:
        return disk.pread(0, SIZE)
