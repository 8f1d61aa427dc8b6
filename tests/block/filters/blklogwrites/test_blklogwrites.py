# SPDX-License-Identifier: GPL-2.0-only
"""blklogwrites: what is done to a disk stands in its log, in the order in which it was done."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

import block
from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.core import flags as f
from block.core.error import BlockError
from block.core.open import open_backend
from block.filters.blklogwrites.layout import DISCARD, FLUSH, MAGIC, Superblock, pack_entry
from tests.block.filters.blklogwrites.conftest import SIZE, Logged
from tests.support.drivers import Outcome

# -- what is written down


def test_changes_stand_in_the_log_in_their_order(logged: Logged) -> None:
    logged.blk.pwrite(1024, b"a" * 512)
    logged.blk.pwrite_zeroes(4096, 2048)
    logged.blk.pdiscard(65536, 4096)
    logged.blk.pread(0, 512)
    logged.blk.flush()
    assert logged.entries() == [
        (1024, 512, 0),
        (4096, 2048, 0),
        (65536, 4096, DISCARD),
        (0, 0, FLUSH),
    ]


def test_data_stand_behind_their_entry_and_zeroes_take_their_room(logged: Logged) -> None:
    logged.blk.pwrite(1024, b"a" * 1024)
    logged.blk.pwrite_zeroes(4096, 512)
    logged.blk.flush()
    log = logged.replay_log()
    assert [log.data_of(entry) for entry in log.entries] == [b"a" * 1024, bytes(512), b""]
    assert [entry.data_offset for entry in log.entries] == [1024, 2560, 3584]


def test_zeroes_cover_what_an_older_log_left_there() -> None:
    logged = Logged(b"x" * 8192)
    logged.blk.pwrite_zeroes(0, 2048)
    logged.blk.flush()
    log = logged.replay_log()
    assert log.data_of(log.entries[0]) == bytes(2048)
    logged.blk.unref()


def test_a_write_of_some_bytes_becomes_whole_sectors(logged: Logged) -> None:
    logged.blk.pwrite(1000, b"x" * 100)
    logged.blk.flush()
    assert logged.entries()[0] == (512, 1024, 0)


def test_sectors_of_the_log_can_be_larger() -> None:
    logged = Logged(**{"log-sector-size": 4096})
    logged.blk.pwrite(5000, b"x" * 10)
    logged.blk.flush()
    assert logged.entries() == [(4096, 4096, 0), (0, 0, FLUSH)]
    assert len(logged.log.data) == 4 * 4096
    logged.blk.unref()


def test_a_write_with_fua_is_followed_by_a_flush(logged: Logged) -> None:
    logged.blk.pwrite(0, b"a" * 512, f.REQ_FUA)
    assert logged.entries() == [(0, 512, 0), (0, 0, FLUSH)]


# -- the order


def test_two_that_run_side_by_side_stand_in_the_order_in_which_they_ended(logged: Logged) -> None:
    logged.disk.parked = True
    slow = Outcome()
    logged.blk.aio_pwritev(0, [memoryview(b"s" * 512)], slow)
    logged.disk.parked = False
    logged.blk.pwrite(512, b"f" * 512)
    assert slow.ret is None
    logged.disk.release()
    logged.blk.drain()
    logged.blk.flush()
    assert [offset for offset, *_ in logged.entries()] == [512, 0, 0]


def test_what_ends_while_a_flush_runs_stands_behind_it(logged: Logged) -> None:
    logged.blk.pwrite(0, b"a" * 512)
    logged.disk.parked = True
    logged.blk.aio_flush(Outcome())
    assert logged.disk.asked("flush")
    logged.disk.parked = False
    late = Outcome()
    logged.blk.aio_pwritev(512, [memoryview(b"b" * 512)], late)
    assert logged.disk.data[512:1024] == b"b" * 512
    assert late.ret is None
    logged.disk.release()
    logged.blk.drain()
    logged.blk.flush()
    assert [flags for *_, flags in logged.entries()] == [0, FLUSH, 0, FLUSH]


def test_the_superblock_counts_no_entry_that_is_not_there(logged: Logged) -> None:
    logged.blk.pwrite(0, b"a" * 512)
    logged.blk.flush()
    logged.log.parked = True
    logged.blk.aio_pwritev(512, [memoryview(b"b" * 512)], Outcome())
    assert len(logged.entries()) == 2
    logged.log.release()
    logged.blk.drain()
    logged.blk.flush()
    assert len(logged.entries()) == 4


def test_the_superblock_is_written_after_so_many_entries() -> None:
    logged = Logged(**{"log-super-update-interval": 3})
    for number in range(4):
        logged.blk.pwrite(512 * number, b"x" * 512)
        assert bool(logged.log.data[:8].strip(b"\0")) == (number >= 2)
    assert len(logged.entries()) == 3
    logged.blk.unref()


# -- failures


def test_what_the_disk_refuses_is_not_in_the_log(logged: Logged) -> None:
    logged.disk.errors["pwritev"] = OSError(errno.ENOSPC, "full")
    with pytest.raises(OSError, match="full"):
        logged.blk.pwrite(0, b"a" * 512)
    logged.disk.errors.clear()
    logged.blk.pwrite(512, b"b" * 512)
    logged.blk.flush()
    assert logged.entries()[0] == (512, 512, 0)


def test_what_cannot_be_written_down_is_an_error_and_leaves_no_hole(logged: Logged) -> None:
    logged.log.errors["pwritev"] = OSError(errno.EIO, "gone")
    with pytest.raises(OSError, match="gone"):
        logged.blk.pwrite(0, b"a" * 512)
    logged.log.errors.clear()
    logged.blk.pwrite(512, b"b" * 512)
    logged.blk.flush()
    assert logged.entries() == [(512, 512, 0), (0, 0, FLUSH)]


# -- moving


def test_disk_and_log_move_together(logged: Logged, main: AioContext, iothread: IOThread) -> None:
    logged.blk.set_aio_context(iothread.ctx)
    logged.blk.pwrite(0, b"a" * 512)
    logged.blk.flush()
    logged.blk.set_aio_context(main)
    for disk in (logged.disk, logged.log):
        assert [entry[0] for entry in disk.asked("detach", "attach")] == ["detach", "attach"] * 2
    assert logged.entries() == [(0, 512, 0), (0, 0, FLUSH)]


# -- going on with a log, and logs that lie


def super_sector(
    nr_entries: int = 0, size: int = 512, magic: int = MAGIC, version: int = 1
) -> bytes:
    return struct.pack("<QQQI", magic, version, nr_entries, size).ljust(512, b"\0")


def test_a_log_can_be_gone_on_with(logged: Logged) -> None:
    logged.blk.pwrite(0, b"a" * 512)
    logged.blk.pdiscard(4096, 4096)
    logged.blk.flush()
    again = Logged(bytes(logged.log.data), **{"log-append": True})
    again.blk.pwrite(512, b"b" * 512)
    again.blk.flush()
    assert [flags for *_, flags in again.entries()] == [0, DISCARD, FLUSH, 0, FLUSH]
    again.blk.unref()


def test_an_empty_log_is_begun() -> None:
    logged = Logged(**{"log-append": True})
    logged.blk.pwrite(0, b"a" * 512)
    logged.blk.flush()
    assert len(logged.entries()) == 2
    logged.blk.unref()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"log-sector-size": 100}, "Invalid log sector size 100"),
        ({"log-sector-size": 0}, "Invalid log sector size 0"),
        ({"log-sector-size": 16}, "Invalid log sector size 16"),
        ({"log-sector-size": 1 << 24}, "Invalid log sector size 16777216"),
        ({"log-super-update-interval": 0}, "Invalid log superblock update interval 0"),
        (
            {"log-append": True, "log-sector-size": 512},
            "log-append and log-sector-size are mutually exclusive",
        ),
        ({"log-append": "maybe"}, "Parameter 'log-append' expects 'on' or 'off'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(BlockError) as error:
        Logged(**options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (b"x" * 512, "Invalid log superblock magic"),
        (b"x" * 5, "Invalid log superblock magic"),
        (super_sector(version=2), "Unsupported log version 2"),
        (super_sector(size=511), "Invalid log sector size 511"),
        (super_sector(1), "Failed to read log entry 0"),
        (super_sector(1 << 60), "Failed to read log entry 0"),
        (super_sector(2) + pack_entry(0, 0, FLUSH, 512), "Failed to read log entry 1"),
        (super_sector(1) + pack_entry(0, 1024, 0, 512) + bytes(512), "Failed to read log entry 0"),
        (super_sector(1) + pack_entry(0, 0, 0x10, 512), "Invalid flags 0x10 in log entry 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_log_that_lies_is_refused(log: bytes, message: str) -> None:
    with pytest.raises(BlockError) as error:
        Logged(log, **{"log-append": True})
    assert str(error.value) == message


def test_the_log_is_a_child_that_must_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(SIZE))
    file = {"driver": "file", "filename": os.fspath(path)}
    with pytest.raises(BlockError) as error:
        block.open(options={"driver": "blklogwrites", "file": file})
    assert str(error.value) == 'A block device must be specified for "log"'


def test_its_name_says_all_that_matters(tmp_path: Path) -> None:
    for name in ("a.raw", "a.log"):
        (tmp_path / name).write_bytes(bytes(512))
    children = {
        child: {"driver": "file", "filename": os.fspath(tmp_path / name)}
        for child, name in (("file", "a.raw"), ("log", "a.log"))
    }
    blk = open_backend(options={"driver": "blklogwrites", **children}, flags=f.BDRV_O_RDWR)
    assert blk.bs is not None
    assert blk.bs.filename.startswith("json:{")
    assert all(f'"{child}": {{"driver": "file"' in blk.bs.filename for child in children)
    blk.unref()


def test_a_superblock_reads_as_it_was_written() -> None:
    head = Superblock.unpack(Superblock(7, 4096).pack())
    assert (head.nr_entries, head.sector_size) == (7, 4096)
