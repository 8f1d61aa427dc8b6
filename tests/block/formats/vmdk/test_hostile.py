# SPDX-License-Identifier: GPL-2.0-only
"""Images that lie: what is refused, with which words, and that nothing else ever happens."""

from __future__ import annotations

import os
import random
import re
import struct
from pathlib import Path

import pytest

import block
from block.core.error import BlockError
from block.formats.vmdk import layout as lay
from tests.block.formats.vmdk.conftest import GRAIN, SIZE, state_of
from tests.support import needs
from tests.support.refusals import refused
from tests.support.vmdk_images import cowd, descriptor, exported, peek, poke


def refusal(path: Path, read_only: bool = False) -> str:
    return str(refused(path, "vmdk", read_only))


# field, value, what is said
LIES = [
    ("magicNumber", 0x564D444C, "invalid VMDK image descriptor"),
    ("version", 4, "Unsupported VMDK version 4"),
    ("version", 3, "VMDK version 3 must be read only"),
    ("numGTEsPerGT", 513, "L2 table size too big (header.numGTEsPerGT = 513 > 512)"),
    ("numGTEsPerGT", 0xFFFFFFFF, "L2 table size too big"),
    ("numGTEsPerGT", 0, "L1 entry size is invalid"),
    ("grainSize", 0, "L1 entry size is invalid"),
    ("grainSize", 0x200001, "Invalid granularity, image may be corrupt (header.grainSize"),
    ("grainSize", (1 << 64) - 1, "Invalid granularity, image may be corrupt"),
    ("capacity", 1 << 50, "L1 size too big (header.capacity = 1125899906842624"),
    ("capacity", (1 << 64) - 1, "L1 size too big"),
    ("capacity", 1 << 30, "Could not read l1 table from extent '{path}' (header.gdOffset"),
    ("gdOffset", 0, "Could not read l1 table from extent '{path}' (header.gdOffset = 0"),
    ("gdOffset", 1 << 40, "Could not read l1 table"),
    ("gdOffset", (1 << 64) - 2, "Could not read l1 table"),
    ("gdOffset", (1 << 64) - 1, "Invalid footer"),
    ("rgdOffset", 1 << 40, "Could not read l1 backup table from extent '{path}' (header.rgd"),
    ("overHead", 1 << 40, "File truncated, expecting at least 562949953421312 bytes"),
    ("overHead", (1 << 64) - 1, "File truncated, expecting at least"),
]


@pytest.mark.parametrize(("field", "value", "words"), LIES)
def test_a_header_that_lies_is_refused_by_the_fields_name(
    image: Path, field: str, value: int, words: str
) -> None:
    poke(image, field, value)
    assert refusal(image).startswith(words.format(path=image))


def test_version_3_can_be_read(image: Path) -> None:
    poke(image, "version", 3)
    with block.open(os.fspath(image), format="vmdk", read_only=True) as disk:
        assert disk.pread(0, 512) == bytes(512)


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (12, 0, "L1 table is too small"),
        (16, 0, "L1 entry size is invalid"),
        (16, 0x200001, "Invalid granularity, image may be corrupt"),
        (20, 0, "Could not read l1 table"),
        (20, 1 << 31, "Could not read l1 table"),
        (24, 0, "L1 table is too small (header.numGDEntries = 0 < 1)"),
        (24, 0xFFFFFFFF, "L1 size too big"),
    ],
)
def test_an_esx_header_that_lies_is_refused(
    tmp_path: Path, offset: int, value: int, words: str
) -> None:
    data = bytearray(cowd(4096))
    struct.pack_into("<I", data, offset, value)
    if (offset, value) == (12, 0):
        struct.pack_into("<I", data, 12, 0xFFFFFFFF)
    (tmp_path / "a-delta.vmdk").write_bytes(data)
    path = tmp_path / "a.vmdk"
    path.write_text(descriptor("vmfsSparse", 'RW 4096 VMFSSPARSE "a-delta.vmdk"'))
    assert refusal(path).startswith(words)


# -- descriptors

FLAT = 'RW 64 FLAT "flat" 0'
DESCRIPTORS = [
    ("", "invalid VMDK image descriptor"),
    (descriptor("custom", FLAT), "Unsupported image type 'custom'"),
    (descriptor("monolithicSparse", FLAT), "Unsupported image type 'monolithicSparse'"),
    (descriptor("vmfs", 'RW 64 FLAT "flat"'), 'Invalid extent line: RW 64 FLAT "flat"'),
    (descriptor("vmfs", 'RW 64 FLAT "flat" -1'), "Invalid extent line"),
    (descriptor("vmfs", 'RW 64 SPARSE "flat" 0'), "Invalid extent line"),
    (descriptor("vmfs", 'RW 64 VMFS "flat" 8'), "Invalid extent line"),
    (descriptor("vmfs", 'RW 0 FLAT "flat" 0'), "Invalid extent line"),
    (descriptor("vmfs", 'RW -5 FLAT "flat" 0'), "Invalid extent line"),
    (descriptor("vmfs", "RW 64 ZERO"), "Unsupported extent type 'ZERO'"),
    (descriptor("vmfs", 'RW 64 SESPARSE "flat"'), "Unsupported extent type 'SESPARSE'"),
    (descriptor("vmfs", 'RDONLY 64 FLAT "flat" 0'), "Unsupported extent access 'RDONLY'"),
    (descriptor("vmfs", "NOACCESS 64 ZERO"), "Unsupported extent access 'NOACCESS'"),
    (descriptor("vmfs", 'RW 9999999999999999999 FLAT "flat" 0'), "Invalid extent line"),
    (descriptor("vmfs", 'RW 64 FLAT "flat" 9223372036854775807'), "Invalid extent line"),
    (descriptor("vmfs", f'RW 64 FLAT "{"x" * 512}" 0'), "Invalid extent line"),
    (descriptor("vmfs", 'RW 64 FLAT "no such" 0'), "Could not open '{folder}/no such'"),
    (descriptor("vmfs", 'RW 64 SPARSE "flat"'), "Image not in VMDK format"),
    (descriptor("vmfs", FLAT).replace("CID=1", "CID=?"), "vmdk: descriptor has no CID"),
    (descriptor("vmfs", FLAT).replace("parentCID", "x"), "vmdk: descriptor has no parentCID"),
    (
        descriptor("vmfs", f'parentFileNameHint="{"p" * 1024}"', FLAT),
        "vmdk: descriptor.parentFileNameHint is 1024 > 1023",
    ),
]


@pytest.mark.parametrize(("text", "words"), DESCRIPTORS, ids=[w for _, w in DESCRIPTORS])
def test_a_descriptor_that_lies_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "flat").write_bytes(bytes(64 * 512))
    path = tmp_path / "a.vmdk"
    path.write_text(text.ljust(8))
    assert refusal(path).startswith(words.format(folder=tmp_path))


@needs.linux("OFD locks")
def test_an_extent_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    """Both edges would write to one file, each with tables of its own."""
    (tmp_path / "flat").write_bytes(bytes(64 * 512))
    path = tmp_path / "a.vmdk"
    path.write_text(descriptor("vmfs", FLAT, FLAT))
    assert refusal(path).endswith(" lock")


def test_an_extent_is_no_descriptor(image: Path, tmp_path: Path) -> None:
    """One that names itself would be opened without end."""
    poke(image, "capacity", 0)
    path = tmp_path / "b.vmdk"
    path.write_text(descriptor("twoGbMaxExtentSparse", 'RW 64 SPARSE "a.vmdk"'))
    assert refusal(path) == f"vmdk: extent '{image}' holds nothing (header.capacity = 0)"


@pytest.mark.parametrize("name", ["null-co://", "json:{}", "nbd:x:1"])
def test_the_name_of_an_extent_is_no_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.vmdk").write_text(descriptor("vmfs", f'RW 64 FLAT "{name}" 0'))
    with pytest.raises(BlockError, match=re.escape(f"Could not open './{name}'")):
        block.open("a.vmdk", format="vmdk")


def test_the_name_of_an_extent_is_relative_to_the_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "flat").write_bytes(b"f" * 64 * 512)
    (tmp_path / "disk" / "a.vmdk").write_text(descriptor("vmfs", 'RW 64 FLAT "../flat" 0'))
    monkeypatch.chdir("/")
    with block.open(os.fspath(tmp_path / "disk" / "a.vmdk"), format="vmdk") as disk:
        assert disk.pread(0, 4) == b"ffff"


# -- tables


def entry_at(image: Path, grain: int) -> int:
    """Where in the file the entry of a grain stands."""
    data = image.read_bytes()
    table: int = struct.unpack_from("<I", data, peek(image, "gdOffset") * 512)[0]
    return table * 512 + grain * 4


def set_word(image: Path, place: int, value: int) -> None:
    with image.open("r+b") as file:
        file.seek(place)
        file.write(struct.pack("<I", value))


def test_a_grain_beyond_the_end_of_the_file_reads_as_zeroes_and_is_a_corruption(
    image: Path,
) -> None:
    from block.core.check import check

    set_word(image, entry_at(image, 2), 1 << 30)
    with block.open(os.fspath(image), format="vmdk", read_only=True) as disk:
        assert disk.pread(2 * GRAIN, 512) == bytes(512)
        assert disk.bs is not None
        said: list[str] = []
        with pytest.raises(BlockError, match=r"^Invalid argument$"):
            check(disk.bs, say=said.append)
        assert said == ["ERROR: cluster offset for sector 256 points after EOF"]


def test_an_entry_behind_the_end_of_the_disk_says_nothing(image: Path) -> None:
    from block.core.check import check

    set_word(image, entry_at(image, SIZE // GRAIN), 1 << 30)
    with block.open(os.fspath(image), format="vmdk", read_only=True) as disk:
        assert disk.bs is not None
        assert check(disk.bs).corruptions == 0


def test_a_table_beyond_the_end_of_the_file_is_an_error(image: Path) -> None:
    set_word(image, peek(image, "gdOffset") * 512, 1 << 30)
    with block.open(os.fspath(image), format="vmdk") as disk:
        for request in (lambda: disk.pread(0, 512), lambda: disk.pwrite(0, bytes(512))):
            with pytest.raises(BlockError, match="grain table at sector 1073741824 lies beyond"):
                request()


@pytest.mark.parametrize("sector", [1, 21, 127])
def test_a_grain_over_the_tables_is_not_written(image: Path, sector: int) -> None:
    """Sector 1 has the descriptor: a guest could write the name of a backing file into it."""
    set_word(image, entry_at(image, 0), sector)
    before = image.read_bytes()
    with block.open(os.fspath(image), format="vmdk") as disk:
        assert len(disk.pread(0, GRAIN)) == GRAIN
        with pytest.raises(BlockError, match=f"grain at sector {sector}, header.overHead is 128"):
            disk.pwrite(0, b"x" * 512)
    assert image.read_bytes() == before


def test_a_file_does_not_become_larger_than_its_entries_can_say(image: Path) -> None:
    with block.open(os.fspath(image), format="vmdk") as disk:
        state_of(disk).extents[0].next_sector = (1 << 32) - 128
        disk.pwrite(0, b"last")
        with pytest.raises(BlockError, match="cannot become larger than 2 TiB"):
            disk.pwrite(GRAIN, b"one more")


# -- compressed grains


@pytest.mark.parametrize(
    ("length", "data", "words"),
    [
        (0, b"", "is 0 bytes long"),
        (2 * GRAIN, b"", "is 131072 bytes long"),
        (0xFFFFFFFF, b"", "is 4294967295 bytes long"),
        (100, b"no deflate", "cannot be unpacked"),
        (20, None, "cannot be unpacked"),
    ],
)
def test_a_compressed_grain_that_lies_is_an_error(
    tmp_path: Path, length: int, data: bytes | None, words: str
) -> None:
    image = bytearray(exported({0: random.Random(1).randbytes(GRAIN)}, SIZE))
    struct.pack_into("<I", image, GRAIN + 8, length)
    if data is not None:
        image[GRAIN + 12 : GRAIN + 12 + len(data)] = data
    (tmp_path / "a.vmdk").write_bytes(image)
    with (
        block.open(os.fspath(tmp_path / "a.vmdk"), format="vmdk", read_only=True) as disk,
        pytest.raises(BlockError, match=words),
    ):
        disk.pread(0, 512)


def test_a_grain_that_unpacks_to_more_than_a_grain_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.vmdk").write_bytes(exported({0: bytes(64 << 20)}, SIZE))
    with (
        block.open(os.fspath(tmp_path / "a.vmdk"), format="vmdk", read_only=True) as disk,
        pytest.raises(BlockError, match="cannot be unpacked"),
    ):
        disk.pread(0, 512)


FOOTER_LIES = [
    (-1536 + 12, 1, "Invalid footer"),
    (-1536 + 8, 1, "Invalid footer"),
    (-1024, 0, "Invalid footer"),
    (-512, 1, "Invalid footer"),
    (-512 + 12, 2, "Invalid footer"),
    (-1024 + 44, 513, "L2 table size too big"),
    (-1024 + 56, 1 << 30, "Could not read l1 table"),
]


@pytest.mark.parametrize(("place", "value", "words"), FOOTER_LIES)
def test_a_footer_that_lies_is_refused(tmp_path: Path, place: int, value: int, words: str) -> None:
    data = bytearray(exported({0: bytes(GRAIN)}, SIZE))
    struct.pack_into("<I", data, len(data) + place, value)
    (tmp_path / "a.vmdk").write_bytes(data)
    assert refusal(tmp_path / "a.vmdk", read_only=True).startswith(words)


def test_an_image_with_its_tables_at_the_end_is_read_and_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.vmdk"
    path.write_bytes(exported({1: b"one" * 21845 + b"!", 3: b"3" * GRAIN}, SIZE))
    with block.open(os.fspath(path), format="vmdk", read_only=True) as disk:
        data = disk.pread(0, SIZE)
    assert data[GRAIN : GRAIN + 6] == b"oneone"
    assert data[2 * GRAIN : 4 * GRAIN] == bytes(GRAIN) + b"3" * GRAIN
    assert refusal(path) == "VMDK with its tables at the end must be read only"


def test_no_image_makes_the_driver_raise_anything_else(tmp_path: Path, image: Path) -> None:
    """Bytes of the header, the tables and the descriptor are changed at random."""
    with block.open(os.fspath(image), format="vmdk", cache="unsafe") as disk:
        disk.pwrite(0, b"x" * 4 * GRAIN)
    good, packed = image.read_bytes(), exported({0: b"0" * GRAIN, 5: b"5" * GRAIN}, SIZE)
    source = random.Random(7)
    refused = 0
    for number in range(300):
        data = bytearray(packed if number % 3 == 0 else good)
        low, high = source.choice(
            ((0, 80), (0, 80), (512, 900), (10240, 16384), (60000, len(data)))
        )
        for _ in range(source.randrange(1, 6)):
            data[source.randrange(low, high)] = source.choice((0, 1, 127, 255, 34, 10))
        path = tmp_path / "fuzzed.vmdk"
        path.write_bytes(data)
        try:
            disk = block.open(
                os.fspath(path), format="vmdk", cache="unsafe", read_only=number % 3 == 0
            )
        except BlockError:
            refused += 1
            continue
        try:
            nbytes = min(disk.length, 5 * GRAIN)
            disk.pread(0, nbytes)
            if number % 3:
                disk.pwrite(0, b"y" * min(nbytes, 512))
        except BlockError:
            refused += 1
        finally:
            disk.close()
    assert 30 < refused < 300


def test_the_limits_are_qemus() -> None:
    limits = (lay.MAX_TABLE_ENTRIES, lay.MAX_GRAIN_SECTORS, lay.MAX_DIRECTORY)
    assert limits == (512, 0x200000, 32 << 20)
