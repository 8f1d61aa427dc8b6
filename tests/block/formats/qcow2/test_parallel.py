# SPDX-License-Identifier: GPL-2.0-only
"""Requests in flight together: who runs beside whom, who waits, and that bytes stay whole."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import block
from block.aio.context import AioContext
from block.aio.coroutine import Coroutine
from block.aio.iothread import IOThread
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.wait import poll_while
from block.formats.qcow2.layout import SIZE_AT
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.support.drivers import Outcome
from tests.support.qcow2_cuts import SIZE as TAPE_SIZE
from tests.support.qcow2_cuts import new_image
from tests.support.qcow2_disk import Tape, open_on
from tests.support.qcow2_work import Work
from tests.support.qemu_tools import is_clean


@pytest.fixture
def tape(image: Path) -> Iterator[tuple[Tape, BlockBackend]]:
    """An image over a tape in which cluster 8 is written, so that its tables are in memory."""
    tape = Tape(image.read_bytes())
    with open_on(tape) as disk:
        disk.pwrite(8 * CLUSTER, b"o" * CLUSTER)
        disk.flush()
        tape.log.clear()
        yield tape, disk
        tape.release()


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
    places = [offset for _, offset, *_ in held.asked("pwritev")]
    assert len(places) == len(set(places)) == 2, "two writes on their way to one cluster"
    held.release()
    disk.drain()
    assert (gone.ret, new.ret) == (0, 0)
    assert disk.pread(0, CLUSTER) == b"n" * CLUSTER
    assert disk.pread(8 * CLUSTER, 512) == bytes(512)


class HeldUp(Tape):
    """The write of the disk's new length waits to be released."""

    async def note(self, name: str, *args: object) -> None:
        self.parked |= name == "pwritev" and args[0] == SIZE_AT
        await super().note(name, *args)


def grow_beside(tmp_path: Path, submit: Callable[[BlockBackend, Outcome], object]) -> bytes:
    """A disk that ends within a cluster grows, and a request for its end comes meanwhile; what the
    old disk reads as then."""
    tape, outcome = HeldUp(new_image(tmp_path)), Outcome()
    with open_on(tape) as disk:
        disk.pwrite(0, b"o" * TAPE_SIZE)
        growing = disk.co_truncate(2 * TAPE_SIZE)
        Coroutine(growing, ctx=disk.aio_context).enter()  # type: ignore[arg-type]
        assert tape.parked
        submit(disk, outcome)
        disk.aio_context.poll(False)
        assert outcome.pending
        tape.release()
        disk.drain()
        assert (outcome.ret, disk.length) == (0, 2 * TAPE_SIZE)
        return disk.pread(0, TAPE_SIZE)


REST = TAPE_SIZE % CLUSTER


def test_a_discard_at_the_end_is_none_where_the_disk_has_grown(tmp_path: Path) -> None:
    """It would take a whole cluster, and with it what somebody has written behind the old end."""
    found = grow_beside(
        tmp_path, lambda disk, outcome: disk.aio_pdiscard(TAPE_SIZE - REST, REST, outcome)
    )
    assert found == b"o" * TAPE_SIZE


def test_zeroes_at_the_end_are_written_where_the_disk_has_grown(tmp_path: Path) -> None:
    found = grow_beside(
        tmp_path, lambda disk, outcome: disk.aio_pwrite_zeroes(TAPE_SIZE - REST, REST, outcome)
    )
    assert found == b"o" * (TAPE_SIZE - REST) + bytes(REST)


def test_a_write_that_fails_leaves_what_was_there(tape: tuple[Tape, BlockBackend]) -> None:
    disk, held = tape[1], tape[0]
    free = state_of(disk).free_cluster
    held.errors["pwritev"] = BlockError(errno.ENOSPC, "full")
    with pytest.raises(BlockError, match="full"):
        disk.pwrite(0, b"x" * 512)
    held.errors.clear()
    assert disk.pread(0, 512) == bytes(512)
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
    work = Work(seed, 1 << 18, 4096)
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
    block.create(path, "qcow2", 1 << 18, cluster_size=4096)
    small = {"l2-cache-size": 1024, "l2-cache-entry-size": 512, "discard": "unmap"}
    with block.open(path, format="qcow2", cache="unsafe", options=small if seed else {}) as disk:
        allowed = storm(disk, seed, 4)
        found = disk.pread(0, 1 << 18)
    assert all(byte in values for byte, values in zip(found, allowed, strict=True))
    is_clean(Path(path), "qcow2")


# -- moving


class Lane:
    """One user of the disk that never rests: it writes a cluster, reads it back, and goes on."""

    def __init__(self, disk: BlockBackend, number: int) -> None:
        self.disk = disk
        self.source = random.Random(number)
        self.clusters = range(number, SIZE // CLUSTER, LANES)
        self.done = 0
        self.failures: list[str] = []
        self.stopping = False
        self.buffer = bytearray(CLUSTER)
        self.value = 0
        self.offset = 0

    def write(self, ret: int = 0) -> None:
        """Writes a value that this lane has not used before; afterwards `read`."""
        if ret:
            self.failures.append(f"read: {ret}")
        if self.done and self.buffer.count(self.value) != len(self.buffer):
            self.failures.append(f"{self.offset:#x} does not hold {self.value}")
        if self.stopping:
            return
        self.done += 1
        self.value = self.done % 255 + 1
        self.offset = self.source.choice(self.clusters) * CLUSTER + self.source.choice((0, 512))
        self.buffer = bytearray(CLUSTER - 512)
        data = memoryview(bytes([self.value]) * len(self.buffer))
        self.disk.aio_pwritev(self.offset, [data], self.read)

    def read(self, ret: int) -> None:
        """Reads it back; afterwards `write`."""
        if ret:
            self.failures.append(f"write: {ret}")
        self.disk.aio_preadv(self.offset, [memoryview(self.buffer)], self.write)


LANES = 8


def test_the_tree_moves_between_loops_under_load(
    opener: Opener, iothread: IOThread, second_iothread: IOThread, main: AioContext
) -> None:
    """Nothing is lost, nothing comes twice, nothing stays behind in a loop that was left."""
    disk = opener()
    assert disk.bs is not None
    lanes = [Lane(disk, number) for number in range(LANES)]
    for lane in lanes:
        lane.write()
    for _ in range(50):
        for home in (iothread.ctx, second_iothread.ctx, main):
            before = sum(lane.done for lane in lanes)
            disk.set_aio_context(home)
            assert disk.bs.aio_context is home
            left = [r for r in main.registrations() if home is not main and r.owner is disk.bs]
            assert left == []
            # Only when all of them go on there, the tree moves again.
            poll_while(home, lambda before=before: sum(n.done for n in lanes) < before + LANES)
    for lane in lanes:
        lane.stopping = True
    disk.drain()
    assert [lane.failures for lane in lanes] == [[]] * LANES
    assert min(lane.done for lane in lanes) > 20
