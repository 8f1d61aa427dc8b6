# SPDX-License-Identifier: GPL-2.0-only
"""Images that lie: what is refused, with which words, and that nothing else ever happens."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

import block
from block.core.check import check
from block.core.error import BlockError
from block.core.reopen import set_read_only
from tests.block.formats.qed.conftest import CLUSTER, FIRST_DATA, FIRST_L2, L1_TABLE, SIZE, Opener
from tests.support.qed_disk import FIELDS, NEED_CHECK, opened_for_check, poke, state_of
from tests.support.refusals import qemu_says, refused

# field, value
LIES = [
    ("magic", 0x01444551),
    ("cluster_size", 0),
    ("cluster_size", 2048),
    ("cluster_size", 65537),
    ("cluster_size", 1 << 27),
    ("table_size", 0),
    ("table_size", 3),
    ("table_size", 32),
    ("table_size", 0x80000000),
    ("features", 1 << 3),
    ("features", 1 << 63 | 2),
    ("image_size", 513),
    ("image_size", (1 << 46) + 512),
    ("image_size", (1 << 64) - 512),
    ("l1_table_offset", 0),
    ("l1_table_offset", 512),
    ("l1_table_offset", 2 * CLUSTER),
    ("l1_table_offset", 1 << 40),
    ("l1_table_offset", (1 << 64) - CLUSTER),
    ("header_size", 2),
    ("header_size", 1 << 31),
    ("header_size", 0xFFFFFFFF),
]


@pytest.mark.full
@pytest.mark.parametrize(("field", "value"), LIES, ids=str)
def test_a_header_that_lies_is_refused_in_qemus_words(image: Path, field: str, value: int) -> None:
    poke(image, field, value)
    mine = str(refused(image, "qed"))
    assert mine.split(" (header")[0] == qemu_says(image, "qed")


@pytest.mark.parametrize(("field", "value"), LIES, ids=str)
def test_the_field_at_fault_is_named(image: Path, field: str, value: int) -> None:
    poke(image, field, value)
    before = image.read_bytes()
    named = "l1_table_offset" if field == "header_size" else field
    assert f"header.{named}" in str(refused(image, "qed"))
    assert f"header.{named}" in str(refused(image, "qed", read_only=True))
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("offset", "size", "named"),
    [
        (64, CLUSTER - 63, "backing_filename_offset"),
        (CLUSTER, 1, "backing_filename_offset"),
        (0xFFFFFFFF, 0xFFFFFFFF, "backing_filename_offset"),
        (64, 4096, "backing_filename_size"),
    ],
)
def test_a_backing_name_outside_of_the_header_is_refused(
    image: Path, offset: int, size: int, named: str
) -> None:
    poke(image, "features", 1)
    poke(image, "backing_filename_offset", offset)
    poke(image, "backing_filename_size", size)
    assert f"header.{named}" in str(refused(image, "qed"))


def test_fields_of_a_backing_file_mean_nothing_without_its_feature(
    image: Path, opener: Opener
) -> None:
    poke(image, "backing_filename_offset", 0xFFFFFFFF)
    poke(image, "backing_filename_size", 0xFFFFFFFF)
    disk = opener()
    assert disk.bs is not None
    assert disk.bs.backing_file == ""


def test_a_header_too_large_for_qemu_is_refused(image: Path) -> None:
    """Only a sparse file of terabytes gets so far."""
    with image.open("r+b") as file:
        file.truncate(1 << 34)
    poke(image, "header_size", 1 << 16)
    poke(image, "l1_table_offset", 1 << 33)
    assert str(refused(image, "qed")) == "QED header size is too large (header.header_size: 65536)"


@pytest.mark.parametrize("length", [0, 4, 63, 64, 4096, CLUSTER, 4 * CLUSTER, 5 * CLUSTER - 512])
def test_a_file_that_is_cut_off_is_refused(image: Path, length: int) -> None:
    with image.open("r+b") as file:
        file.truncate(length)
    assert refused(image, "qed").errno == errno.EINVAL


def test_unknown_autoclear_bits_are_cleared_before_the_first_write(
    image: Path, opener: Opener
) -> None:
    poke(image, "autoclear_features", 0xF0)
    opener(read_only=True).close()
    assert image.read_bytes()[32:40] == b"\xf0" + bytes(7)
    opener().close()
    assert image.read_bytes()[32:40] == bytes(8)


def test_an_image_with_unknown_autoclear_bits_does_not_become_writable(
    image: Path, opener: Opener
) -> None:
    poke(image, "autoclear_features", 0xF0)
    disk = opener(read_only=True)
    assert disk.bs is not None
    with pytest.raises(BlockError, match="autoclear_features: 0xf0"):
        set_read_only(disk.bs, False)


def test_unknown_compat_bits_are_kept(image: Path, opener: Opener) -> None:
    poke(image, "compat_features", 0xF0)
    with opener() as disk:
        disk.pwrite(0, b"x")
    assert image.read_bytes()[24:32] == b"\xf0" + bytes(7)


def test_a_huge_table_costs_no_memory(tmp_path: Path) -> None:
    """Tables of a gibibyte, in a sparse file: only what the disk needs is read."""
    path = tmp_path / "huge.qed"
    block.create(os.fspath(path), "qed", SIZE, cluster_size=1 << 12)
    with path.open("r+b") as file:
        file.truncate(1 << 32)
    for name, value in (
        ("cluster_size", 64 << 20),
        ("table_size", 16),
        ("l1_table_offset", 1 << 27),
    ):
        poke(path, name, value)
    with block.open(os.fspath(path), format="qed") as disk:
        assert len(state_of(disk).l1_table) == 64
        assert disk.pread(0, 512) == bytes(512)


# -- tables that lie

PLACES = {
    "not a cluster's start": FIRST_DATA + 512,
    "in the header": 2,
    "behind the end": 1 << 40,
    "at the end of numbers": (1 << 64) - CLUSTER,
}


def with_data(opener: Opener) -> None:
    """Cluster 0 is written; its entries are the first of the L1 and of the L2 table."""
    with opener() as disk:
        disk.pwrite(0, b"d" * CLUSTER)


@pytest.mark.parametrize("value", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("table", [L1_TABLE, FIRST_L2], ids=["L1", "L2"])
def test_an_entry_that_points_nowhere_is_neither_read_nor_written(
    image: Path, opener: Opener, table: int, value: int
) -> None:
    with_data(opener)
    poke(image, table, value)
    before = image.read_bytes()
    disk = opener()
    for work in (
        lambda: disk.pread(0, 4096),
        lambda: disk.pwrite(0, b"x" * 4096),
        lambda: disk.pwrite_zeroes(0, CLUSTER),
    ):
        with pytest.raises(BlockError, match="is no place in the file") as caught:
            work()
        assert caught.value.errno == errno.EINVAL
    assert disk.root is not None
    at_once = disk.root.try_preadv(0, 512, [memoryview(bytearray(512))])
    assert at_once is None, "the short way believes no entry either"
    disk.close()
    assert image.read_bytes() == before


def test_a_run_is_read_up_to_the_end_of_the_file(image: Path, opener: Opener) -> None:
    with_data(opener)
    last = image.stat().st_size - CLUSTER
    poke(image, FIRST_L2, last)
    poke(image, FIRST_L2 + 8, last + CLUSTER)
    disk = opener()
    disk.pread(0, CLUSTER)
    with pytest.raises(BlockError, match="is no place in the file"):
        disk.pread(0, 2 * CLUSTER)


@pytest.mark.parametrize("seed", range(4))
def test_no_damage_brings_anything_but_an_error_of_the_block_layer(
    tmp_path: Path, image: Path, opener: Opener, seed: int
) -> None:
    """Random bytes in header and tables: open, read, write, check, repair."""
    with opener() as disk:
        for offset in range(0, SIZE, 3 * CLUSTER):
            disk.pwrite(offset, b"d" * 512)
    good = image.read_bytes()
    source = random.Random(seed)
    path = tmp_path / "bad.qed"
    for _ in range(40):
        data = bytearray(good)
        for _ in range(source.randrange(1, 4)):
            name = source.choice([*FIELDS, "l1", "l2", "l2"])
            if name in FIELDS:
                at = FIELDS[name][0] + source.randrange(4)
            else:
                at = (L1_TABLE if name == "l1" else FIRST_L2) + source.randrange(1024)
            data[at] = source.choice((0, 1, 2, 255, source.randrange(256)))
        path.write_bytes(data[: source.choice((len(data), source.randrange(len(data))))])
        use(path, source.randrange(2))
    assert path.stat().st_size < 64 << 20


def use(path: Path, fix: int) -> None:
    """Does a bit of everything to an image; whatever is wrong, it is a BlockError."""
    try:
        with opened_for_check(path) as disk:
            assert disk.bs is not None
            check(disk.bs, fix)
        with block.open(os.fspath(path), format="qed", cache="unsafe") as disk:
            length = min(disk.length, SIZE)
            for offset in range(0, length, 7 * CLUSTER):
                size = min(5000, length - offset)
                disk.pread(offset, size)
                disk.pwrite(offset, b"x" * size)
    except BlockError:
        return


def test_a_dirty_image_with_a_table_that_lies_is_repaired_at_open(
    image: Path, opener: Opener
) -> None:
    with_data(opener)
    poke(image, FIRST_L2, 1 << 40)
    poke(image, "features", NEED_CHECK)
    assert opener().pread(0, 4) == bytes(4)
    assert image.read_bytes()[16] == 0
