# SPDX-License-Identifier: GPL-2.0-only
"""preallocate: the file grows in large steps, and keeps nothing of them in the end."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import block
from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.core import flags as f
from block.core import reopen
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.wait import poll_while
from tests.support.drivers import Disk, Outcome, ZeroRam, backend_on, filter_node, ram_node

KIB, MIB = 1 << 10, 1 << 20
READS = f.BLK_PERM_CONSISTENT_READ
WRITES = READS | f.BLK_PERM_WRITE | f.BLK_PERM_RESIZE
STEP = 64 * KIB


class Growing:
    """A backend that may write beyond the end, over preallocate, over a short disk in memory."""

    def __init__(self, perm: int = WRITES) -> None:
        self.disk = Disk(KIB)
        below = ram_node(self.disk, driver=ZeroRam)
        below.supported_zero_flags = f.REQ_NO_FALLBACK
        node = filter_node(below, "preallocate", prealloc_size=STEP, prealloc_align=4 * KIB)
        self.blk: BlockBackend = backend_on(node, perm)
        self.blk.allow_write_beyond_eof = True

    @property
    def lengths(self) -> tuple[int, int]:
        """What the guest sees, and how long the file is."""
        return self.blk.length, len(self.disk.data)

    @property
    def steps(self) -> list[tuple[int, int]]:
        """The requests that made room: offset, bytes."""
        asked = self.disk.asked("pwrite_zeroes")
        return [(entry[1], entry[2]) for entry in asked if entry[2] > 8 * KIB]


@pytest.fixture
def growing() -> Iterator[Growing]:
    made = Growing()
    yield made
    if made.blk.refcnt:
        made.blk.unref()


# -- room


def test_a_write_beyond_the_end_makes_room_for_many_more(growing: Growing) -> None:
    growing.blk.pwrite(KIB, b"x" * KIB)
    assert growing.lengths == (2 * KIB, 68 * KIB)
    for n in range(2, 66):
        growing.blk.pwrite(n * KIB, b"x" * KIB)
    assert growing.steps == [(KIB, 67 * KIB)]
    assert growing.lengths == (66 * KIB, 68 * KIB)
    growing.blk.pwrite(66 * KIB, b"x" * 3 * KIB)
    assert growing.steps[1:] == [(68 * KIB, 68 * KIB)]


def test_what_is_beyond_the_end_is_not_seen(growing: Growing) -> None:
    growing.blk.pwrite(KIB, b"x" * KIB)
    growing.disk.data[2 * KIB : 3 * KIB] = b"?" * KIB
    assert growing.blk.root is not None
    assert growing.blk.root.pread(2 * KIB - 2, 6) == b"xx\0\0\0\0"
    growing.blk.allow_write_beyond_eof = False
    with pytest.raises(BlockError, match="beyond the end"):
        growing.blk.pread(0, 4 * KIB)


def test_writes_inside_make_no_room(growing: Growing) -> None:
    growing.blk.pwrite(0, b"x" * KIB)
    growing.blk.pwrite_zeroes(0, 512)
    assert growing.lengths == (KIB, KIB)


def test_zeroes_beyond_the_end_are_part_of_the_room(growing: Growing) -> None:
    growing.blk.pwrite_zeroes(KIB, 2 * KIB)
    growing.blk.pwrite_zeroes(3 * KIB, 2 * KIB)
    assert [entry[:3] for entry in growing.disk.asked("pwrite_zeroes")] == [
        ("pwrite_zeroes", KIB, 67 * KIB)
    ]
    assert growing.blk.length == 5 * KIB


ZEROES, DATA = BlockBackend.pwrite_zeroes, lambda blk, at, n: blk.pwrite(at, b"x" * n)


@pytest.mark.parametrize(
    "before",
    [
        [(DATA, 1, 2)],
        [(ZEROES, 1, 1), (DATA, 1, 3)],
        [(ZEROES, 1, 4), (DATA, 2, 1)],
        [(ZEROES, 1, 4), (ZEROES, 3, 4), (DATA, 5, 1)],
    ],
)
def test_zeroes_over_data_are_written_although_they_end_in_the_room(
    growing: Growing, before: list[tuple[Callable[[BlockBackend, int, int], None], int, int]]
) -> None:
    for write, offset, nbytes in before:
        write(growing.blk, offset * KIB, nbytes * KIB)
    growing.blk.pwrite_zeroes(KIB, 9 * KIB)
    assert growing.blk.pread(KIB, 9 * KIB) == bytes(9 * KIB)


def test_a_write_that_fails_makes_the_disk_no_longer(growing: Growing) -> None:
    growing.disk.errors["pwritev"] = BlockError(errno.EIO, "bad sector")
    with pytest.raises(BlockError, match="bad sector"):
        growing.blk.pwrite(KIB, b"x" * KIB)
    assert growing.blk.length == KIB


def test_where_there_is_no_room_to_be_had_the_write_is_done_all_the_same(growing: Growing) -> None:
    growing.disk.errors["pwrite_zeroes"] = BlockError(errno.ENOSPC, "no room")
    growing.blk.pwrite(KIB, b"x" * KIB)
    assert growing.lengths == (2 * KIB, 2 * KIB)
    assert growing.blk.pread(KIB, 3) == b"xxx"


def test_two_writes_at_the_end_do_not_wait_for_each_others_room(
    growing: Growing, main: AioContext
) -> None:
    growing.disk.parked = True
    writes = [Outcome(), Outcome()]
    for n, outcome in enumerate(writes):
        growing.blk.aio_pwritev((n + 1) * KIB, [memoryview(bytes([n + 1]) * KIB)], outcome)
    growing.disk.release()
    poll_while(main, lambda: any(outcome.pending for outcome in writes))
    assert ([outcome.ret for outcome in writes], len(growing.steps)) == ([0, 0], 1)
    assert growing.blk.pread(KIB, 2 * KIB) == b"\1" * KIB + b"\2" * KIB


# -- the end


END = {
    "close": lambda blk: blk.unref(),
    "no more writers": lambda blk: blk.set_perm(READS, f.BLK_PERM_ALL),
    "no more growth": lambda blk: blk.set_perm(WRITES & ~f.BLK_PERM_RESIZE, f.BLK_PERM_ALL),
}


@pytest.mark.parametrize("end", END.values(), ids=END.keys())
def test_in_the_end_the_file_is_as_long_as_its_data(
    growing: Growing, end: Callable[[BlockBackend], None]
) -> None:
    growing.blk.pwrite(KIB, b"x" * 700)
    assert len(growing.disk.data) > KIB + 700
    end(growing.blk)
    assert len(growing.disk.data) == KIB + 700


def test_the_steps_may_change_while_it_works(growing: Growing) -> None:
    growing.blk.pwrite(KIB, b"x")
    assert growing.blk.bs is not None
    with pytest.raises(BlockError, match=r"prealloc-align parameter .* not aligned to 512"):
        reopen.reopen(growing.blk.bs, {"prealloc-align": 7})
    reopen.reopen(growing.blk.bs, {"prealloc-size": 2 * STEP, "prealloc-align": 16 * KIB})
    before = len(growing.disk.data)
    growing.blk.pwrite(before, b"x")
    assert len(growing.disk.data) == -(-(before + 1 + 2 * STEP) // (16 * KIB)) * 16 * KIB


def test_without_permission_to_grow_it_does_nothing_and_others_may(growing: Growing) -> None:
    growing.blk.set_perm(READS, f.BLK_PERM_ALL)
    assert growing.blk.bs is not None
    below = growing.blk.bs.children[0]
    assert below.shared_perm & f.BLK_PERM_RESIZE
    other = BlockBackend(WRITES, f.BLK_PERM_ALL)
    other.insert_bs(below.bs)
    other.truncate(8 * KIB)
    assert growing.blk.length == 8 * KIB
    other.unref()
    growing.blk.set_perm(WRITES, f.BLK_PERM_ALL)
    growing.blk.pwrite(8 * KIB, b"x")
    assert growing.steps == [(8 * KIB, 68 * KIB)]


def test_while_it_works_nobody_else_may_write(growing: Growing) -> None:
    assert growing.blk.bs is not None
    other = BlockBackend(WRITES, f.BLK_PERM_ALL)
    with pytest.raises(BlockError, match="does not allow 'write, resize'"):
        other.insert_bs(growing.blk.bs.children[0].bs)
    other.unref()


def test_room_that_cannot_be_given_back_keeps_the_permissions(growing: Growing) -> None:
    growing.blk.pwrite(KIB, b"x" * KIB)
    growing.disk.errors["truncate"] = BlockError(errno.EIO, "stuck")
    growing.blk.set_perm(READS, f.BLK_PERM_ALL)
    assert growing.blk.bs is not None
    assert growing.blk.bs.children[0].perm & f.BLK_PERM_RESIZE
    del growing.disk.errors["truncate"]
    growing.blk.unref()
    assert len(growing.disk.data) == 2 * KIB


def test_a_flush_is_a_flush(growing: Growing) -> None:
    growing.blk.pwrite(KIB, b"x")
    growing.blk.flush()
    assert growing.disk.flushes == 1


# -- truncate


@pytest.mark.parametrize(
    ("length", "prealloc", "asked", "end"),
    [
        (4 * KIB, "off", [(2 * KIB, "off"), (4 * KIB, "off")], 4 * KIB),
        (4 * KIB, "full", [(2 * KIB, "off"), (4 * KIB, "full")], 4 * KIB),
        (4 * KIB, "falloc", [], 68 * KIB),
        (80 * KIB, "falloc", [(80 * KIB, "falloc")], 80 * KIB),
        (KIB, "off", [(KIB, "off")], KIB),
    ],
)
def test_growing_and_shrinking_by_hand(
    growing: Growing, length: int, prealloc: str, asked: list[tuple[int, str]], end: int
) -> None:
    growing.blk.pwrite(KIB, b"x" * KIB)
    growing.blk.truncate(length, prealloc=prealloc)
    assert [entry[1:] for entry in growing.disk.asked("truncate")] == asked
    assert growing.lengths == (length, end)


def test_a_truncate_that_cannot_give_room_back_says_so(growing: Growing) -> None:
    growing.blk.pwrite(KIB, b"x" * KIB)
    growing.disk.errors["truncate"] = BlockError(errno.EIO, "stuck")
    with pytest.raises(BlockError) as error:
        growing.blk.truncate(4 * KIB)
    assert str(error.value) == (
        "preallocate-filter: failed to drop write-zero preallocation: stuck"
    )
    del growing.disk.errors["truncate"]


# -- real images


def preallocated(path: Path, **options: object) -> dict[str, object]:
    below = {"driver": "file", "filename": str(path)}
    return {"driver": "preallocate", "prealloc-size": MIB, "file": below, **options}


def test_below_qcow2_the_file_grows_in_steps_and_ends_with_its_data(tmp_path: Path) -> None:
    image = tmp_path / "a.qcow2"
    block.create(str(image), "qcow2", 16 * MIB)
    with block.open(options={"driver": "qcow2", "file": preallocated(image)}) as disk:
        disk.pwrite(0, b"x" * 65536)
        first = image.stat().st_size
        disk.pwrite(65536, b"y" * 65536)
        assert (first % MIB, image.stat().st_size) == (0, first)
    assert image.stat().st_size < first
    with block.open(str(image), format="qcow2") as disk:
        assert disk.pread(65535, 2) == b"xy"


def test_a_tree_that_becomes_read_only_gives_its_room_back(tmp_path: Path) -> None:
    image = tmp_path / "a.qcow2"
    block.create(str(image), "qcow2", 16 * MIB)
    with block.open(options={"driver": "qcow2", "file": preallocated(image)}) as disk:
        disk.pwrite(0, b"x" * 65536)
        long = image.stat().st_size
        disk.set_perm(READS, f.BLK_PERM_ALL)
        assert disk.bs is not None
        reopen.set_read_only(disk.bs, True)
        assert image.stat().st_size < long
        assert disk.pread(0, 1) == b"x"
        reopen.set_read_only(disk.bs, False)
        disk.set_perm(WRITES, f.BLK_PERM_ALL)
        disk.pwrite(MIB, b"x" * 65536)
        assert image.stat().st_size % MIB == 0


def test_it_moves_with_its_tree_and_keeps_its_end(
    growing: Growing, iothread: IOThread, main: AioContext
) -> None:
    for n, ctx in enumerate((iothread.ctx, main, iothread.ctx, main)):
        growing.blk.set_aio_context(ctx)
        growing.blk.pwrite((n + 1) * KIB, b"x" * KIB)
    assert (growing.lengths, len(growing.steps)) == ((5 * KIB, 68 * KIB), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"prealloc-align": 1000},
            "prealloc-align parameter of preallocate filter is not aligned to 512",
        ),
        (
            {"prealloc-align": 512, "file.driver": "blkdebug", "file.align": 4096,
             "file.image.driver": "null-co"},
            "prealloc-align parameter of preallocate filter is not aligned to underlying node "
            "request alignment (4096)",
        ),
        ({"prealloc-size": "much"}, "Parameter 'prealloc-size' expects a non-negative number"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(BlockError) as error:
        block.open(options={"driver": "preallocate", "file.driver": "null-co", **options})
    assert str(error.value).startswith(message)
