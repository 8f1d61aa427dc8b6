# SPDX-License-Identifier: GPL-2.0-only
"""Bitmap directories and tables that lie, and what only others understand."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest

import block
from block.core import dirty_bitmap
from block.core.error import BlockError
from block.formats.qcow2.layout import OFLAG_COPIED
from block.ops import bitmap as ops
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener
from tests.support.qcow2_bitmaps import AUTO, EXTRA_COMPATIBLE, IN_USE, place_of, stored
from tests.support.qcow2_damage import counts, run_check
from tests.support.qcow2_tables import first_l2_in

EXTENSION = 112
ENTRY = struct.Struct(">QIIBBHI")
Image = bytearray


@pytest.fixture
def path(image: Path) -> Path:
    """An image of 8 MiB with two saved bitmaps, one dirty cluster in each."""
    with block.open(os.fspath(image), format="qcow2") as disk:
        for name in ("one", "two"):
            ops.add(disk.bs, name, CLUSTER, persistent=True)
        disk.pwrite(0, b"x")
    return image


def directory(data: bytes | Image) -> tuple[int, int]:
    """(offset, size) of the directory."""
    _, size, offset = place_of(bytes(data))
    return offset, size


def entry_of(path: Path, name: str) -> int:
    """Where the entry of a bitmap stands in the file."""
    return stored(path)[name].at


def table_of(path: Path, name: str) -> int:
    """Where the table of a bitmap stands in the file."""
    (place,) = struct.unpack_from(">Q", path.read_bytes(), entry_of(path, name))
    return int(place)


HEADER_LIES = [  # where, format, value, what is said
    (4, ">I", 32, "bitmaps_ext: Invalid extension length"),
    (8, ">I", 0, "found bitmaps extension with zero bitmaps"),
    (8, ">I", 65536, "bitmaps_ext: Image has 65536 bitmaps, exceeding the QEMU supported maximum"),
    (8, ">I", 3, "Less bitmaps found than specified in header extension"),
    (8, ">I", 1, "More bitmaps found than specified in header extension"),
    (12, ">I", 1, "bitmaps_ext: Reserved field is not zero"),
    (16, ">Q", 0, "Requested bitmap directory size is zero"),
    (16, ">Q", 67107841, r"bitmap directory size \(67107841\) exceeds the maximum supported size"),
    (16, ">Q", 72, "Broken bitmap directory"),
    (16, ">Q", 40, "Broken bitmap directory|Less bitmaps found"),
    (24, ">Q", 512, "bitmaps_ext: invalid bitmap directory offset"),
    (24, ">Q", 1 << 40, "Bitmap data at 0x10000000000 lie beyond the end of the file"),
]

ENTRY_LIES = [
    (0, ">Q", 0, "Bitmap 'two' doesn't satisfy the constraints"),
    (0, ">Q", 512, "Bitmap 'two' doesn't satisfy the constraints"),
    (0, ">Q", 1 << 40, "Could not read bitmap 'two' from image: Bitmap data at 0x10000000000 lie"),
    (8, ">I", 0, "Bitmap 'two' doesn't satisfy the constraints"),
    (8, ">I", 2, "Could not read bitmap 'two' from image: a table of 2 entries does not fit"),
    (8, ">I", 8193, "Bitmap 'two' doesn't satisfy the constraints"),
    (12, ">I", 8, "Bitmap 'two' doesn't satisfy the constraints"),
    (16, ">B", 2, "Bitmap 'two' doesn't satisfy the constraints"),
    (17, ">B", 8, "Bitmap 'two' doesn't satisfy the constraints"),
    (17, ">B", 32, "Bitmap 'two' doesn't satisfy the constraints"),
    (17, ">B", 255, "Bitmap 'two' doesn't satisfy the constraints"),
    (18, ">H", 0xFFFF, "Broken bitmap directory"),
    (20, ">I", 0xFFFF_FFFF, "Broken bitmap directory"),
    (24, ">B", 0, r"Bitmap '\x00wo' doesn't satisfy the constraints"),
]

TABLE_LIES = [
    (">Q", CLUSTER + 512, "Broken bitmap table entry 0x10200"),
    (">Q", CLUSTER + 1, "Broken bitmap table entry 0x10001"),
    (">Q", 1 << 56, "Broken bitmap table entry 0x100000000000000"),
    (">Q", 2, "Broken bitmap table entry 0x2"),
    (">Q", 1 << 40, "Bitmap data at 0x10000000000 lie beyond the end of the file"),
]


def refuses(path: Path, said: str) -> None:
    """Nobody opens the image for use; what is in the file stays."""
    before = path.read_bytes()
    for read_only in (True, False):
        with pytest.raises(BlockError, match=said):
            block.open(os.fspath(path), format="qcow2", read_only=read_only)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("at", "form", "value", "said"), HEADER_LIES)
def test_an_extension_that_lies_is_named(
    path: Path, at: int, form: str, value: int, said: str
) -> None:
    data = Image(path.read_bytes())
    struct.pack_into(form, data, EXTENSION + feature_table(data) + at, value)
    path.write_bytes(data)
    refuses(path, said)


def feature_table(data: Image) -> int:
    """How many bytes stand before the bitmaps' extension."""
    at = EXTENSION
    while (kind := struct.unpack_from(">I", data, at)[0]) != 0x23852875:
        assert kind != 0
        length = struct.unpack_from(">I", data, at + 4)[0]
        at += 8 + length + -length % 8
    return at - EXTENSION


@pytest.mark.parametrize(("at", "form", "value", "said"), ENTRY_LIES)
def test_an_entry_that_lies_is_named(path: Path, at: int, form: str, value: int, said: str) -> None:
    place = entry_of(path, "two")
    data = Image(path.read_bytes())
    struct.pack_into(form, data, place + at, value)
    path.write_bytes(data)
    refuses(path, said.replace("\\x00", "\0") if "\\x00" in said else said)


@pytest.mark.parametrize(("form", "value", "said"), TABLE_LIES)
def test_a_table_that_lies_is_named(path: Path, form: str, value: int, said: str) -> None:
    place = table_of(path, "one")
    data = Image(path.read_bytes())
    struct.pack_into(form, data, place, value)
    path.write_bytes(data)
    refuses(path, f"Could not read bitmap 'one' from image: {said}")


def test_a_cluster_of_bits_is_whole(path: Path) -> None:
    """The directory is the last thing in this file, which ends in the middle of its cluster."""
    one = table_of(path, "one")
    data = Image(path.read_bytes())
    offset, _ = directory(data)
    assert offset < len(data) < offset + CLUSTER
    struct.pack_into(">Q", data, one, offset)
    path.write_bytes(data)
    refuses(path, f"Bitmap data at {offset:#x} lie beyond the end of the file")


def test_a_cluster_belongs_to_one_bitmap(path: Path) -> None:
    """So what is loaded is no larger than the file, whatever the tables say."""
    one, two = table_of(path, "one"), table_of(path, "two")
    data = Image(path.read_bytes())
    data[two : two + 8] = data[one : one + 8]
    path.write_bytes(data)
    refuses(path, "Could not read bitmap '(one|two)' from image: Cluster .* belongs to two")


def test_two_of_a_name_are_refused(path: Path) -> None:
    place = entry_of(path, "two") + ENTRY.size
    data = Image(path.read_bytes())
    data[place : place + 3] = b"one"
    path.write_bytes(data)
    refuses(path, "Bitmap already exists: one")


def test_bits_behind_the_end_of_the_disk_are_not_believed(path: Path) -> None:
    (cluster,) = struct.unpack_from(">Q", path.read_bytes(), table_of(path, "one"))
    data = Image(path.read_bytes())
    data[cluster : cluster + CLUSTER] = b"\xff" * CLUSTER
    path.write_bytes(data)
    with block.open(os.fspath(path), format="qcow2") as disk:
        assert list(ops.lookup(disk.bs, "one").areas()) == [(0, SIZE)]


def test_a_name_may_be_any_bytes(path: Path) -> None:
    place = entry_of(path, "two") + ENTRY.size
    data = Image(path.read_bytes())
    data[place : place + 3] = b"\xff\n:"
    path.write_bytes(data)
    with block.open(os.fspath(path), format="qcow2") as disk:
        assert {bitmap.name for bitmap in disk.bs.dirty_bitmaps} == {"one", "\udcff\n:"}
    after = path.read_bytes()
    offset, size = directory(after)
    assert b"\xff\n:" in after[offset : offset + size]


@pytest.mark.parametrize("known", [False, True])
def test_no_data_are_written_over_the_directory(path: Path, opener: Opener, known: bool) -> None:
    """An L2 entry says that the guest's first cluster is where the directory lies; with the L2
    table in memory a write goes another way."""
    data = Image(path.read_bytes())
    offset, _ = directory(data)
    struct.pack_into(">Q", data, first_l2_in(data), offset | OFLAG_COPIED)
    path.write_bytes(data)
    disk = opener(path)
    if known:
        disk.pread(0, 512)
    with pytest.raises(BlockError, match="overlaps with bitmap directory"):
        disk.pwrite(0, b"z" * CLUSTER)
    with pytest.raises(BlockError, match=r"Failed to write bitmap '.*' to file: .*corrupt"):
        disk.close()
    after = path.read_bytes()
    assert after[offset + ENTRY.size : offset + ENTRY.size + 3] in (b"one", b"two")


# -- extra data


def with_extra(path: Path, flags: int) -> bytes:
    """Gives the bitmap `two` 8 bytes of extra data; returns the file."""
    data = Image(path.read_bytes())
    offset, _ = directory(data)
    entries = {}
    for name, it in stored(path).items():
        fields = ENTRY.unpack_from(data, it.at)
        extra = b"mystery!" if name == "two" else b""
        more = flags if name == "two" else 0
        head = ENTRY.pack(*fields[:2], fields[2] | more, *fields[3:6], len(extra))
        entries[name] = head + extra + name.encode()
    packed = b"".join(entry + bytes(-len(entry) % 8) for entry in entries.values())
    data[offset : offset + len(packed)] = packed
    struct.pack_into(">Q", data, EXTENSION + feature_table(data) + 16, len(packed))
    path.write_bytes(data)
    return bytes(data)


def test_extra_data_that_one_may_ignore_stay(path: Path, opener: Opener) -> None:
    with_extra(path, EXTRA_COMPATIBLE)
    with opener(path) as disk:
        assert list(ops.lookup(disk.bs, "two").areas()) == [(0, CLUSTER)]
        disk.pwrite(SIZE - 1, b"x")
    after = stored(path)["two"]
    assert after.extra == b"mystery!"
    assert after.flags == AUTO | EXTRA_COMPATIBLE
    assert after.areas == [(0, CLUSTER), (SIZE - CLUSTER, CLUSTER)]
    assert counts(run_check(path)[0]) == (0, 0, 0)


def test_a_bitmap_that_nobody_understands_is_kept_as_it_is(path: Path, opener: Opener) -> None:
    with_extra(path, 0)
    before = stored(path)["two"]
    with opener(path) as disk:
        assert disk.bs is not None
        assert dirty_bitmap.find(disk.bs, "two") is None
        ops.remove(disk.bs, "one")
        ops.add(disk.bs, "three", persistent=True)
        with pytest.raises(BlockError, match="bitmaps that were not loaded into memory"):
            disk.truncate(2 * SIZE)
        with pytest.raises(BlockError, match="Bitmap already exists: two"):
            ops.add(disk.bs, "two", persistent=True)
    after = stored(path)["two"]
    assert (after.flags, after.areas, after.extra) == (AUTO, before.areas, b"mystery!")
    assert set(stored(path)) == {"two", "three"}
    assert counts(run_check(path)[0]) == (0, 0, 0)


# -- any bytes at all


@pytest.mark.parametrize("seed", range(4))
def test_any_bytes_raise_nothing_but_block_errors(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    whole = path.read_bytes()
    offset, size = directory(whole)
    places = [(EXTENSION, 40), (offset, size), (table_of(path, "one"), 8)]
    places += [(table_of(path, "two"), 8), (88, 8), (24, 8)]
    for _ in range(25):
        data = Image(whole)
        for _ in range(rng.randrange(1, 4)):
            start, length = rng.choice(places)
            data[start + rng.randrange(length)] = rng.randrange(256)
        path.write_bytes(data)
        try:
            with block.open(os.fspath(path), format="qcow2") as disk:
                disk.pwrite(0, b"y")
        except BlockError:
            continue
        found = stored(path)
        assert all(not it.flags & IN_USE or it.flags for it in found.values())
