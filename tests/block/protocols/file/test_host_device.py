# SPDX-License-Identifier: GPL-2.0-only
"""Disks of this machine (host_device.py, device.py), on a file that passes for one."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import block
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.open import bdrv_open, open_backend
from block.core.registry import find_format
from block.core.wait import run_sync
from block.protocols.file import device
from tests.block.protocols.file.conftest import SIZE
from tests.support.fake_device import FakeDisk, fake_disk

K = 1024
OPTIONS = {"driver": "host_device", "discard": "unmap"}


@pytest.fixture
def disk() -> Iterator[FakeDisk]:
    with fake_disk() as disk:
        yield disk


def opened(image: Path, **options: object) -> BlockBackend:
    flags = f.BDRV_O_RDWR | f.BDRV_O_RESIZE
    return open_backend(os.fspath(image), options={**OPTIONS, **options}, flags=flags)


# -- opening


def test_a_device_s_plain_name_is_enough() -> None:
    with block.open("/dev/null", read_only=True) as disk:
        assert disk.length == 0
        assert disk.bs is not None
        assert disk.bs.filename == "/dev/null"
        assert disk.bs.file is not None
        assert disk.bs.file.bs.drv is find_format("host_device")


def test_a_prefix_says_so_too() -> None:
    bs = bdrv_open("host_device:/dev/zero", options={"driver": "host_device"}, flags=0)
    assert (bs.filename, bs.getlength()) == ("/dev/zero", 0)
    bs.unref()


def test_a_file_is_no_device(image: Path) -> None:
    with pytest.raises(BlockError) as error:
        opened(image)
    what = "to be either a character or block device"
    assert str(error.value) == f"'host_device' driver requires '{image}' {what}"


def test_a_disk_that_was_made_read_only_is_not_opened_for_writing(
    image: Path, disk: FakeDisk
) -> None:
    disk.read_only = True
    with pytest.raises(BlockError, match=r"^The device is not writable: Permission denied$"):
        opened(image)
    open_backend(os.fspath(image), options=OPTIONS, flags=0).unref()


def test_a_disk_can_be_reopened_for_writing_unless_it_is_read_only(
    image: Path, disk: FakeDisk
) -> None:
    from block.core.reopen import set_read_only

    blk = open_backend(os.fspath(image), options=OPTIONS, flags=0)
    assert blk.bs is not None
    disk.read_only = True
    with pytest.raises(BlockError, match="The device is not writable"):
        set_read_only(blk.bs, False)
    disk.read_only = False
    set_read_only(blk.bs, False)
    blk.set_perm(f.BLK_PERM_WRITE, f.BLK_PERM_ALL)
    blk.pwrite(0, b"x")
    blk.unref()


# -- requests


@pytest.mark.usefixtures("disk")
def test_what_is_written_is_read_back_and_nobody_can_tell_where_data_are(image: Path) -> None:
    with opened(image) as blk:
        blk.pwrite(1000, b"hello")
        assert blk.pread(999, 7)[1:6] == b"hello"
        assert blk.length == SIZE
        assert blk.bs is not None
        assert not blk.bs.drv.has_zero_init(blk.bs)  # type: ignore[union-attr]  # it is open
        assert "co_block_status" not in blk.bs.drv.hooks  # type: ignore[union-attr]  # so
    assert image.read_bytes()[1000:1005] == b"hello"


@pytest.mark.parametrize("sector", [512, 4096])
def test_discards_are_asked_for_in_whole_sectors(image: Path, sector: int) -> None:
    with fake_disk(sector) as disk, opened(image) as blk:
        blk.pdiscard(8 * K, 16 * K)
        assert disk.asked == [("discard", 8 * K, 16 * K)]
        assert blk.pread(8 * K, 16 * K) == bytes(16 * K)


def test_what_no_discard_reaches_stays(image: Path, disk: FakeDisk) -> None:
    disk.refuses = errno.EOPNOTSUPP
    with opened(image) as blk:
        for _ in range(3):
            blk.pdiscard(0, 4096)
    assert len(disk.asked) == 1, "a disk that cannot is asked once"


class Zeroes:
    """A node's own state, to ask for zeroes without a tree."""

    def __init__(self, image: Path) -> None:
        from block.protocols.file.state import FileState

        self.state = FileState("x", use_lock=False, is_device=True)
        self.fd = os.open(image, os.O_RDWR)
        self.state.direct = True

    def write(self, may_write: bool = True) -> None:
        device.write_zeroes(self.state, self.fd, 4096, 4096, may_write)

    def unmap(self, may_write: bool = True) -> None:
        device.write_zeroes_unmap(self.state, self.fd, 4096, 4096, may_write)


@pytest.fixture
def zeroes(image: Path) -> Iterator[Zeroes]:
    zeroes = Zeroes(image)
    yield zeroes
    os.close(zeroes.fd)


def test_zeroes_past_the_page_cache_are_the_kernel_s_matter(
    disk: FakeDisk, zeroes: Zeroes, image: Path
) -> None:
    zeroes.write()
    assert disk.asked == [("zeroes", 4096, 4096)]
    assert image.read_bytes()[4096:8192] == bytes(4096)


def test_who_wants_no_fallback_gets_none(disk: FakeDisk, zeroes: Zeroes) -> None:
    with pytest.raises(OSError, match="not supported"):
        zeroes.write(may_write=False)
    assert not disk.asked


def test_with_the_page_cache_in_play_zeroes_are_written(disk: FakeDisk, zeroes: Zeroes) -> None:
    zeroes.state.direct = False
    with pytest.raises(OSError, match="not supported"):
        zeroes.write()
    assert not disk.asked


def test_a_disk_that_makes_no_zeroes_is_asked_once(disk: FakeDisk, zeroes: Zeroes) -> None:
    disk.refuses = errno.ENOTTY
    for _ in range(2):
        with pytest.raises(OSError, match="not supported"):
            zeroes.write()
    assert len(disk.asked) == 1


def test_zeroes_that_may_be_unmapped_are_a_hole_and_else_as_other_zeroes(
    disk: FakeDisk, zeroes: Zeroes, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holes: list[tuple[int, int]] = []
    monkeypatch.setattr(device, "punch_hole", lambda fd, at, n: holes.append((at, n)))
    zeroes.unmap(may_write=False)
    assert holes == [(4096, 4096)]
    assert not disk.asked

    def refuse(fd: int, offset: int, nbytes: int) -> None:
        raise OSError(errno.ENOTSUP, "")

    monkeypatch.setattr(device, "punch_hole", refuse)
    zeroes.unmap()
    assert disk.asked == [("zeroes", 4096, 4096)]
    with pytest.raises(OSError, match="not supported"):
        zeroes.unmap(may_write=False)


@pytest.mark.usefixtures("disk")
def test_a_guest_s_zeroes_arrive_one_way_or_the_other(image: Path) -> None:
    with opened(image) as blk:
        blk.pwrite_zeroes(1000, 5000)
        blk.pwrite_zeroes(8 * K, 8 * K, f.REQ_MAY_UNMAP)
        with pytest.raises(BlockError, match="not supported"):
            blk.pwrite_zeroes(32 * K, 4 * K, f.REQ_NO_FALLBACK)
        before = image.read_bytes()
    assert before[1000:6000] == bytes(5000)
    assert before[8 * K : 16 * K] == bytes(8 * K)
    assert before[32 * K] != 0


def test_the_kernel_writes_zeroes_only_for_those_who_can_wait(image: Path, disk: FakeDisk) -> None:
    with opened(image) as blk:
        assert blk.bs is not None
        blk.bs.opaque.direct = True  # as with cache.direct=on, which not every file system has
        with pytest.raises(BlockError, match="not supported"):
            blk.pwrite_zeroes(4 * K, 4 * K, f.REQ_NO_FALLBACK)
        assert not disk.asked
        blk.pwrite_zeroes(4 * K, 4 * K)
        assert disk.asked == [("zeroes", 4 * K, 4 * K)]


# -- its length


@pytest.mark.usefixtures("disk")
def test_a_disk_stays_as_long_as_it_is(image: Path) -> None:
    with opened(image) as blk:
        blk.truncate(SIZE // 2)
        blk.truncate(SIZE, exact=True)
        assert blk.length == SIZE
        for length, exact, prealloc, message in (
            (SIZE // 2, True, "off", "Cannot resize device files"),
            (2 * SIZE, False, "off", "Cannot grow device files"),
            (SIZE, False, "full", "Preallocation mode 'full' unsupported for this non-regular"),
        ):
            with pytest.raises(BlockError, match=message):
                blk.truncate(length, exact, prealloc)
    assert image.stat().st_size == SIZE


# -- images on it


@pytest.mark.usefixtures("disk")
def test_a_new_image_needs_room_and_clears_the_first_sector(image: Path) -> None:
    image.write_bytes(b"QFI\xfb" + b"x" * (SIZE - 4))
    find_format("host_device").create(os.fspath(image), {"size": SIZE // 2})
    assert image.read_bytes() == bytes(512) + b"x" * (SIZE - 512)
    with pytest.raises(BlockError, match="Cannot grow device files"):
        find_format("host_device").create(os.fspath(image), {"size": SIZE + 1})
    with pytest.raises(BlockError, match="Unsupported preallocation mode 'full'"):
        find_format("host_device").create(os.fspath(image), {"preallocation": "full"})


def test_a_file_that_is_no_disk_can_be_no_image_on_one(image: Path) -> None:
    refusal = (
        "Protocol driver 'host_device' does not support image creation, and opening the image "
        "failed: 'host_device' driver requires"
    )
    with pytest.raises(BlockError, match=refusal):
        find_format("host_device").create(os.fspath(image), {"size": 0})


def test_a_character_device_is_asked_nothing_that_only_disks_know(
    image: Path, disk: FakeDisk
) -> None:
    disk.mode = stat.S_IFCHR
    disk.read_only = True  # if somebody asked
    with opened(image) as blk:
        assert blk.bs is not None
        assert blk.bs.bl.pdiscard_alignment == 0


def test_a_disk_of_odd_sectors_never_sees_a_part_of_one(image: Path) -> None:
    with fake_disk(4096) as disk, opened(image) as blk:
        root = blk.root
        assert root is not None
        run_sync(blk.aio_context, lambda: root.co_pdiscard(512, 16 * K))
        assert disk.asked == [("discard", 4096, 12 * K)]
        before = image.read_bytes()
        blk.pwrite_zeroes(512, 16 * K, f.REQ_MAY_UNMAP)
    after = image.read_bytes()
    assert after == before[:512] + bytes(16 * K) + before[512 + 16 * K :]
