# SPDX-License-Identifier: GPL-2.0-only
"""Requests in flight together: who runs beside whom, who waits, and that bytes stay whole."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import block
from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import BlockError
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.support.drivers import Outcome
from tests.support.qcow2_disk import Tape, open_on
from tests.support.qcow2_work import Work


@pytest.fixture
def tape(image: Path) -> Iterator[tuple[Tape, BlockBackend]]:
    """An image over a tape in which cluster 8 is written, so that its tables are in memory."""
    tape = Tape(image.read_bytes())
    with open_on(tape) as disk:
        disk.pwrite(8 * CLUSTER, b"o" * CLUSTER)
        disk.flush()
        tape.log.clear()
        yield tape, disk
        tape.parked = False


def write(disk: BlockBackend, offset: int, data: bytes) -> Outcome:
    outcome = Outcome()
    disk.aio_pwritev(offset, [memoryview(data)], outcome)
    return outcome


def test_writes_that_allocate_different_clusters_run_side_by_side(
    tape: tuple[Tape, BlockBackend],
) -> None:
    disk, held = tape[1], tape[0]
    held.parked = True
    outcomes = [write(disk, n * CLUSTER, b"x" * CLUSTER) for n in range(4)]
    assert len(held.asked("pwritev")) == 4
    held.release()
    disk.drain()
    assert [outcome.ret for outcome in outcomes] == [0] * 4
    assert disk.pread(0, 4 * CLUSTER) == b"x" * 4 * CLUSTER


def test_writes_to_the_same_new_cluster_queue(tape: tuple[Tape, BlockBackend]) -> None:
    disk, held = tape[1], tape[0]
    held.parked = True
    first = write(disk, 0, b"1" * 1024)
    second = write(disk, 1024, b"2" * 1024)
    third = write(disk, CLUSTER - 512, b"3" * 1024)
    assert len(held.asked("pwritev")) == 1
    held.release()
    disk.drain()
    assert (first.ret, second.ret, third.ret) == (0, 0, 0)
    assert disk.pread(0, 2048) == b"1" * 1024 + b"2" * 1024
    assert disk.pread(CLUSTER - 512, 1024) == b"3" * 1024
    assert [len(state_of(disk).allocations), len(state_of(disk).rewrites)] == [0, 0]


def test_reads_and_writes_in_place_do_not_wait_for_an_allocation(
    tape: tuple[Tape, BlockBackend],
) -> None:
    disk, held = tape[1], tape[0]
    held.parked = True
    write(disk, 0, b"x" * CLUSTER)
    write(disk, 8 * CLUSTER, b"y" * 512)
    disk.aio_preadv(8 * CLUSTER + 4096, [memoryview(bytearray(512))], Outcome())
    assert [entry[0] for entry in held.log] == ["pwritev", "pwritev", "preadv"]
    held.release()
    disk.drain()


def test_a_discard_waits_for_a_write_in_place(tape: tuple[Tape, BlockBackend]) -> None:
    """Else the cluster could be somebody else's when the data arrive there."""
    disk, held = tape[1], tape[0]
    held.parked = True
    write(disk, 8 * CLUSTER, b"y" * 512)
    gone, new = Outcome(), Outcome()
    disk.aio_pdiscard(8 * CLUSTER, CLUSTER, gone)
    disk.aio_pwritev(0, [memoryview(b"n" * CLUSTER)], new)
    assert gone.ret is None
    held.release()
    disk.drain()
    assert (gone.ret, new.ret) == (0, 0)
    assert disk.pread(0, CLUSTER) == b"n" * CLUSTER
    assert disk.pread(8 * CLUSTER, 512) == bytes(512)


def test_a_write_that_fails_leaves_what_was_there(tape: tuple[Tape, BlockBackend]) -> None:
    disk, held = tape[1], tape[0]
    held.errors["pwritev"] = BlockError(errno.ENOSPC, "full")
    with pytest.raises(BlockError, match="full"):
        disk.pwrite(0, b"x" * 512)
    held.errors.clear()
    assert disk.pread(0, 512) == bytes(512)
    free = state_of(disk).free_cluster
    disk.pwrite(0, b"x" * 512)
    assert state_of(disk).free_cluster == free + 1, "the cluster was given back"
    assert state_of(disk).allocations == []


def test_what_a_failed_write_left_in_the_file_does_not_come_to_light(image: Path) -> None:
    """A part of the data may have been written: the cluster is no fresh one any more."""

    class HalfWritten(Tape):
        """The next write fails, but leaves its bytes behind the end of the file."""

        failing = False

        async def note(self, name: str, *args: object) -> None:
            if name == "pwritev" and self.failing:
                self.failing = False
                self.data.extend(b"secret" * CLUSTER)
                raise BlockError(errno.EIO, "half")
            await super().note(name, *args)

    tape = HalfWritten(image.read_bytes())
    with open_on(tape) as disk:
        disk.pwrite(0, b"a" * CLUSTER)
        tape.failing = True
        with pytest.raises(BlockError, match="half"):
            disk.pwrite(CLUSTER, b"secret" * 100)
        disk.pwrite(CLUSTER + 8192, b"b" * 512)
        expected = bytes(8192) + b"b" * 512
        assert disk.pread(CLUSTER, CLUSTER) == expected.ljust(CLUSTER, b"\0")


def storm(disk: BlockBackend, seed: int, rounds: int, depth: int = 24) -> list[set[int]]:
    """Many requests in flight together; for each byte, what it may hold in the end."""
    work = Work(seed, 1 << 20, 4096)
    allowed: list[set[int]] = [{0} for _ in range(work.size)]
    for _ in range(rounds):
        outcomes, touched = [], {}
        for op in work.ops(depth):
            outcome = Outcome()
            start, end = op.offset, op.offset + op.nbytes
            if op.what == "write":
                data = memoryview(bytes([op.pattern]) * op.nbytes)
                disk.aio_pwritev(start, [data], outcome)
            elif op.what in ("zeroes", "unmap"):
                disk.aio_pwrite_zeroes(start, op.nbytes, outcome, f.REQ_MAY_UNMAP)
            elif op.what == "discard":
                disk.aio_pdiscard(start, op.nbytes, outcome)
            elif op.what == "flush":
                disk.aio_flush(outcome)
            else:
                disk.aio_preadv(start, [memoryview(bytearray(op.nbytes))], outcome)
            outcomes.append(outcome)
            value = op.pattern if op.what == "write" else 0
            if op.what in ("write", "zeroes", "unmap", "discard"):
                for at in range(start, end):
                    if op.what != "discard" and at not in touched:
                        allowed[at] = set()
                    touched[at] = True
                    allowed[at].add(value)
        disk.drain()
        assert {outcome.ret for outcome in outcomes} == {0}
    return allowed


@pytest.mark.parametrize("seed", range(3))
def test_a_storm_of_requests_leaves_what_one_of_them_wrote(tmp_path: Path, seed: int) -> None:
    path = os.fspath(tmp_path / "a.qcow2")
    block.create(path, "qcow2", 1 << 20, cluster_size=4096)
    small = {"l2-cache-size": 1024, "l2-cache-entry-size": 512, "discard": "unmap"}
    with block.open(path, format="qcow2", cache="unsafe", options=small if seed else {}) as disk:
        allowed = storm(disk, seed, 6)
        found = disk.pread(0, 1 << 20)
    assert all(byte in values for byte, values in zip(found, allowed, strict=True))
    from tests.interop.test_qcow2_with_qemu import is_clean

    is_clean(Path(path))


# -- moving


def test_the_tree_moves_between_loops_under_load(
    opener: Opener, iothread: IOThread, second_iothread: IOThread, main: AioContext, image: Path
) -> None:
    """Random work without pause, parked only while the tree moves; nothing lost, nothing torn."""
    disk = opener()
    source = random.Random(7)
    written: dict[int, int] = {}
    outcomes: list[Outcome] = []
    for number, home in enumerate([iothread.ctx, second_iothread.ctx, main] * 8):
        cluster = source.randrange(SIZE // CLUSTER)
        with disk.aio_context:
            for n in range(4):
                outcomes.append(Outcome())
                value = (number * 4 + n) % 255 + 1
                offset = (cluster + n * 17) % (SIZE // CLUSTER) * CLUSTER
                written[offset] = value
                if disk.aio_context is main:
                    data = memoryview(bytes([value]) * 8192)
                    disk.aio_pwritev(offset + 4096, [data], outcomes[-1])
                else:
                    disk.pwrite(offset + 4096, bytes([value]) * 8192)
                    outcomes[-1](0)
        disk.set_aio_context(home)
        assert disk.bs is not None
        assert disk.bs.aio_context is home
    disk.set_aio_context(main)
    disk.drain()
    assert {outcome.ret for outcome in outcomes} == {0}
    for offset, value in written.items():
        assert disk.pread(offset + 4096, 8192) == bytes([value]) * 8192
    assert [r for r in main.registrations() if r.owner is disk.bs] == []
