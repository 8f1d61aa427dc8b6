# SPDX-License-Identifier: GPL-2.0-only
"""Requests of an open image: in flight together, on the short way, over many extents, moved."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest

import block
from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.core import flags as f
from block.core import io
from block.core.backend import BlockBackend
from block.core.check import FIX_ERRORS, check
from block.core.error import BlockError
from block.core.open import blockdev_add
from block.core.reopen import set_read_only
from block.formats.vmdk.layout import CACHED_TABLES
from tests.block.formats.vmdk.conftest import GRAIN, SIZE, state_of
from tests.samples.vmdk import PIECES, several_files
from tests.samples.vmdk import SIZE as SEVERAL
from tests.support import needs
from tests.support.drivers import Outcome
from tests.support.qcow2_disk import Tape, open_on
from tests.support.vmdk_images import exported


def opened(path: Path, **how: object) -> BlockBackend:
    return block.open(os.fspath(path), format="vmdk", cache="unsafe", **how)  # type: ignore[arg-type]  # a test's keywords


def write(disk: BlockBackend, offset: int, data: bytes) -> Outcome:
    outcome = Outcome()
    disk.aio_pwritev(offset, [memoryview(data)], outcome)
    return outcome


def test_writes_to_one_new_grain_share_it(image: Path) -> None:
    with opened(image) as disk:
        outcomes = [write(disk, n * 4096, bytes([n + 1]) * 4096) for n in range(16)]
        disk.drain()
        assert [outcome.ret for outcome in outcomes] == [0] * 16
        assert disk.pread(0, GRAIN) == b"".join(bytes([n + 1]) * 4096 for n in range(16))
        assert state_of(disk).extents[0].next_sector == 256


def test_a_grain_that_is_there_is_written_while_another_one_is_made(image: Path) -> None:
    tape = Tape(image.read_bytes())
    with open_on(tape, driver="vmdk") as disk:
        disk.pwrite(0, b"o" * GRAIN)
        tape.log.clear()
        tape.parked = True
        first, second = write(disk, GRAIN, b"n" * 512), write(disk, 0, b"w" * 512)
        assert [entry[1] for entry in tape.asked("pwritev")] == [2 * GRAIN, GRAIN]
        tape.release()
        disk.drain()
        assert (first.ret, second.ret) == (0, 0)


@needs.linux("RWF_NOWAIT")
def test_a_cached_table_answers_at_once(image: Path) -> None:
    with opened(image) as disk:
        disk.pwrite(GRAIN, b"y" * GRAIN)
        disk.pwrite(0, b"x" * GRAIN)
        disk.pwrite(3 * GRAIN, b"z")
        child = disk.bs and disk.bs.parents[0]
        assert child is not None
        buffer = bytearray(512)
        assert io.try_preadv(child, 1024, 512, [memoryview(buffer)]) == 0
        assert buffer == b"x" * 512
        assert io.try_preadv(child, GRAIN - 512, 1024, [memoryview(bytearray(1024))]) is None
        assert io.try_preadv(child, 2 * GRAIN, 512, [memoryview(buffer)]) is None
        state_of(disk).extents[0].tables.clear()
        assert io.try_preadv(child, 1024, 512, [memoryview(buffer)]) is None


def test_no_more_tables_are_in_memory_than_there_may_be(tmp_path: Path) -> None:
    """A table covers 32 MiB; those in use stay."""
    block.create(os.fspath(tmp_path / "a.vmdk"), "vmdk", "2G")
    with opened(tmp_path / "a.vmdk") as disk:
        disk.pwrite(0, b"x" * 512)
        tables = state_of(disk).extents[0].tables
        ((first, table),) = tables.items()
        for number in range(1, 60):
            assert disk.pread(number * (32 << 20), 512) == bytes(512)
            assert disk.pread(0, 512) == b"x" * 512
            assert len(tables) <= CACHED_TABLES
            assert tables[first] is table, "it was forgotten, and loaded again"


def test_an_extent_ends_where_it_ends(tmp_path: Path) -> None:
    """What stands behind it in its file is nobody's."""
    with opened(several_files(tmp_path)) as disk:
        source = random.Random(2)
        model = bytearray(SEVERAL)
        for _ in range(200):
            offset = source.randrange(SEVERAL)
            data = source.randbytes(source.randrange(1, 150_000))[: SEVERAL - offset]
            if source.random() < 0.2:
                disk.pwrite_zeroes(offset, len(data))
                data = bytes(len(data))
            else:
                disk.pwrite(offset, data)
            model[offset : offset + len(data)] = data
        assert disk.pread(0, SEVERAL) == model
        child = disk.bs and disk.bs.parents[0]
        assert child is not None
        for end in state_of(disk).ends[:-1]:
            assert disk.pread(end - 512, 1024) == model[end - 512 : end + 512]
            assert io.try_preadv(child, end - 512, 1024, [memoryview(bytearray(1024))]) is None
    with opened(tmp_path / "disk.vmdk", read_only=True) as disk:
        assert disk.pread(0, SEVERAL) == model


def test_a_flush_reaches_all_extents(tmp_path: Path) -> None:
    path = several_files(tmp_path)
    with block.open(os.fspath(path), format="vmdk") as disk:
        assert disk.bs is not None
        disk.pwrite(0, b"x" * SEVERAL)
        disk.flush()
        children = state_of(disk).own_children()
        assert [child.bs.flushed_gen == child.bs.write_gen > 0 for child in children] == [True] * 3


def test_new_grains_on_both_sides_of_a_border_copy_their_own_places_of_the_backing_file(
    tmp_path: Path,
) -> None:
    base, top, border = tmp_path / "base.vmdk", tmp_path / "top.vmdk", 2 << 30
    block.create(os.fspath(base), "vmdk", border + SIZE)
    with opened(base) as disk:
        disk.pwrite(0, b"o" * GRAIN)
        disk.pwrite(border - GRAIN, b"l" * GRAIN + b"r" * GRAIN)
    options = {"backing_file": "base.vmdk", "subformat": "twoGbMaxExtentSparse"}
    block.create(os.fspath(top), "vmdk", border + SIZE, **options)
    with opened(top) as disk:
        disk.pwrite(border - 512, b"w" * 1024)
        expected = b"l" * (GRAIN - 512) + b"w" * 1024 + b"r" * (GRAIN - 512)
        assert disk.pread(border - GRAIN, 2 * GRAIN) == expected


# -- what is told of an image


def test_where_bytes_are(image: Path) -> None:
    with opened(image) as disk:
        assert disk.bs is not None
        disk.pwrite(2 * GRAIN, b"x" * 2 * GRAIN)
        zero = f.BDRV_BLOCK_ZERO
        assert disk.bs.block_status(0, SIZE)[:2] == (zero, 2 * GRAIN)
        found, size, place, file = disk.bs.block_status(2 * GRAIN + 512, SIZE - 2 * GRAIN - 512)
        data = f.BDRV_BLOCK_DATA | f.BDRV_BLOCK_OFFSET_VALID | f.BDRV_BLOCK_ALLOCATED
        assert (found & data, size) == (data, 2 * GRAIN - 512)
        assert file is not None
        assert file.filename == os.fspath(image)
        assert image.read_bytes()[place : place + 4] == b"xxxx"
        assert disk.bs.block_status(4 * GRAIN, GRAIN)[:2] == (zero, GRAIN)


def test_what_only_this_format_has(tmp_path: Path) -> None:
    with opened(several_files(tmp_path)) as disk:
        assert disk.bs is not None
        assert disk.bs.get_info() is None  # the extents are not alike
        assert disk.bs.drv is not None
        assert disk.bs.drv.has_zero_init(disk.bs)
        extents = [
            {
                "filename": os.fspath(tmp_path / f"disk-{n}.vmdk"),
                "format": kind,
                "virtual-size": size,
            }
            | ({"cluster-size": GRAIN} if kind == "SPARSE" else {})
            for n, (kind, size) in enumerate(PIECES)
        ]
        assert disk.bs.drv.get_specific_info(disk.bs) == {
            "type": "vmdk",
            "data": {
                "create-type": "twoGbMaxExtentSparse",
                "cid": 1,
                "parent-cid": 0xFFFFFFFF,
                "extents": extents,
            },
        }


def test_the_name_of_an_image_is_that_of_its_descriptor(tmp_path: Path) -> None:
    with opened(several_files(tmp_path)) as disk:
        assert disk.bs is not None
        assert disk.bs.filename == os.fspath(tmp_path / "disk.vmdk")


def test_a_check_counts_and_repairs_nothing(image: Path) -> None:
    with opened(image) as disk:
        assert disk.bs is not None
        disk.pwrite(0, b"x" * 3 * GRAIN)
        assert check(disk.bs).corruptions == 0
        with pytest.raises(BlockError, match="cannot be repaired"):
            check(disk.bs, FIX_ERRORS)


def test_the_disk_cannot_be_resized(image: Path) -> None:
    with opened(image) as disk, pytest.raises(BlockError, match="does not support resize"):
        disk.truncate(2 * SIZE)


# -- compressed


def test_a_grain_of_a_stream_is_written_once_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.vmdk"
    block.create(os.fspath(path), "vmdk", 3 * GRAIN + 512, subformat="streamOptimized")
    with opened(path) as disk:
        info = disk.bs and disk.bs.get_info()
        assert info is not None
        assert (info.cluster_size, info.needs_compressed_writes) == (GRAIN, True)
        disk.pwrite(3 * GRAIN, b"e" * 512, f.REQ_WRITE_COMPRESSED)
        disk.pwrite(GRAIN, b"1" * GRAIN)
        for offset, nbytes in ((0, 512), (512, GRAIN), (2 * GRAIN, 512)):
            with pytest.raises(BlockError, match="Only whole grains"):
                disk.pwrite(offset, b"x" * nbytes)
        with pytest.raises(BlockError, match="Could not write to allocated cluster"):
            disk.pwrite(GRAIN, b"2" * GRAIN)
        wanted = bytes(GRAIN) + b"1" * GRAIN + bytes(GRAIN) + b"e" * 512
        assert disk.pread(0, len(wanted)) == wanted
    data = path.read_bytes()
    assert len(data) % 512 == 0
    assert struct.unpack_from("<Q", data, GRAIN)[0] == 3 * GRAIN // 512


def test_an_image_that_cannot_be_written_stays_read_only(tmp_path: Path) -> None:
    path = tmp_path / "a.vmdk"
    path.write_bytes(exported({0: b"0" * GRAIN}, SIZE))
    with opened(path, read_only=True) as disk:
        assert disk.bs is not None
        with pytest.raises(BlockError, match="must be read only"):
            set_read_only(disk.bs, False)
    file = {"driver": "file", "filename": os.fspath(path)}
    how = {"driver": "vmdk", "node-name": "stream", "auto-read-only": True, "file": file}
    bs = blockdev_add(how)
    assert bs.read_only
    bs.unref()


# -- moving (patch 18 of the series)


def test_the_extents_move_with_their_disk(
    tmp_path: Path, iothread: IOThread, main: AioContext
) -> None:
    with opened(several_files(tmp_path)) as disk:
        nodes = [child.bs for child in disk.bs.children] if disk.bs else []
        assert len(nodes) == 4
        for number, ctx in enumerate((iothread.ctx, main, iothread.ctx)):
            disk.set_aio_context(ctx)
            assert {node.aio_context for node in nodes} == {ctx}
            data = bytes([65 + number]) * SEVERAL
            disk.pwrite(0, data)
            assert disk.pread(0, SEVERAL) == data


def test_an_extent_that_is_the_file_moves_once(image: Path, iothread: IOThread) -> None:
    with opened(image) as disk:
        assert state_of(disk).own_children() == []
        disk.set_aio_context(iothread.ctx)
        disk.pwrite(0, b"there")
        assert disk.pread(0, 5) == b"there"


def test_requests_on_their_way_end_before_the_move(tmp_path: Path, iothread: IOThread) -> None:
    with opened(several_files(tmp_path)) as disk:
        outcomes = [write(disk, n * GRAIN, bytes([n + 1]) * GRAIN) for n in range(16)]
        disk.set_aio_context(iothread.ctx)
        assert [outcome.ret for outcome in outcomes] == [0] * 16
        assert disk.pread(0, SEVERAL) == b"".join(bytes([n + 1]) * GRAIN for n in range(16))
