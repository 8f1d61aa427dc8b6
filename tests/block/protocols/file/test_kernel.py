# SPDX-License-Identifier: GPL-2.0-only
"""aio=native and aio=io_uring under a node: all shapes of requests, moves, errors, closing."""

from __future__ import annotations

import errno
import mmap
import os
import random
import sys
from pathlib import Path

import pytest

from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.aio.kernel_queue import BATCH
from block.aio.world import the_world
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.wait import poll_while
from block.protocols.file import kernel
from tests.block.protocols.file.conftest import SIZE, Opener
from tests.support import needs
from tests.support.plain_world import PlainWorld

pytestmark = needs.linux()

RDWR = f.BDRV_O_RDWR | f.BDRV_O_RESIZE
# name -> (aio, flags)
ENGINES = {
    "threads": ("threads", RDWR),
    "native": ("native", RDWR | f.BDRV_O_NOCACHE),
    "io_uring": ("io_uring", RDWR),
    "io_uring direct": ("io_uring", RDWR | f.BDRV_O_NOCACHE),
}
KERNEL_ENGINES = [name for name in ENGINES if name != "threads"]


@pytest.fixture(params=KERNEL_ENGINES)
def opened(request: pytest.FixtureRequest, opener: Opener) -> BlockBackend:
    """The image, open with a kernel engine."""
    return open_with(opener, request.param)


def open_with(opener: Opener, name: str) -> BlockBackend:
    aio, flags = ENGINES[name]
    needs.engine(aio)
    return opener(flags, aio=aio)


def engine(blk: BlockBackend) -> kernel.KernelEngine:
    assert blk.bs is not None
    made = blk.bs.opaque.engine
    assert isinstance(made, kernel.KernelEngine)
    return made


def pages(count: int, fill: bytes = b"\0") -> memoryview:
    """Memory that begins at a page, as O_DIRECT likes it."""
    view = memoryview(mmap.mmap(-1, count * 4096))
    view[:] = fill * (count * 4096)
    return view


def past_the_cache(blk: BlockBackend) -> None:
    """Makes all reads of this node go to the engine."""
    assert blk.bs is not None
    blk.bs.opaque.nowait = False


# -- requests


def test_what_is_written_is_read_back(opened: BlockBackend, image: Path) -> None:
    for offset, data in [(0, b"a" * 4096), (5, b"xyz"), (4095, b"12"), (SIZE - 1, b"z")]:
        opened.pwrite(offset, data)
        assert opened.pread(offset, len(data)) == data
    opened.flush()
    assert image.read_bytes()[4093:4098] == b"aa12\x01"


def test_aligned_requests_are_done_by_the_kernel_alone(
    opened: BlockBackend, main: AioContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object) -> None:
        raise AssertionError("in the thread pool")

    monkeypatch.setattr(kernel, "in_pool", never)
    past_the_cache(opened)
    into = pages(4)
    opened.pwrite(8192, pages(2, b"w"))
    opened.preadv_into(4096, [into[:4096], into[4096:]])
    opened.flush()
    assert bytes(into) == b"\1" * 4096 + b"w" * 8192 + b"\4" * 4096


def test_memory_is_handed_over_without_a_copy(
    opened: BlockBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    past_the_cache(opened)
    seen: list[list[memoryview]] = []
    queue = engine(opened).queue
    real = queue.submit
    monkeypatch.setattr(queue, "submit", lambda request: seen.append(request.qiov) or real(request))
    into = pages(1)
    opened.preadv_into(4096, [into])
    assert [[view.obj for view in qiov] for qiov in seen] == [[into.obj]]


def test_a_file_cut_behind_our_back_reads_as_zeroes(opened: BlockBackend, image: Path) -> None:
    past_the_cache(opened)
    os.truncate(image, SIZE - 8192 + 100)
    into = pages(3, b"x")
    opened.preadv_into(SIZE - 3 * 4096, [into])
    last = (SIZE // 4096 - 3) % 251
    assert bytes(into) == bytes([last]) * 4096 + bytes([last + 1]) * 100 + bytes(8192 - 100)


def test_memory_is_let_go_of_when_the_request_is_done(opened: BlockBackend) -> None:
    memory = mmap.mmap(-1, 8192)
    past_the_cache(opened)
    whole = memoryview(memory)
    views = [whole[:4096], whole[4096:]]
    held = [sys.getrefcount(view) for view in views]
    for _ in range(3):
        opened.preadv_into(0, views)
        opened.pwrite(0, whole[:4096])
    assert [sys.getrefcount(view) for view in views] == held
    for view in (*views, whole):
        view.release()
    memory.close()  # BufferError if somebody holds it


def test_misaligned_memory_is_copied(opened: BlockBackend) -> None:
    view = memoryview(mmap.mmap(-1, 16384))[3 : 3 + 8192]
    opened.preadv_into(4096, [view[:100], view[100:]])
    assert bytes(view) == b"\1" * 4096 + b"\2" * 4096
    view[:] = b"y" * 8192
    opened.pwrite(4096, view)
    assert opened.pread(4096, 8192) == b"y" * 8192


def test_memory_that_cannot_be_written_can_be_written_from(opened: BlockBackend) -> None:
    opened.pwrite(4096, b"c" * 4096)
    assert opened.pread(4096, 4096) == b"c" * 4096


def test_discard_zeroes_and_truncate_work_beside_it(opened: BlockBackend) -> None:
    opened.pdiscard(1 << 19, 65536)
    opened.pwrite_zeroes(0, 65536)
    assert opened.pread(0, 65536 + 4096) == bytes(65536) + b"\x10" * 4096
    opened.truncate(SIZE * 2)
    opened.pwrite(SIZE, b"n" * 4096)
    assert opened.pread(SIZE, 8192) == b"n" * 4096 + bytes(4096)


def test_an_error_is_the_requests_own(opened: BlockBackend, main: AioContext) -> None:
    past_the_cache(opened)
    assert opened.bs is not None
    state = opened.bs.opaque
    rets: dict[str, int] = {}
    good = state.fd
    opened.aio_preadv(0, [pages(1)], lambda ret: rets.update(first=ret))
    state.fd = os.open("/dev/full", os.O_WRONLY)
    opened.aio_preadv(0, [pages(1)], lambda ret: rets.update(bad=ret))
    opened.aio_flush(lambda ret: rets.update(flush=ret))
    os_fd, state.fd = state.fd, good
    opened.aio_preadv(0, [pages(1)], lambda ret: rets.update(last=ret))
    poll_while(main, lambda: len(rets) < 4)
    os.close(os_fd)
    assert rets["first"] == rets["last"] == 0
    assert rets["bad"] == -errno.EBADF


def test_the_errno_of_a_flush_that_failed_stays_for_cached_data(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    blk = open_with(opener, "io_uring")
    queue = engine(blk).queue
    real = queue.submit

    def fail(request: kernel.KernelRequest) -> kernel.KernelRequest:
        request.fd = 999
        return real(request)

    monkeypatch.setattr(queue, "submit", fail)
    blk.pwrite_zeroes(0, 4096)
    with pytest.raises(BlockError) as caught:
        blk.flush()
    assert caught.value.errno == errno.EBADF
    monkeypatch.undo()
    blk.pwrite_zeroes(0, 4096)
    with pytest.raises(BlockError):
        blk.flush()


def test_a_kernel_without_fdsync_gets_its_flushes_from_a_worker(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    blk = open_with(opener, "native")
    asked = []

    async def refused(request: kernel.KernelRequest) -> None:
        asked.append(request.kind)
        request.ret = -errno.EINVAL

    monkeypatch.setattr(engine(blk).queue, "submit", refused)
    for _ in range(2):
        blk.pwrite_zeroes(0, 4096)
        blk.flush()
    assert asked == [kernel.FLUSH]
    assert not engine(blk).has_flush


def test_a_cancelled_request_ends_before_cancel_returns(opened: BlockBackend) -> None:
    past_the_cache(opened)
    rets: list[int] = []
    opened.aio_preadv(0, [pages(1)], rets.append).cancel()
    assert rets == [0]


def test_no_callback_runs_before_the_call_returns(opened: BlockBackend, main: AioContext) -> None:
    rets: list[int] = []
    for n in range(BATCH * 2 + 1):
        opened.aio_pwritev(n * 4096, [pages(1)], rets.append)
        assert rets == []
    poll_while(main, lambda: len(rets) < BATCH * 2 + 1)


# -- opening


def test_native_wants_o_direct(opener: Opener) -> None:
    with pytest.raises(BlockError, match=r"aio=native .* requires cache\.direct=on"):
        opener(RDWR, aio="native")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("native", "Unable to use native AIO: failed to create linux AIO context: Function not"),
        ("io_uring", "Unable to use io_uring: failed to init linux io_uring ring: Function not"),
    ],
)
def test_a_system_without_it_says_so(
    opener: Opener, name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = PlainWorld()
    monkeypatch.setattr(the_world(), "new_linux_aio", plain.new_linux_aio, raising=False)
    monkeypatch.setattr(the_world(), "new_io_uring", plain.new_io_uring, raising=False)
    aio, flags = ENGINES[name]
    with pytest.raises(BlockError, match=message):
        opener(flags, aio=aio)


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def kernel_contexts() -> int:
    return Path("/proc/self/maps").read_text().count("[aio]")


@pytest.mark.parametrize("name", KERNEL_ENGINES)
def test_closing_frees_all_that_opening_took(opener: Opener, name: str) -> None:
    open_with(opener, name).close()
    before = descriptors(), kernel_contexts()
    for _ in range(3):
        blk = open_with(opener, name)
        assert len(descriptors()) > len(before[0])
        assert kernel_contexts() == before[1] + (name == "native")
        blk.pwrite(0, b"x" * 4096)
        blk.close()
        assert (descriptors(), kernel_contexts()) == before


# -- moves


def test_the_eventfd_moves_with_the_node(opened: BlockBackend, iothread: IOThread) -> None:
    bs = opened.bs
    assert bs is not None
    main = opened.aio_context
    assert sorted(r.kind for r in main.registrations(bs)) == ["bh", "notifier"]
    opened.set_aio_context(iothread.ctx)
    assert main.registrations(bs) == []
    with iothread.ctx:
        assert sorted(r.kind for r in iothread.ctx.registrations(bs)) == ["bh", "notifier"]
    opened.set_aio_context(main)
    with iothread.ctx:
        assert iothread.ctx.registrations(bs) == []


def test_a_move_waits_for_what_is_in_flight(opened: BlockBackend, iothread: IOThread) -> None:
    past_the_cache(opened)
    main = opened.aio_context
    rets: list[int] = []
    for n in range(100):
        opened.aio_preadv(n * 4096, [pages(1)], rets.append)
    opened.set_aio_context(iothread.ctx)
    assert rets == [0] * 100
    assert engine(opened).queue.idle
    opened.set_aio_context(main)


class Load:
    """Keeps requests under way, wherever the node is, and remembers what it wrote."""

    def __init__(self, blk: BlockBackend, seed: int) -> None:
        self.blk = blk
        self.random = random.Random(seed)
        self.busy: set[int] = set()
        self.left = 0
        self.content = [bytes([n % 251]) for n in range(SIZE // 4096)]
        self.failures: list[str] = []

    def start(self, count: int) -> None:
        """At home in the node's context."""
        self.left = count
        for _ in range(16):
            self.next()

    @property
    def running(self) -> bool:
        return bool(self.left or self.busy)

    def next(self) -> None:
        if not self.left:
            return
        self.left -= 1
        page = self.random.choice([n for n in range(len(self.content)) if n not in self.busy])
        self.busy.add(page)
        if self.random.random() < 0.1:
            self.blk.aio_flush(lambda ret: self.done(page, ret))
        elif self.random.random() < 0.5:
            letter = bytes([self.random.randrange(256)])
            self.content[page] = letter
            self.blk.aio_pwritev(page * 4096, [pages(1, letter)], lambda ret: self.done(page, ret))
        else:
            into = pages(1)
            self.blk.aio_preadv(page * 4096, [into], lambda ret: self.done(page, ret, into))

    def done(self, page: int, ret: int, into: memoryview | None = None) -> None:
        if ret or (into is not None and bytes(into) != self.content[page] * 4096):
            self.failures.append(f"page {page}: {ret}")
        self.busy.remove(page)
        self.next()


@pytest.mark.parametrize("name", ENGINES)
def test_random_moves_under_load_lose_nothing(
    opener: Opener, name: str, iothread: IOThread, second_iothread: IOThread, image: Path
) -> None:
    blk = open_with(opener, name)
    past_the_cache(blk)
    main = blk.aio_context
    places = [main, iothread.ctx, second_iothread.ctx]
    choice = random.Random(7)
    load = Load(blk, 11)
    load.start(1500)
    moves = 0
    while load.running:
        before = blk.aio_context
        blk.set_aio_context(choice.choice(places))
        moves += 1
        if before is not blk.aio_context:
            with before:
                assert before.registrations(blk.bs) == []
        for _ in range(choice.randrange(20)):
            main.poll(False)
    blk.set_aio_context(main)
    assert load.failures == []
    assert moves > 5
    blk.flush()
    assert image.read_bytes() == b"".join(letter * 4096 for letter in load.content)
