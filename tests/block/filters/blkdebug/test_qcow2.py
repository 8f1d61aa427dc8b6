# SPDX-License-Identifier: GPL-2.0-only
"""qcow2 over blkdebug: each step of a write fails once, and no image gets worse than leaky.

The work comes by every event that a qcow2 image raises while it is written to: clusters of 512
bytes and refcounts of 64 bits, so that tables grow early; a backing file and an internal snapshot,
so that there is something to copy. A disk with snapshots cannot grow; that is another image's work.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import block
from block.aio.context import AioContext
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.open import open_backend
from block.core.wait import poll_while
from block.filters.blkdebug.rules import Machine
from tests.support.blkdebug import FLAGS, Ear, heard, node, opened, write
from tests.support.drivers import Disk, FastRam, Outcome, ram_node
from tests.support.qemu_tools import qemu, qemu_img

KIB = 1024
SIZE = 6 * KIB * KIB
BASE = bytes(range(1, 129)) * 8 * KIB  # a mebibyte without a zero
CLEAN, LEAKS = 0, 3
SMALL = {"l2-cache-size": 8 * KIB, "refcount-cache-size": 2 * KIB}

# Offset and length of the writes, byte that they are filled with, in order.
WRITES = (
    (0, 200, 1),  # copies the tail of a cluster that the snapshot keeps
    (8 * KIB + 100, 1000, 2),  # copies head and tail from the backing file
    (2 * KIB * KIB + 100, 50, 3),  # beyond it: head and tail are zero
    (8 * KIB, 3 * KIB, 4),  # over what has been written, and more
    (3 * KIB * KIB, 2200 * KIB, 5),  # the refcount table grows
)
WRITE_EVENTS = (
    "l1_update", "l2_load", "l2_update", "l2_alloc_cow_read", "l2_alloc_write", "write_aio",
    "cow_read", "cow_write", "read_backing_aio", "refblock_load", "refblock_update_part",
    "refblock_alloc", "refblock_alloc_write", "refblock_alloc_hookup", "reftable_grow",
    "refblock_alloc_write_blocks", "refblock_alloc_write_table", "refblock_alloc_switch_table",
    "cluster_alloc", "cluster_alloc_space", "cluster_free", "flush_to_os", "flush_to_disk",
    "pwritev", "pwritev_done",
)  # fmt: skip
GROW_EVENTS = ("l1_grow_alloc_table", "l1_grow_write_table", "l1_grow_activate_table")
# The second number is there for completeness: whoever looks at it (the caches) prefers ENOSPC.
NUMBERS = [
    pytest.param(errno.EIO, id="EIO"),
    pytest.param(errno.ENOSPC, id="ENOSPC", marks=pytest.mark.full),
]


def model() -> bytes:
    """What the disk holds after all writes."""
    disk = bytearray(BASE.ljust(SIZE, b"\0"))
    disk[:KIB] = b"\xee" * KIB
    for offset, nbytes, byte in WRITES:
        disk[offset : offset + nbytes] = bytes([byte]) * nbytes
    return bytes(disk)


def is_leaky_at_most(image: Path) -> None:
    done = qemu("qemu-img", "check", "-f", "qcow2", image)
    assert done.returncode in (CLEAN, LEAKS), done.stdout + done.stderr


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An overlay with a snapshot; who wants to write to it copies it."""
    folder = tmp_path_factory.mktemp("template")
    base, image = folder / "base.raw", folder / "a.qcow2"
    base.write_bytes(BASE)
    block.create(
        os.fspath(image), "qcow2", SIZE, cluster_size=512, refcount_bits=64,
        backing_file=os.fspath(base), backing_fmt="raw",
    )  # fmt: skip
    with block.open(os.fspath(image), format="qcow2") as disk:
        disk.pwrite(0, b"\xee" * KIB)
    qemu_img("snapshot", "-c", "old", image)
    return image


@pytest.fixture
def image(template: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    copy = tmp_path / "a.qcow2"
    shutil.copy(template, copy)
    return copy


@contextmanager
def debugged(image: Path, *rules: dict[str, object]) -> Iterator[BlockBackend]:
    """An image opened through blkdebug with these errors."""
    file = {"driver": "file", "filename": os.fspath(image)}
    below = {"driver": "blkdebug", "image": file, "inject-error": list(rules)}
    blk = open_backend(options={"driver": "qcow2", "file": below, **SMALL}, flags=FLAGS)
    try:
        yield blk
    finally:
        blk.unref()


def machine(blk: BlockBackend) -> Machine:
    """The rules of the blkdebug node below a format."""
    child = node(blk).file
    assert child is not None
    found: Machine = child.bs.opaque.machine
    return found


def steps(blk: BlockBackend) -> list[Callable[[], object]]:
    """All the work, one step after the other."""
    writes = [(offset, bytes([byte]) * nbytes) for offset, nbytes, byte in WRITES]
    flush: Callable[[], object] = blk.flush
    return [flush, *(lambda w=w: blk.pwrite(*w) for w in writes), flush]


def errno_of(step: Callable[[], object]) -> int:
    try:
        step()
    except BlockError as error:
        return error.errno or 0
    return 0


def test_the_work_comes_by_all_events(template: Path) -> None:
    """Else a test below could pass by injecting nothing."""
    disk = Disk(0)
    disk.data[:] = template.read_bytes()
    with opened(disk, {"driver": "qcow2", "file": "ram0", **SMALL}, Ear) as blk:
        for step in steps(blk):
            step()
    assert set(WRITE_EVENTS) <= set(heard(disk))


def test_a_read_from_the_backing_file_is_told_to_the_file(tmp_path: Path) -> None:
    """The backing file could answer at once, and nobody listens there: the short way is closed all
    the same."""
    image = tmp_path / "b.qcow2"
    block.create(os.fspath(image), "qcow2", SIZE)
    disk = Disk(0)
    disk.data[:] = image.read_bytes()
    backing = ram_node(Disk(SIZE), "backing0", FastRam)
    with opened(disk, {"driver": "qcow2", "file": "ram0", "backing": "backing0"}, Ear) as blk:
        blk.pwrite(0, b"x" * 512)  # there is an L2 table now, in memory
        disk.log.clear()
        outcome = Outcome()
        blk.aio_preadv(1 << 20, [memoryview(bytearray(512))], outcome)
        blk.drain()
        assert outcome.ret == 0
        assert heard(disk) == ["read_backing_aio"]
    backing.unref()


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("event", WRITE_EVENTS)
def test_after_one_failure_the_same_step_works_and_nothing_is_lost(
    image: Path, event: str, number: int
) -> None:
    with debugged(image, {"event": event, "errno": number, "once": True}) as blk:
        for step in steps(blk):
            failed = errno_of(step)
            assert failed in (0, number)
            assert not failed or errno_of(step) == 0, "the second time it works"
        assert machine(blk).rules[event] == [], "the error was injected"
    is_leaky_at_most(image)
    with block.open(os.fspath(image), format="qcow2", read_only=True) as disk:
        assert disk.pread(0, SIZE) == model()


@pytest.mark.full
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
@pytest.mark.parametrize("event", WRITE_EVENTS)
def test_a_disk_that_fails_for_ever_leaves_an_image_that_can_be_read(
    image: Path, event: str, number: int
) -> None:
    with debugged(image, {"event": event, "errno": number}) as blk:
        failed = {errno_of(step) for step in steps(blk)}
        assert failed <= {0, number}
        assert number in failed
    is_leaky_at_most(image)
    with block.open(os.fspath(image), format="qcow2", read_only=True) as disk:
        assert disk.pread(KIB, 4 * KIB) == model()[KIB : 5 * KIB], "nobody wrote there"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
@pytest.mark.parametrize("event", GROW_EVENTS)
def test_a_disk_that_could_not_grow_can_the_second_time(
    tmp_path: Path, event: str, number: int
) -> None:
    image = tmp_path / "b.qcow2"
    block.create(os.fspath(image), "qcow2", SIZE, cluster_size=512)
    with debugged(image, {"event": event, "errno": number, "once": True}) as blk:
        blk.pwrite(0, b"x" * KIB)
        assert errno_of(lambda: blk.truncate(2 * SIZE)) == number
        assert node(blk).getlength() == SIZE
        blk.truncate(2 * SIZE)
        blk.pwrite(2 * SIZE - KIB, b"y" * KIB)
    is_leaky_at_most(image)
    with block.open(os.fspath(image), format="qcow2", read_only=True) as disk:
        assert disk.pread(0, KIB) == b"x" * KIB
        assert disk.pread(2 * SIZE - KIB, KIB) == b"y" * KIB


# -- order


def test_two_writes_to_one_new_cluster_are_made_to_meet(image: Path, main: AioContext) -> None:
    """The second waits for the first, wherever that stands, and finds the cluster there."""
    with debugged(image) as blk:
        bs = node(blk)
        bs.debug_breakpoint("write_aio", "A")
        first = write(blk, 4096 + 256, b"1" * 128)
        bs.debug_wait_break("A")
        bs.debug_breakpoint("write_aio", "B")
        second = write(blk, 4096, b"2" * 256)
        elsewhere = write(blk, 16 * KIB, b"3" * 512)
        bs.debug_wait_break("B")
        assert first.pending
        bs.debug_resume("B")
        poll_while(main, lambda: elsewhere.pending)
        assert second.pending, "it waits for the cluster that the first one allocates"
        bs.debug_resume("A")
        poll_while(main, lambda: first.pending or second.pending)
        assert (first.ret, second.ret, elsewhere.ret) == (0, 0, 0)
        assert blk.pread(4096, 512) == b"2" * 256 + b"1" * 128 + BASE[4096 + 384 : 4096 + 512]
    is_leaky_at_most(image)


def test_a_write_that_fails_hands_its_cluster_to_the_next(image: Path, main: AioContext) -> None:
    """The first is stopped, the second waits for it; then the first one fails."""
    error = {"event": "cow_write", "errno": errno.ENOSPC, "once": True}
    with debugged(image, error) as blk:
        bs = node(blk)
        bs.debug_breakpoint("cow_write", "A")
        first = write(blk, 4096 + 256, b"1" * 128)
        bs.debug_wait_break("A")
        second = write(blk, 4096, b"2" * 256)
        bs.debug_resume("A")
        poll_while(main, lambda: first.pending or second.pending)
        assert (first.ret, second.ret) == (-errno.ENOSPC, 0)
        assert blk.pread(4096, 512) == b"2" * 256 + BASE[4096 + 256 : 4096 + 512]
    is_leaky_at_most(image)
