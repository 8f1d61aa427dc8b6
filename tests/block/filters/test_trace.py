# SPDX-License-Identifier: GPL-2.0-only
"""trace: what it prints of requests, and that a disk goes on without it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import block
from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import BlockError
from tests.support.drivers import Disk, Outcome, ZeroRam, backend_on, filter_node, ram_node
from tests.support.virtual_tree import reads, wait_for
from tests.support.virtual_world import VirtualWorld

MS = 1_000_000


class Traced:
    """A disk below a delay of 1 ms below trace, and the lines of the log."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.disk = Disk()
        bottom = ram_node(self.disk, driver=ZeroRam)
        bottom.supported_zero_flags = f.REQ_MAY_UNMAP
        slow = filter_node(bottom, "delay", latency_ns=MS, discard="unmap")
        node = filter_node(slow, "trace", log=str(log), discard="unmap", node_name="top")
        self.blk: BlockBackend = backend_on(node)

    def lines(self) -> list[list[str]]:
        """The words of each line, without the time and the heading."""
        return [line.split()[1:] for line in self.log.read_text().splitlines()[1:]]


@pytest.fixture
def traced(world: VirtualWorld, tmp_path: Path) -> Iterator[Traced]:
    made = Traced(tmp_path / "log")
    yield made
    made.blk.unref()


WHERE = ["top", "main", "main"]


@pytest.mark.parametrize(
    ("request_of", "words", "flags", "took"),
    [
        (lambda blk: blk.pread(512, 4096), ["read", "512", "4096"], [], "1.000"),
        (lambda blk: blk.pwrite(7, b"ab", f.REQ_FUA), ["write", "7", "2"], [], "1.000"),
        (
            lambda blk: blk.pwrite_zeroes(0, 512, f.REQ_MAY_UNMAP),
            ["zero", "0", "512"], ["may-unmap"], "1.000",
        ),
        (lambda blk: blk.pdiscard(0, 512), ["discard", "0", "512"], [], "1.000"),
        (lambda blk: blk.truncate(65536), ["truncate", "65536"], [], "0.000"),
    ],
)  # fmt: skip
def test_a_request_has_a_line_at_its_begin_and_one_at_its_end(
    traced: Traced, request_of: Callable[[BlockBackend], object], words: list[str],
    flags: list[str], took: str,
) -> None:  # fmt: skip
    request_of(traced.blk)
    begin, end = traced.lines()[:2]
    assert begin == [*WHERE, "1", ">", *words, *flags]
    assert end == [*WHERE, "1", "<", *words, took, "ms", "ok"]


def test_flushes_are_printed_and_include_that_of_the_child(traced: Traced) -> None:
    traced.blk.pwrite(0, b"x")
    traced.blk.flush()
    assert traced.lines()[-1] == [*WHERE, "2", "<", "flush", "1.000", "ms", "ok"]
    assert traced.disk.flushes == 1


def test_requests_in_flight_together_can_be_told_apart(traced: Traced) -> None:
    wait_for(traced.blk, reads(traced.blk, 3))
    assert [line[3:5] for line in traced.lines()] == [
        ["1", ">"], ["2", ">"], ["3", ">"], ["1", "<"], ["2", "<"], ["3", "<"],
    ]  # fmt: skip


def test_an_error_is_printed_by_its_name_and_goes_on_to_the_guest(traced: Traced) -> None:
    traced.disk.errors["preadv"] = BlockError(errno.ENOSPC, "no more")
    with pytest.raises(BlockError, match="no more"):
        traced.blk.pread(0, 512)
    assert traced.lines()[-1][-1] == "ENOSPC"


def test_lines_are_aligned_under_their_heading(traced: Traced) -> None:
    traced.blk.pread(0, 4096)
    head, begin, end = traced.log.read_text().splitlines()[:3]
    assert (head.index("ms") + 2, head.index("bytes") + 5) == (begin.index("  top"), len(begin))
    for name in ("node", "loop", "thread"):
        assert begin[head.index(name) - 1 :].startswith(" top" if name == "node" else " main")
    assert end.startswith(begin[: begin.index(">")].replace(begin[:10], end[:10]) + "<")


def test_a_move_is_printed_and_requests_name_their_loop_and_thread(
    iothread: IOThread, main: AioContext, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    blk = backend_on(filter_node(ram_node(Disk()), "trace", log=str(log), node_name="top"))
    blk.set_aio_context(iothread.ctx)
    blk.pread(0, 1)  # the main thread runs the other loop while it waits
    outcome = Outcome()
    iothread.ctx.bh_schedule_oneshot(
        lambda: blk.aio_preadv(0, [memoryview(bytearray(1))], outcome) and None
    )
    while outcome.pending:
        main.poll(False)
    blk.set_aio_context(main)
    words = [line.split() for line in log.read_text().splitlines()[1:]]
    assert [line[2:4] for line in words] == [
        ["iothread0", "main"],
        *[["iothread0", "main"]] * 2,
        *[["iothread0", "iothread0"]] * 2,
        ["main", "main"],
    ]
    assert (words[0][4:], words[-1][4:]) == (["moved", "to", "iothread0"], ["moved", "to", "main"])
    blk.unref()


def test_without_a_log_the_lines_go_to_standard_error(
    world: VirtualWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    with block.open(options={"driver": "trace", "file.driver": "null-co"}) as disk:
        disk.pread(0, 512)
    lines = capsys.readouterr().err.splitlines()
    assert (lines[0].split()[0], lines[1].split()[5:]) == ("ms", [">", "read", "0", "512"])


def test_a_log_is_appended_to(world: VirtualWorld, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    options = {"driver": "trace", "log": str(log), "file.driver": "null-co"}
    with block.open(options=options) as disk:
        disk.pread(0, 1)
    lines = log.read_text().splitlines()
    assert (lines[0], "read" in lines[2]) == ("before", True)


def test_nodes_with_one_log_share_its_heading_and_its_clock(
    traced: Traced, world: VirtualWorld
) -> None:
    world.advance(5 * MS)
    other = {"driver": "trace", "node-name": "other", "log": str(traced.log)}
    with block.open(options={**other, "file.driver": "null-co"}) as disk:
        disk.pread(0, 1)
    traced.blk.pread(0, 1)
    lines = [line.split()[:2] for line in traced.log.read_text().splitlines()]
    assert lines[:3] == [["ms", "node"], ["5.000", "other"], ["5.000", "other"]]
    assert lines[-1] == ["6.000", "top"]
    assert traced.log.read_text().count("bytes") == 1


def test_a_log_that_fails_is_given_up_and_the_disk_goes_on(
    world: VirtualWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"driver": "trace", "log": "/dev/full", "file.driver": "null-co"}
    with block.open(options=options) as disk:
        disk.pread(0, 512)
    assert capsys.readouterr().err.splitlines() == [
        "warning: trace: no more lines: [Errno 28] No space left on device"
    ]


def test_a_log_that_cannot_be_opened_is_refused_by_its_name(world: VirtualWorld) -> None:
    with pytest.raises(BlockError) as error:
        block.open(options={"driver": "trace", "log": "/nowhere/log", "file.driver": "null-co"})
    assert str(error.value) == (
        "trace: could not open log '/nowhere/log': No such file or directory"
    )
