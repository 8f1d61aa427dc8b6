# SPDX-License-Identifier: GPL-2.0-only
"""Raw images: the whole file, or a part; and the guard of a guessed format."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

import block
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.ops.map import MapEntry, walk_map

QCOW2 = b"QFI\xfb\0\0\0\3" + bytes(504)


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(range(256)) * 256)
    return str(path)


def part(image: str, **options: object) -> BlockBackend:
    return block.open(options={"driver": "raw", "file.driver": "file", "file.filename": image,
                               **options})  # fmt: skip


def test_the_disk_is_the_file(image: str) -> None:
    with block.open(image, format="raw") as disk:
        assert disk.length == 65536
        disk.pwrite(3, b"hello")
        assert disk.pread(2, 7) == b"\2hello\x08"
    assert Path(image).read_bytes()[3:8] == b"hello"


def test_it_takes_no_compressed_writes(image: str) -> None:
    with (
        block.open(image, format="raw") as disk,
        pytest.raises(BlockError, match="'raw' does not support compressed writes"),
    ):
        disk.pwrite(0, bytes(512), f.REQ_WRITE_COMPRESSED)


def test_a_part_of_the_file_is_shifted_and_bounded(image: str) -> None:
    with part(image, offset=4096, size=1024) as disk:
        assert disk.length == 1024
        disk.pwrite(0, b"first")
        assert disk.pread(1020, 4) == b"\xfc\xfd\xfe\xff"
        assert disk.bs.block_status(0, 1024)[1:3] == (1024, 4096)
        with pytest.raises(BlockError) as error:
            disk.pread(1024, 1)
        assert error.value.errno == errno.EIO
    assert Path(image).read_bytes()[4096:4101] == b"first"


def test_with_an_offset_alone_the_disk_reaches_to_the_end(image: str) -> None:
    with part(image, offset=65024) as disk:
        assert disk.length == 512


def test_behind_an_odd_offset_the_last_sector_is_data_and_then_zeroes(image: str) -> None:
    """It reaches beyond the end of the file; each byte has its status, and the last one an end."""
    found: list[MapEntry] = []
    with part(image, offset=65025) as disk:
        assert disk.length == 512
        assert disk.bs is not None
        walk_map(disk.bs, 0, disk.length, lambda entry, _: found.append(entry))
        assert disk.pread(0, 512)[511:] == bytes(1)
    assert [(e.start, e.length, e.data, e.zero) for e in found] == [
        (0, 511, True, False),
        (511, 1, False, True),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"offset": 70000},
            "Offset (70000) cannot be greater than size of the containing file (65536)",
        ),
        (
            {"offset": 512, "size": 65536},
            "The sum of offset (512) and size (65536) has to be smaller or equal to the  actual "
            "size of the containing file (65536)",
        ),
        ({"size": 1000}, "Specified size is not multiple of 512"),
    ],
)
def test_a_part_that_does_not_fit_is_refused(
    image: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(BlockError) as error:
        part(image, **options)
    assert message in str(error.value)


def test_a_disk_can_be_resized_but_not_a_part_of_fixed_size(image: str) -> None:
    with block.open(image, format="raw") as disk:
        disk.truncate(131072)
        assert (disk.length, disk.pread(65536, 4)) == (131072, bytes(4))
        disk.truncate(1024)
        assert disk.length == 1024
    with (
        part(image, size=512) as fixed,
        pytest.raises(BlockError, match="Cannot resize fixed-size raw disks"),
    ):
        fixed.truncate(1024)


def test_zeroes_discards_and_flushes_go_down(image: str) -> None:
    with block.open(image, format="raw", options={"discard": "unmap"}) as disk:
        disk.pwrite_zeroes(0, 4096)
        disk.pdiscard(4096, 4096)
        disk.flush()
        assert disk.pread(0, 4096) == bytes(4096)


def test_a_guessed_format_guards_its_first_sector(
    image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with block.open(image) as disk:
        assert "probing guessed raw" in capsys.readouterr().err
        with pytest.raises(BlockError) as error:
            disk.pwrite(0, QCOW2)
        assert error.value.errno == errno.EPERM
        with pytest.raises(BlockError):
            disk.pwrite(0, QCOW2[:8])
        disk.pwrite(0, b"harmless")
        disk.pwrite(512, QCOW2)
        assert disk.get_request_alignment() == 512
    assert Path(image).read_bytes()[:1024].startswith(b"harmless")


def test_a_named_format_lets_the_guest_write_what_it_likes(
    image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with block.open(image, format="raw") as disk:
        disk.pwrite(0, QCOW2)
    assert capsys.readouterr().err == ""
    assert Path(image).read_bytes()[:512] == QCOW2


def test_raw_takes_from_the_file_what_its_own_users_need(image: str) -> None:
    with block.open(image, format="raw", read_only=True) as disk:
        below = disk.bs.file  # type: ignore[union-attr]  # it is there
        assert below is not None
        assert not below.perm & f.BLK_PERM_WRITE
    with part(image, size=512) as disk:
        assert disk.bs.file.perm & f.BLK_PERM_WRITE
