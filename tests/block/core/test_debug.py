# SPDX-License-Identifier: GPL-2.0-only
"""Debug events: who raises which, in what order with its requests, and what they cost others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from block.core import debug
from block.core.edge import BdrvChild
from block.core.replace import replace_node
from tests.support.blkdebug import FLAGS, Ear, heard, node, opened
from tests.support.drivers import Disk, FastRam, backend_on, make_node, ram_node

ROOT = Path(__file__).parents[3]


def test_there_are_the_48_events_of_qapi() -> None:
    assert len(debug.EVENTS) == len(set(debug.EVENTS)) == 48
    text = (ROOT / "block/core/debug.py").read_text()
    assert sorted(re.findall(r'^[A-Z0-9_]+ = "(\w+)"$', text, re.M)) == sorted(debug.EVENTS)


def log_of(disk: Disk) -> list[str]:
    return [entry[1] if entry[0] == "event" else entry[0].upper() for entry in disk.log]


def log_of_write(offset: int, nbytes: int, zeroes: bool = False) -> list[str]:
    """What a disk of blocks of 512 bytes hears and does."""
    disk = Disk(request_alignment=512)
    blk = backend_on(ram_node(disk, driver=Ear))
    if zeroes:
        blk.pwrite_zeroes(offset, nbytes)
    else:
        blk.pwrite(offset, b"x" * nbytes)
    log = log_of(disk)
    blk.unref()
    return log


WRITE = ["pwritev", "PWRITEV", "pwritev_done"]


def test_a_write_is_told_before_and_after() -> None:
    assert log_of_write(0, 512) == WRITE


def test_a_write_of_zeroes_has_an_event_of_its_own() -> None:
    assert log_of_write(0, 512, True) == ["pwritev_zero", "PWRITE_ZEROES", "pwritev_done"]


def test_a_failed_write_is_done_too() -> None:
    disk = Disk()
    disk.errors["pwritev"] = OSError(5, "on order")
    blk = backend_on(ram_node(disk, driver=Ear))
    with pytest.raises(OSError, match="on order"):
        blk.pwrite(0, b"x")
    assert log_of(disk) == ["pwritev", "PWRITEV", "pwritev_done"]
    blk.unref()


@pytest.mark.parametrize(
    ("offset", "nbytes", "reads"),
    [
        (100, 924, ["pwritev_rmw_head", "PREADV", "pwritev_rmw_after_head"]),
        (0, 600, ["pwritev_rmw_tail", "PREADV", "pwritev_rmw_after_tail"]),
        (100, 2000, ["pwritev_rmw_head", "PREADV", "pwritev_rmw_after_head",
                     "pwritev_rmw_tail", "PREADV", "pwritev_rmw_after_tail"]),
        (100, 600, ["pwritev_rmw_head", "pwritev_rmw_tail", "PREADV",
                    "pwritev_rmw_after_head", "pwritev_rmw_after_tail"]),
    ],
    ids=["head", "tail", "one after the other", "both in one read"],
)  # fmt: skip
def test_head_and_tail_are_read_first(offset: int, nbytes: int, reads: list[str]) -> None:
    assert log_of_write(offset, nbytes) == reads + WRITE


def test_raw_tells_its_file_what_the_guest_does() -> None:
    disk = Disk()
    with opened(disk, {"driver": "raw", "file": "ram0"}, Ear) as blk:
        blk.pwrite(0, b"x" * 512)
        blk.pread(0, 512)
        blk.flush()
        assert log_of(disk) == [
            "write_aio", "pwritev", "PWRITEV", "pwritev_done", "read_aio", "PREADV",
            "flush_to_os", "flush_to_disk", "FLUSH",
        ]  # fmt: skip
        disk.log.clear()
        blk.flush()
        assert log_of(disk) == ["flush_to_os"], "nothing was written since"
        disk.log.clear()
    assert log_of(disk)[0] == "flush_to_os", "and once more when it is closed"


class FastEar(FastRam, Ear):
    """One that would answer reads at once."""

    format_name = protocol_name = "fast-ear"


def try_read(child: BdrvChild | None) -> int | None:
    assert child is not None
    return child.try_preadv(0, 512, [memoryview(bytearray(512))])


def test_where_somebody_listens_there_is_no_short_way() -> None:
    disk = Disk()
    with opened(disk, {"driver": "raw", "file": "ram0"}, FastEar) as blk:
        assert try_read(node(blk).file) is None
        assert try_read(blk.root) is None
        assert blk.pread(0, 512) == bytes(512)
        assert log_of(disk) == ["read_aio", "PREADV"]


def test_where_nobody_listens_there_is_one() -> None:
    with opened(Disk(), {"driver": "raw", "file": "ram0"}, FastRam) as blk:
        assert try_read(blk.root) == 0


def test_a_listener_that_comes_later_closes_the_short_way_of_its_parents() -> None:
    with opened(Disk(), {"driver": "raw", "file": "ram0"}, FastRam) as blk:
        raw = node(blk)
        assert raw.file is not None
        ear = make_node(FastEar(), Disk(), "ear", FLAGS)
        replace_node(raw.file.bs, ear)
        assert try_read(blk.root) is None
        assert raw.bl.fast_read == 0
        ear.unref()


def test_a_node_that_is_closed_listens_no_more() -> None:
    bs = ram_node(Disk(), driver=Ear)
    assert bs.debugged
    bs.close()
    assert not bs.debugged
    bs.unref()


def test_events_are_heard_by_the_node_right_below_only() -> None:
    disk = Disk()
    with opened(disk, {"driver": "raw", "file": {"driver": "raw", "file": "ram0"}}, Ear) as blk:
        blk.pread(0, 512)
    assert heard(disk)[0] == "read_aio"
    assert heard(disk).count("read_aio") == 1
