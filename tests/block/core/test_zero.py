# SPDX-License-Identifier: GPL-2.0-only
"""Zero writes and discards: alignment, limits, fallback."""

from __future__ import annotations

import errno
import itertools

import pytest

from block.core import flags as f
from block.core.error import BlockError
from block.core.zero import pieces
from tests.support.drivers import Disk, ZeroRam, backend_on, ram_node


def full_disk(**limits: int) -> Disk:
    disk = Disk(1 << 16, **limits)
    disk.data[:] = b"\xff" * len(disk.data)
    return disk


def zeroed(start: int, end: int, size: int = 1 << 16) -> bytes:
    return b"\xff" * start + bytes(end - start) + b"\xff" * (size - end)


def test_the_driver_is_asked_for_zeroes_in_aligned_pieces() -> None:
    disk = full_disk(pwrite_zeroes_alignment=4096)
    with backend_on(ram_node(disk, driver=ZeroRam)) as blk:
        blk.pwrite_zeroes(1000, 10000)
    assert disk.data == zeroed(1000, 11000)
    assert [entry[1:3] for entry in disk.asked("pwrite_zeroes")] == [
        (1000, 3096),
        (4096, 4096),
        (8192, 2808),
    ]


def test_unaligned_zeroes_are_a_read_modify_write_at_both_ends() -> None:
    disk = full_disk(request_alignment=512)
    with backend_on(ram_node(disk, driver=ZeroRam)) as blk:
        blk.pwrite_zeroes(100, 2000)
        assert disk.data == zeroed(100, 2100)
        assert [entry[1:3] for entry in disk.asked("pwrite_zeroes")] == [(512, 1536)]
        blk.pwrite_zeroes(5000, 10)
    assert disk.data[:6000] == zeroed(100, 2100)[:5000] + bytes(10) + b"\xff" * 990


def test_the_driver_is_not_asked_for_more_than_it_takes() -> None:
    disk = full_disk(max_pwrite_zeroes=10000, pwrite_zeroes_alignment=4096)
    with backend_on(ram_node(disk, driver=ZeroRam)) as blk:
        blk.pwrite_zeroes(0, 20480)
    assert [entry[2] for entry in disk.asked("pwrite_zeroes")] == [8192, 8192, 4096]


@pytest.mark.parametrize("number", [errno.ENOTSUP])
def test_a_driver_without_zero_writes_gets_zeroes_as_data(number: int) -> None:
    for driver_has_hook in (False, True):
        disk = full_disk(max_transfer=4096)
        disk.errors["pwrite_zeroes"] = BlockError(number, "no")
        bs = ram_node(disk, driver=ZeroRam) if driver_has_hook else ram_node(disk)
        with backend_on(bs) as blk:
            blk.pwrite_zeroes(512, 10000)
        assert disk.data == zeroed(512, 10512)
        assert max(entry[2] for entry in disk.asked("pwritev")) == 4096


def test_without_fallback_it_fails_instead() -> None:
    disk = full_disk()
    with backend_on(ram_node(disk)) as blk, pytest.raises(BlockError) as error:
        blk.pwrite_zeroes(0, 512, f.REQ_NO_FALLBACK)
    assert error.value.errno == errno.ENOTSUP
    assert disk.asked("pwritev") == []


def test_another_failure_is_not_hidden_by_the_fallback() -> None:
    disk = full_disk()
    disk.errors["pwrite_zeroes"] = BlockError(errno.ENOSPC, "full")
    with (
        backend_on(ram_node(disk, driver=ZeroRam)) as blk,
        pytest.raises(BlockError, match="full"),
    ):
        blk.pwrite_zeroes(0, 512)


@pytest.mark.parametrize("unmap", [False, True])
def test_unmapping_reaches_only_a_node_opened_with_it(unmap: bool) -> None:
    disk = full_disk()
    flags = f.BDRV_O_RDWR | (f.BDRV_O_UNMAP if unmap else 0)
    bs = ram_node(disk, driver=ZeroRam, flags=flags)
    bs.supported_zero_flags = f.REQ_MAY_UNMAP
    with backend_on(bs) as blk:
        blk.pwrite_zeroes(0, 512, f.REQ_MAY_UNMAP)
    expected = f.REQ_MAY_UNMAP if unmap else 0
    assert disk.asked("pwrite_zeroes") == [("pwrite_zeroes", 0, 512, expected)]


def test_zeroes_with_fua_are_flushed_once() -> None:
    disk = full_disk(max_pwrite_zeroes=512)
    with backend_on(ram_node(disk, driver=ZeroRam)) as blk:
        blk.pwrite_zeroes(0, 2048, f.REQ_FUA)
        assert disk.flushes == 1


def test_a_discard_is_cut_at_the_drivers_alignment() -> None:
    disk = full_disk(pdiscard_alignment=4096, max_pdiscard=8192)
    with backend_on(ram_node(disk, driver=ZeroRam)) as blk:
        blk.pdiscard(512, 20000)
    pieces_seen = [entry[1:] for entry in disk.asked("pdiscard")]
    assert pieces_seen == [(512, 3584), (4096, 8192), (12288, 8192), (20480, 32)]
    assert disk.data == zeroed(512, 20512)


def test_a_discard_is_ignored_without_discard_unmap() -> None:
    disk = full_disk()
    with backend_on(ram_node(disk, driver=ZeroRam, flags=f.BDRV_O_RDWR)) as blk:
        blk.pdiscard(0, 4096)
    assert disk.asked("pdiscard") == []


def test_a_discard_that_the_driver_does_not_support_succeeds() -> None:
    disk = full_disk()
    disk.errors["pdiscard"] = BlockError(errno.ENOTSUP, "no")
    with backend_on(ram_node(disk, driver=ZeroRam)) as blk:
        blk.pdiscard(0, 4096)
        disk.errors["pdiscard"] = BlockError(errno.EIO, "broken")
        with pytest.raises(BlockError, match="broken"):
            blk.pdiscard(0, 4096)


@pytest.mark.parametrize(("offset", "nbytes"), [(0, 1), (511, 2), (3, 5000), (4096, 8192)])
def test_pieces_cover_a_range_exactly(offset: int, nbytes: int) -> None:
    cut = list(pieces(offset, nbytes, 512, 2048))
    assert cut[0][0] == offset
    assert sum(size for _, size in cut) == nbytes
    for (start, size), (following, _) in itertools.pairwise(cut):
        assert start + size == following
        assert following % 512 == 0


def test_a_write_with_the_zero_flag_touches_nothing_else() -> None:
    disk = Disk(4096, request_alignment=512)
    disk.data[:] = b"x" * 4096
    with backend_on(ram_node(disk)) as blk:
        blk.pwrite(100, bytes(50), f.REQ_ZERO_WRITE)
    assert disk.data == b"x" * 100 + bytes(50) + b"x" * 3946
