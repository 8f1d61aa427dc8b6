# SPDX-License-Identifier: GPL-2.0-only
"""Limits: which are refused, and how the core cuts requests to fit them."""

from __future__ import annotations

import pytest

from block.core.error import BlockError
from tests.support.blkdebug import debugged_ram, node
from tests.support.drivers import Disk

GIB2 = (1 << 31) - 1


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"align": 3}, "align 3"),
        ({"align": 1 << 31}, "align 2147483648"),
        ({"align": 4096, "max_transfer": 5000}, "max-transfer 5000"),
        ({"max_transfer": GIB2}, f"max-transfer {GIB2}"),
        ({"align": 512, "opt_write_zero": 700}, "opt-write-zero 700"),
        ({"opt_write_zero": 1536, "max_write_zero": 4096}, "max-write-zero 4096"),
        ({"align": 512, "opt_discard": 700}, "opt-discard 700"),
        ({"opt_discard": 1024, "max_discard": 1536}, "max-discard 1536"),
        ({"align": 4096, "opt_discard": 4096, "max_discard": 6144}, "max-discard 6144"),
    ],
)
def test_limits_that_contradict_each_other_are_refused(
    options: dict[str, int], complaint: str
) -> None:
    with (
        pytest.raises(BlockError, match=f"^Cannot meet constraints with {complaint}$"),
        debugged_ram(Disk(), **options),
    ):
        pass


def test_limits_that_the_image_does_not_bear_are_refused() -> None:
    with (
        pytest.raises(BlockError, match=r"^Cannot meet constraints with max-transfer 512$"),
        debugged_ram(Disk(request_alignment=4096), max_transfer=512),
    ):
        pass


def test_limits_that_are_not_said_stay_the_images() -> None:
    with debugged_ram(Disk(max_transfer=65536), opt_discard=4096) as blk:
        bl = node(blk).bl
        assert (bl.max_transfer, bl.pdiscard_alignment, bl.request_alignment) == (65536, 4096, 1)


def test_all_limits_reach_the_node() -> None:
    limits = {
        "align": 512, "max_transfer": 1536, "opt_write_zero": 1024, "max_write_zero": 3072,
        "opt_discard": 2048, "max_discard": 4096,
    }  # fmt: skip
    with debugged_ram(Disk(), **limits) as blk:
        bl = node(blk).bl
        assert bl.request_alignment == 512
        assert bl.max_transfer == 1536
        assert (bl.pwrite_zeroes_alignment, bl.max_pwrite_zeroes) == (1024, 3072)
        assert (bl.pdiscard_alignment, bl.max_pdiscard) == (2048, 4096)


def test_the_core_cuts_reads_and_writes() -> None:
    disk = Disk()
    with debugged_ram(disk, align=512, max_transfer=1024) as blk:
        blk.pwrite(0, b"x" * 2048)
        assert [e[1:3] for e in disk.asked("pwritev")] == [(0, 1024), (1024, 1024)]
        assert blk.pread(100, 1000) == b"x" * 1000
        assert [e[1:3] for e in disk.asked("preadv")] == [(0, 1024), (1024, 512)]


def test_zeroes_in_less_than_a_piece_are_written() -> None:
    """A piece of 1536 bytes, no power of two: head and tail come as data."""
    disk = Disk()
    disk.data[:] = b"x" * len(disk.data)
    with debugged_ram(disk, align=512, opt_write_zero=1536, max_write_zero=3072) as blk:
        blk.pwrite_zeroes(1024, 8192)
        assert disk.data[:10240] == b"x" * 1024 + bytes(8192) + b"x" * 1024
    zeroes = [e[1:3] for e in disk.asked("pwrite_zeroes")]
    assert zeroes == [(1536, 3072), (4608, 3072), (7680, 1536)]
    assert [e[1:3] for e in disk.asked("pwritev")] == [(1024, 512)]


def test_discards_are_cut_and_less_than_a_block_is_let_be() -> None:
    disk = Disk()
    with debugged_ram(disk, align=512, opt_discard=1024, max_discard=2048) as blk:
        blk.pdiscard(100, 8000)
    assert [e[1:3] for e in disk.asked("pdiscard")] == [
        (512, 512), (1024, 2048), (3072, 2048), (5120, 2048), (7168, 512),
    ]  # fmt: skip
