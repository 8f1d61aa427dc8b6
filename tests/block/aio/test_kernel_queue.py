# SPDX-License-Identifier: GPL-2.0-only
"""The queues of Linux AIO and io_uring: batches, slots, and a kernel that has no room."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from block.aio import liburing_rings
from block.aio.context import AioContext
from block.aio.coroutine import Coroutine, current
from block.aio.io_uring import IoUring, LuringState
from block.aio.kernel_queue import BATCH, FLUSH, LARGE, READ, WRITE, KernelQueue, KernelRequest
from block.aio.linux_aio import LinuxAio, LinuxAioState
from block.aio.world import World
from tests.support import needs
from tests.support.descriptors import open_fds
from tests.support.plain_world import PlainWorld

pytestmark = needs.linux()

PAGE = 4096
PAGES = 64
QUEUES = {"native": LinuxAioState, "io_uring": LuringState}


class StubbornAio(LinuxAio):
    """A kernel that does first what `answers` says: -errno, or how many iocbs it takes at most."""

    def __init__(self, depth: int, eventfd: int) -> None:
        super().__init__(depth, eventfd)
        self.answers: list[int] = []
        self.calls: list[int] = []

    def submit(self, position: int, count: int) -> int:
        self.calls.append(count)
        answer = self.answers.pop(0) if self.answers else count
        return answer if answer <= 0 else super().submit(position, min(answer, count))


class StubbornUring(IoUring):
    """The same for io_uring; it takes all or nothing."""

    def __init__(self, entries: int, eventfd: int) -> None:
        super().__init__(entries, eventfd)
        self.answers: list[int] = []
        self.calls: list[int] = []

    def submit(self) -> int:
        answer = self.answers.pop(0) if self.answers else 1
        taken = super().submit() if answer > 0 else answer
        self.calls.append(taken)
        return taken


class StubbornWorld(World):
    """The real world but for the kernel's two queues."""

    def new_linux_aio(self, depth: int, eventfd: int) -> StubbornAio:
        return StubbornAio(depth, eventfd)

    def new_io_uring(self, entries: int, eventfd: int) -> StubbornUring:
        return StubbornUring(entries, eventfd)


@pytest.fixture(params=["native", "io_uring", "io_uring by the shared library"])
def queue(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[KernelQueue]:
    """A queue that is attached to a context of its own; both are gone after the test."""
    engine, _, by_library = request.param.partition(" ")
    if by_library:
        needs.library("liburing.so.2", "liburing2")
        monkeypatch.setattr(liburing_rings, "has_avx512", lambda: False)
    needs.engine(engine)
    before = open_fds()
    world = StubbornWorld()
    ctx = AioContext("tested", world)
    made: KernelQueue = QUEUES[engine](world, "the owner")
    made.attach(ctx)
    yield made
    made.detach()
    made.cleanup()
    ctx.close()
    assert open_fds() == before


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """A file of 64 pages, page n full of n; without O_DIRECT both engines take it as well."""
    path = tmp_path / "data"
    path.write_bytes(b"".join(bytes([n]) * PAGE for n in range(PAGES)))
    held = os.open(path, os.O_RDWR)
    yield held
    os.close(held)


def memory(nbytes: int = PAGE) -> memoryview:
    return memoryview(mmap.mmap(-1, nbytes))


class Run:
    """Requests in coroutines, and what came of them."""

    def __init__(self, queue: KernelQueue, fd: int) -> None:
        self.queue = queue
        self.fd = fd
        assert queue.bh is not None
        self.ctx = queue.bh.ctx
        self.rets: list[int] = []
        self.waiting = 0

    def start(self, kind: int, offset: int, qiov: list[memoryview]) -> None:
        self.waiting += 1
        Coroutine(self._one(kind, offset, qiov), ctx=self.ctx).enter()

    async def _one(self, kind: int, offset: int, qiov: list[memoryview]) -> None:
        co = current()
        assert co is not None
        request = KernelRequest(co, kind, self.fd, offset, sum(map(len, qiov)), qiov)
        await self.queue.submit(request)
        self.waiting -= 1
        self.rets.append(request.ret)

    def finish(self) -> list[int]:
        while self.waiting:
            self.ctx.poll(True)
        return self.rets


def calls(queue: KernelQueue) -> list[int]:
    kernel = getattr(queue, "kernel")  # noqa: B009  # both subclasses have one
    assert isinstance(kernel, StubbornAio | StubbornUring)
    return kernel.calls


def answer(queue: KernelQueue, *answers: int) -> None:
    kernel = getattr(queue, "kernel")  # noqa: B009  # both subclasses have one
    assert isinstance(kernel, StubbornAio | StubbornUring)
    kernel.answers += answers


def test_reads_writes_and_flushes_reach_the_file(queue: KernelQueue, fd: int) -> None:
    run = Run(queue, fd)
    into, out = memory(), memory(2 * PAGE)
    out[:] = b"w" * 2 * PAGE
    run.start(READ, 7 * PAGE, [into])
    run.start(WRITE, 20 * PAGE, [out[:PAGE], out[PAGE:]])
    run.start(FLUSH, 0, [])
    assert sorted(run.finish()) == [0, PAGE, 2 * PAGE]
    assert into == b"\7" * PAGE
    assert os.pread(fd, 2 * PAGE, 20 * PAGE) == b"w" * 2 * PAGE


def test_a_vector_may_have_many_parts(queue: KernelQueue, fd: int) -> None:
    run = Run(queue, fd)
    into = memory(8 * PAGE)
    run.start(READ, 0, [into[n * 512 : (n + 1) * 512] for n in range(64)])
    assert run.finish() == [8 * PAGE]
    assert into == b"".join(bytes([n]) * PAGE for n in range(8))


def test_memory_that_cannot_be_written_is_copied_for_a_write(queue: KernelQueue, fd: int) -> None:
    run = Run(queue, fd)
    run.start(WRITE, 0, [memoryview(b"c" * PAGE)])
    run.start(WRITE, 3 * PAGE, [memoryview(b""), memoryview(b"d" * PAGE), memory()])
    assert sorted(run.finish()) == [PAGE, 2 * PAGE]
    assert os.pread(fd, PAGE, 0) == b"c" * PAGE
    assert os.pread(fd, 2 * PAGE, 3 * PAGE) == b"d" * PAGE + bytes(PAGE)
    run.start(READ, 0, [memoryview(bytes(PAGE))])
    assert run.finish()[-1] == -errno.EINVAL


def test_memory_is_held_while_the_kernel_has_it_and_then_given_back(
    queue: KernelQueue, fd: int
) -> None:
    run = Run(queue, fd)
    maps = [mmap.mmap(-1, PAGE) for _ in range(3)]
    run.start(READ, 0, [memoryview(maps[0])])
    run.start(WRITE, 0, [memoryview(part) for part in maps[1:]])
    queue.submit_pending()
    for each in maps:
        with pytest.raises(BufferError):
            each.close()
    run.finish()
    for each in maps:
        each.close()


def test_what_comes_in_one_pass_is_handed_over_in_one_call(queue: KernelQueue, fd: int) -> None:
    run = Run(queue, fd)
    for n in range(BATCH - 1):
        run.start(READ, n * PAGE, [memory()])
    assert calls(queue) == []
    assert run.finish() == [PAGE] * (BATCH - 1)
    assert calls(queue) == [BATCH - 1]


def test_a_full_batch_goes_at_once(queue: KernelQueue, fd: int) -> None:
    run = Run(queue, fd)
    for n in range(BATCH + 1):
        run.start(READ, n * PAGE, [memory()])
        assert run.rets == []
    assert calls(queue) == [BATCH]
    assert run.finish() == [PAGE] * (BATCH + 1)
    assert calls(queue) == [BATCH, 1]


def test_a_large_request_goes_at_once_and_takes_along_what_waits(
    queue: KernelQueue, fd: int
) -> None:
    run = Run(queue, fd)
    run.start(READ, 0, [memory(LARGE - PAGE)])
    assert calls(queue) == []
    run.start(READ, 0, [memory(LARGE)])
    assert run.rets == []
    assert sum(calls(queue)) == 2
    assert sorted(run.finish()) == [LARGE - PAGE, LARGE]
    assert sum(calls(queue)) == 2


def test_an_unplug_hands_over_at_once_and_nothing_goes_before(queue: KernelQueue, fd: int) -> None:
    run = Run(queue, fd)
    run.ctx.plug()
    for n in range(3):
        run.start(READ, n * PAGE, [memory()])
        run.ctx.poll(False)
    assert calls(queue) == []
    run.ctx.unplug()
    assert calls(queue) == [3]
    assert run.finish() == [PAGE] * 3


def test_more_requests_than_slots_wait_and_are_all_done(queue: KernelQueue, fd: int) -> None:
    run = Run(queue, fd)
    count = len(queue.slots) + 100
    for n in range(count):
        run.start(READ, n % PAGES * PAGE, [memory()])
    assert run.finish() == [PAGE] * count
    assert queue.idle


def test_without_room_in_the_kernel_they_are_tried_again(queue: KernelQueue, fd: int) -> None:
    run = Run(queue, fd)
    answer(queue, -errno.EAGAIN, -errno.EAGAIN)
    for n in range(4):
        run.start(READ, n * PAGE, [memory()])
    assert run.finish() == [PAGE] * 4
    assert queue.idle


def test_a_short_read_tells_how_much_it_got(queue: KernelQueue, fd: int) -> None:
    os.ftruncate(fd, 3 * PAGE + 5)
    run = Run(queue, fd)
    run.start(READ, 3 * PAGE, [memory()])
    run.start(READ, 9 * PAGE, [memory()])
    assert sorted(run.finish()) == [0, 5]


def test_an_error_is_the_result_of_its_own_request(queue: KernelQueue, fd: int) -> None:
    run = Run(queue, fd)
    run.start(READ, 0, [memory()])
    run.fd = 999
    run.start(READ, 0, [memory()])
    run.fd = fd
    run.start(READ, 0, [memory()])
    assert sorted(run.finish()) == [-errno.EBADF, PAGE, PAGE]


def test_a_failing_coroutine_does_not_keep_the_others_from_going_on(
    queue: KernelQueue, fd: int
) -> None:
    run = Run(queue, fd)

    async def fail() -> None:
        await run._one(READ, 0, [memory()])
        raise ZeroDivisionError

    run.waiting += 1
    Coroutine(fail(), ctx=run.ctx).enter()
    for n in range(3):
        run.start(READ, n * PAGE, [memory()])
    queue.submit_pending()
    while len(queue.finished) < 4:
        queue.finish(queue.completions())
    queue.notifier.test_and_clear()  # neither the kernel will remind us,
    assert queue.bh is not None
    queue.bh.cancel()  # nor what was scheduled before
    with pytest.raises(ZeroDivisionError):
        queue.complete()
    assert run.finish() == [PAGE] * 4


def test_it_registers_for_its_owner_and_leaves_nothing(queue: KernelQueue) -> None:
    assert queue.bh is not None
    ctx = queue.bh.ctx
    assert sorted(r.kind for r in ctx.registrations("the owner")) == ["bh", "notifier"]
    queue.detach()
    assert ctx.registrations() == []
    queue.attach(ctx)


def test_a_detach_with_requests_in_flight_is_a_mistake(queue: KernelQueue, fd: int) -> None:
    run = Run(queue, fd)
    run.start(READ, 0, [memory()])
    with pytest.raises(AssertionError, match="R5"):
        queue.detach()
    run.finish()


# -- Linux AIO alone


@pytest.fixture
def native() -> Iterator[LinuxAioState]:
    needs.engine("native")
    world = StubbornWorld()
    ctx = AioContext("tested", world)
    made = LinuxAioState(world, "the owner")
    made.attach(ctx)
    yield made
    made.detach()
    made.cleanup()
    ctx.close()


def test_what_the_kernel_takes_in_part_is_handed_over_in_parts(
    native: LinuxAioState, fd: int
) -> None:
    run = Run(native, fd)
    answer(native, 3, 1)
    for n in range(8):
        run.start(READ, n * PAGE, [memory()])
    assert run.finish() == [PAGE] * 8
    assert calls(native) == [8, 5, 4]


def test_a_refusal_is_about_the_first_and_the_others_go_on(native: LinuxAioState, fd: int) -> None:
    run = Run(native, fd)
    answer(native, 2, -errno.EINVAL)
    for n in range(5):
        run.start(READ, n * PAGE, [memory()])
    assert sorted(run.finish()) == [-errno.EINVAL] + [PAGE] * 4
    assert calls(native) == [5, 3, 2]


def test_the_ring_is_read_around_its_end(native: LinuxAioState, fd: int) -> None:
    run = Run(native, fd)
    into = memory()
    for n in range(native.kernel.ring[1] + 50):
        run.start(READ, n % PAGES * PAGE, [into])
        run.finish()
        assert into[0] == n % PAGES


def test_events_on_both_sides_of_the_rings_end_are_taken_together(
    native: LinuxAioState, fd: int
) -> None:
    run = Run(native, fd)
    for _ in range(native.kernel.ring[1] - 2):
        run.start(READ, 0, [memory()])
        run.finish()
    for n in range(5):
        run.start(READ, n * PAGE, [memory()])
    native.submit_pending()  # a cached file: it is read before this returns
    done = native.completions()
    assert len(done) == 5
    native.finish(done)
    run.finish()
    assert run.rets[-5:] == [PAGE] * 5


def kernel_contexts() -> int:
    """How many contexts this process has in the kernel: each is mapped once (fs.aio-nr counts
    those of all processes, which come and go beside a test)."""
    return Path("/proc/self/maps").read_text().count("[aio]")


def test_cleanup_gives_the_kernels_context_back() -> None:
    needs.engine("native")
    world = World()
    before = kernel_contexts(), open_fds()
    state = LinuxAioState(world, None)
    assert kernel_contexts() == before[0] + 1
    state.cleanup()
    assert (kernel_contexts(), open_fds()) == before


def test_where_there_is_none_nothing_is_left_open() -> None:
    before = open_fds()
    for make in QUEUES.values():
        with pytest.raises(OSError, match="Function not implemented"):
            make(PlainWorld(), None)
    assert open_fds() == before
