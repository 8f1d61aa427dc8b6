# SPDX-License-Identifier: GPL-2.0-only
"""Images that lie: what is refused, with which words, and that nothing else ever happens."""

from __future__ import annotations

import os
import random
import struct
import time
from pathlib import Path

import pytest

import block
from block.core.error import BlockError
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.support.qcow2_tables import first_l2
from tests.support.refusals import qemu_says, refused

FIELDS = {  # name -> (offset, struct code)
    "magic": (0, "I"), "version": (4, "I"), "backing_file_offset": (8, "Q"),
    "backing_file_size": (16, "I"), "cluster_bits": (20, "I"), "size": (24, "Q"),
    "crypt_method": (32, "I"), "l1_size": (36, "I"), "l1_table_offset": (40, "Q"),
    "refcount_table_offset": (48, "Q"), "refcount_table_clusters": (56, "I"),
    "nb_snapshots": (60, "I"), "snapshots_offset": (64, "Q"),
    "incompatible_features": (72, "Q"), "compatible_features": (80, "Q"),
    "autoclear_features": (88, "Q"), "refcount_order": (96, "I"), "header_length": (100, "I"),
    "compression_type": (104, "B"), "extension_length": (116, "I"),
}  # fmt: skip


def poke(path: Path, field: str, value: int) -> None:
    offset, code = FIELDS[field]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack(">" + code, value))


def refusal(path: Path) -> str:
    return str(refused(path, "qcow2"))


# field, value, does QEMU say the same before the bracket
LIES = [
    ("magic", 0x514649FA, True),
    ("version", 1, True),
    ("version", 4, True),
    ("cluster_bits", 8, True),
    ("cluster_bits", 22, True),
    ("cluster_bits", 0xFFFFFFFF, True),
    ("header_length", 103, True),
    ("header_length", 65537, True),
    ("backing_file_offset", 65537, True),
    ("refcount_order", 7, True),
    ("refcount_table_clusters", 0, True),
    ("refcount_table_clusters", 129, True),
    ("refcount_table_offset", 65537, True),
    ("refcount_table_offset", 1 << 63, True),
    ("l1_size", (32 << 20) // 8 + 1, True),
    ("l1_size", 0, True),
    ("l1_table_offset", 3 * 65536 + 512, True),
    ("l1_table_offset", (1 << 64) - 65536, True),
    ("nb_snapshots", 65537, True),
    ("size", 1 << 62, True),
    ("size", (1 << 64) - 512, False),
    ("incompatible_features", 2, True),
    ("incompatible_features", 4, False),
    ("incompatible_features", 8, True),
    ("incompatible_features", 1 << 63, True),
    ("incompatible_features", 0x120, True),
    ("compression_type", 1, True),
    ("compression_type", 77, True),
    ("extension_length", 1 << 20, True),
    ("crypt_method", 3, False),
    ("l1_table_offset", 1 << 40, False),
    ("refcount_table_offset", 1 << 40, False),
]


@pytest.mark.parametrize(("field", "value", "same"), LIES, ids=lambda v: f"{v}")
def test_a_header_that_lies_is_refused_in_qemus_words(
    image: Path, field: str, value: int, same: bool
) -> None:
    poke(image, field, value)
    mine = refusal(image)
    theirs = qemu_says(image, "qcow2")
    assert "Traceback" not in mine
    if same:
        assert mine.split(" (header")[0].split(" (type")[0] == theirs


def test_the_field_at_fault_is_named(image: Path) -> None:
    poke(image, "l1_size", (32 << 20) // 8 + 1)
    assert refusal(image) == "Active L1 table too large (header.l1_table: 4194305 > 4194304)"


def test_an_unknown_feature_is_called_by_the_name_that_the_image_gives_it(image: Path) -> None:
    data = bytearray(image.read_bytes())
    at = data.index(b"extended L2 entries")
    data[at - 1] = 40
    data[at : at + 46] = b"telepathy".ljust(46, b"\0")
    image.write_bytes(data)
    poke(image, "incompatible_features", 1 << 40 | 1 << 41)
    said = "Unsupported qcow2 feature(s): telepathy, Unknown incompatible feature: 20000000000"
    assert refusal(image) == said


def test_the_last_row_of_the_table_of_names_may_be_short(image: Path) -> None:
    data = bytearray(image.read_bytes())
    at = data.index(b"\x68\x03\xf8\x57")
    row = b"\0\x28telepathy"
    data[at + 4 : at + 8] = len(row).to_bytes(4)
    data[at + 8 : at + 32] = row.ljust(24, b"\0")  # the end of the extensions is all zeroes
    image.write_bytes(data)
    poke(image, "incompatible_features", 1 << 40)
    assert refusal(image) == "Unsupported qcow2 feature(s): telepathy"


def test_a_corrupt_image_can_still_be_read(image: Path, opener: Opener) -> None:
    with opener() as disk:
        disk.pwrite(0, b"data")
    poke(image, "incompatible_features", 2)
    assert "cannot be opened read/write" in refusal(image)
    assert opener(read_only=True).pread(0, 4) == b"data"


def test_unknown_autoclear_bits_are_cleared_before_the_first_write(
    image: Path, opener: Opener
) -> None:
    poke(image, "autoclear_features", 0xF0)
    opener(read_only=True).close()
    assert image.read_bytes()[88:96] == bytes(7) + b"\xf0"
    opener().close()
    assert image.read_bytes()[88:96] == bytes(8)


def test_an_image_with_unknown_autoclear_bits_does_not_become_writable(
    image: Path, opener: Opener
) -> None:
    from block.core.reopen import set_read_only

    poke(image, "autoclear_features", 0xF0)
    disk = opener(read_only=True)
    assert disk.bs is not None
    with pytest.raises(BlockError, match="autoclear_features = 0xf0"):
        set_read_only(disk.bs, False)


def test_unknown_extensions_survive_a_new_header(image: Path, opener: Opener) -> None:
    data = bytearray(image.read_bytes())
    at = 112
    while (length := struct.unpack_from(">I", data, at + 4)[0]) or struct.unpack_from(
        ">I", data, at
    )[0]:
        at += 8 + length + -length % 8
    data[at : at + 24] = struct.pack(">II", 0x12345678, 5) + b"hello\0\0\0" + bytes(8)
    image.write_bytes(data)
    poke(image, "autoclear_features", 1 << 20)
    opener().close()
    assert struct.pack(">II", 0x12345678, 5) + b"hello" in image.read_bytes()[:1024]


# -- tables that lie


def entry_place(path: Path, opener: Opener) -> tuple[int, int]:
    """Where the L1 entry and the L2 entry of guest cluster 0 are, once it is written."""
    with opener() as disk:
        disk.pwrite(0, b"d" * CLUSTER)
        disk.flush()
        return state_of(disk).l1_offset, first_l2(disk)


def set_entry(path: Path, place: int, value: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(struct.pack(">Q", value))


COPIED = 1 << 63


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (COPIED | 0x50200, "Cluster allocation offset 0x50200 unaligned"),
        (COPIED | 0, "Preventing invalid write on metadata"),  # the header, see below
        (COPIED | 0x10000, "overlaps with refcount table"),
        (COPIED | 0x20000, "overlaps with refcount block"),
        (COPIED | 0x30000, "overlaps with active L1 table"),
        (COPIED | 0x40000, "overlaps with active L2 table"),
    ],
    ids=lambda v: f"{v:#x}" if isinstance(v, int) else "",
)
def test_a_write_never_hits_metadata(
    image: Path, opener: Opener, capfd: pytest.CaptureFixture[str], value: int, message: str
) -> None:
    _, l2 = entry_place(image, opener)
    before = image.read_bytes()
    set_entry(image, l2, value)
    disk = opener()
    if value == COPIED:
        disk.pwrite(0, b"x" * 512)  # an entry without offset is an unallocated one
        return
    with pytest.raises(BlockError, match=message):
        disk.pwrite(0, b"x" * 512)
    assert "Marking image as corrupt" in capfd.readouterr().err
    with pytest.raises(BlockError, match="Image is corrupt"):
        disk.pread(0, 512)
    disk.close()
    after = bytearray(image.read_bytes())
    assert after[79] == 2, "the corrupt bit is on the disk"
    after[79] = 0
    assert after[:l2] + after[l2 + 8 :] == before[:l2] + before[l2 + 8 :]


def test_a_flush_fails_where_changes_were_dropped(
    image: Path, opener: Opener, capfd: pytest.CaptureFixture[str]
) -> None:
    """Their writes have succeeded; so nobody may believe that they are safe."""
    _, l2 = entry_place(image, opener)
    set_entry(image, l2, COPIED | 0x200)
    disk = opener()
    disk.pwrite(CLUSTER, b"x" * 512)
    with pytest.raises(BlockError, match="unaligned"):
        disk.pwrite(0, b"x" * 512)
    with pytest.raises(BlockError, match="Image is corrupt"):
        disk.flush()
    with pytest.raises(BlockError, match="Image is corrupt"):
        disk.close()
    capfd.readouterr()


@pytest.mark.parametrize("value", [COPIED | 0x40200, COPIED | 1 << 50, (1 << 56) - 512, 1])
def test_an_l1_entry_that_lies_is_found(image: Path, opener: Opener, value: int) -> None:
    l1, _ = entry_place(image, opener)
    set_entry(image, l1, value)
    length = image.stat().st_size
    disk = opener()
    for work in (lambda: disk.pread(0, 512), lambda: disk.pwrite(0, b"x" * 512)):
        try:
            work()
        except BlockError:
            continue
    disk.close()
    assert image.stat().st_size <= length + 4 * CLUSTER


def test_a_cluster_beyond_the_file_reads_as_zeroes_and_is_not_written(
    image: Path, opener: Opener
) -> None:
    _, l2 = entry_place(image, opener)
    set_entry(image, l2, COPIED | 1 << 45)
    length = image.stat().st_size
    disk = opener()
    assert disk.pread(0, 512) == bytes(512)
    with pytest.raises(BlockError, match="beyond the end of the file"):
        disk.pwrite(0, b"x")
    assert image.stat().st_size == length


def test_a_compressed_cluster_that_is_none_is_an_error(image: Path, opener: Opener) -> None:
    _, l2 = entry_place(image, opener)
    set_entry(image, l2, 1 << 62 | 0x50000)
    with pytest.raises(BlockError, match="cannot be unpacked"):
        opener().pread(0, 512)


# -- a fuzzer


def worked_on(path: Path) -> bytes:
    """An image with all kinds of entries; its bytes."""
    block.create(os.fspath(path), "qcow2", SIZE, cluster_size=4096)
    with block.open(os.fspath(path), format="qcow2", options={"discard": "unmap"}) as disk:
        disk.pwrite(0, b"a" * 300_000)
        disk.pwrite_zeroes(8192, 8192)
        disk.pdiscard(65536, 8192)
        disk.pwrite(4 << 20, b"b" * 70_000)
    return path.read_bytes()


INTERESTING = (0, 1, 2, 3, 8, 9, 21, 22, 64, 104, 512, 4096, 1 << 16, 1 << 31, 1 << 32, 1 << 40,
               1 << 55, 1 << 62, COPIED, COPIED | 4096, (1 << 64) - 1, (1 << 63) - 512)  # fmt: skip


def damage(data: bytes, source: random.Random) -> bytes:
    """Changes some numbers: of the header, or anywhere in the tables."""
    image = bytearray(data)
    for _ in range(source.randint(1, 4)):
        value = source.choice(INTERESTING) if source.random() < 0.7 else source.getrandbits(64)
        if source.random() < 0.5:
            offset, code = FIELDS[source.choice(list(FIELDS))]
            size = struct.calcsize(code)
            image[offset : offset + size] = (value % (1 << 8 * size)).to_bytes(size, "big")
        else:
            # Header, refcount table and block, L1 and L2 tables are in the first 24 clusters.
            offset = source.randrange(24 * 4096) // 8 * 8
            image[offset : offset + 8] = value.to_bytes(8, "big")
    if source.random() < 0.1:
        del image[source.randrange(len(image)) :]
    return bytes(image)


def use(path: Path, source: random.Random) -> None:
    """Opens an image and does what a guest does; BlockErrors are fine."""
    read_only = source.random() < 0.3
    try:
        disk = block.open(os.fspath(path), format="qcow2", read_only=read_only, cache="unsafe",
                          options={"discard": "unmap"})  # fmt: skip
    except BlockError:
        return
    length = disk.length
    try:
        for _ in range(8):
            offset = source.randrange(min(length, SIZE) or 1) // 512 * 512
            nbytes = min(source.choice((512, 4096, 50_000)), max(0, length - offset))
            work = source.choice(
                (disk.pread, disk.pwrite, disk.pwrite_zeroes, disk.pdiscard, disk.truncate)
            )
            try:
                if work == disk.pwrite:
                    disk.pwrite(offset, b"w" * nbytes)
                elif work == disk.truncate:
                    disk.truncate(min(length + 65536, 1 << 40))
                else:
                    work(offset, nbytes)
                assert disk.bs is not None
                if nbytes:
                    disk.bs.block_status(offset, nbytes)
            except BlockError:
                continue
    finally:
        disk.unref()


def fuzz(path: Path, seeds: range) -> None:
    data = worked_on(path)
    for seed in seeds:
        source = random.Random(seed)
        path.write_bytes(damage(data, source))
        start = time.monotonic()
        use(path, source)
        assert time.monotonic() - start < 20, f"seed {seed} takes for ever"


def test_damaged_images_raise_nothing_but_block_errors(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fuzz(tmp_path / "a.qcow2", range(400))


@pytest.mark.full
def test_many_damaged_images(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fuzz(tmp_path / "a.qcow2", range(1000, 3000))
