# SPDX-License-Identifier: GPL-2.0-only
"""Batches of small writes, the near worker, O_DIRECT, loops around calls of the kernel."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from block.aio.context import AioContext
from block.core import flags as f
from block.core.error import BlockError
from block.core.wait import poll_while
from block.protocols.file import align, syscalls
from block.protocols.file.near import NearWorker
from block.protocols.file.syscalls import LARGE_FOLIO, write_all
from block.protocols.file.threads import PendingWrite, contiguous_run, write_batch
from tests.block.protocols.file.conftest import SIZE, Opener
from tests.support import needs


def write_of(offset: int, data: bytes) -> PendingWrite:
    return PendingWrite(offset, len(data), [memoryview(data)], cast(Any, None))


@pytest.fixture
def fd(image: Path) -> Iterator[int]:
    held = os.open(image, os.O_RDWR)
    yield held
    os.close(held)


def batch_of(*numbers: int) -> list[PendingWrite]:
    """Writes of whole pages: page n gets the letter n."""
    return [write_of(n * 4096, bytes([65 + n]) * 4096) for n in numbers]


def pages(fd: int, count: int) -> str:
    return "".join(chr(os.pread(fd, 1, n * 4096)[0]) for n in range(count))


def test_only_writes_that_continue_one_another_are_joined() -> None:
    batch = batch_of(0, 1, 2, 4, 5, 3)
    assert [len(contiguous_run(batch, n)[0]) for n in (0, 3, 5)] == [3, 2, 1]
    run, qiov = contiguous_run(batch, 0)
    assert [view.obj for view in qiov] == [write.qiov[0].obj for write in run]


def test_a_joined_write_has_no_more_views_than_the_kernel_takes() -> None:
    small = [memoryview(b"x")] * 600
    batch = [PendingWrite(n * 600, 600, small, cast(Any, None)) for n in range(3)]
    assert [len(contiguous_run(batch, n)[0]) for n in (0, 1, 2)] == [1, 1, 1]


def test_a_batch_writes_everything_with_one_call_per_run(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda *args: calls.append(args[2]) or real(*args))
    batch = batch_of(0, 1, 2, 6, 5)
    assert write_batch(fd, batch) == 0
    assert calls == [0, 6 * 4096, 5 * 4096]
    assert pages(fd, 7) == "ABC\3\4FG"
    assert [write.ret for write in batch] == [0] * 5


def test_a_joined_write_that_ends_short_is_done_again_one_by_one(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwritev

    def pwritev(fd: int, qiov: Any, offset: int) -> int:
        if len(qiov) > 1:
            return real(fd, qiov[:1], offset)
        if offset == 2 * 4096:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, qiov, offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    batch = batch_of(0, 1, 2)
    write_batch(fd, batch)
    assert [write.ret for write in batch] == [0, 0, -errno.ENOSPC]
    assert pages(fd, 3) == "AB\2"


def test_writes_of_one_pass_go_to_one_worker_together(
    opener: Opener, main: AioContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    blk = opener()
    calls: list[int] = []
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda *args: calls.append(len(args[1])) or real(*args))
    rets: list[int] = []
    for n in range(8):
        blk.aio_pwritev(n * 4096, [memoryview(bytes(4096))], rets.append)
    poll_while(main, lambda: len(rets) < 8)
    assert rets == [0] * 8
    assert calls == [8]


def test_long_odd_and_direct_writes_go_alone(
    opener: Opener, main: AioContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    blk = opener()
    assert blk.bs is not None
    engine = blk.bs.opaque.engine
    rets: list[int] = []
    blk.aio_pwritev(0, [memoryview(bytes(1 << 17))], rets.append)
    blk.aio_pwritev(1, [memoryview(bytes(4096))], rets.append)
    assert engine.pending == []
    poll_while(main, lambda: len(rets) < 2)
    assert rets == [0, 0]


# -- the near worker


@pytest.fixture
def worker(main: AioContext) -> Iterator[NearWorker]:
    made = NearWorker(main)
    yield made
    made.close()


def test_the_near_worker_works_and_answers_at_home(worker: NearWorker, main: AioContext) -> None:
    for expected in (0, 7):
        rets: list[int] = []
        worker.submit(lambda n=expected: n, rets.append)  # type: ignore[misc]  # a lambda's default
        assert worker.busy
        assert rets == []
        poll_while(main, lambda: worker.busy)
        assert rets == [expected]


def test_its_failures_are_numbers_and_its_mistakes_are_seen(
    worker: NearWorker, main: AioContext
) -> None:
    def fail() -> int:
        raise OSError(errno.ENOSPC, "full")

    def mistake() -> int:
        raise ZeroDivisionError

    rets: list[int] = []
    worker.submit(fail, rets.append)
    poll_while(main, lambda: worker.busy)
    assert rets == [-errno.ENOSPC]
    worker.submit(mistake, rets.append)
    with pytest.raises(ZeroDivisionError):
        poll_while(main, lambda: worker.busy)


@needs.linux("sched_setaffinity")
def test_it_is_bound_to_the_loops_processor_and_the_loop_is_not_bound(
    worker: NearWorker, main: AioContext
) -> None:
    mine = os.sched_getaffinity(0)
    seen: list[set[int]] = []
    for _ in range(3):
        worker.submit(lambda: seen.append(os.sched_getaffinity(0)) or 0, lambda ret: None)
        poll_while(main, lambda: worker.busy)
    assert len(seen[-1]) == 1
    assert os.sched_getaffinity(0) == mine


def test_where_processors_cannot_be_told_it_is_an_ordinary_worker(
    worker: NearWorker, main: AioContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_current_cpu", lambda: -1)
    rets: list[int] = []
    for _ in range(2):
        worker.submit(lambda: 0, rets.append)
        poll_while(main, lambda: worker.busy)
    assert rets == [0, 0]


@needs.linux("sched_setaffinity")
@pytest.mark.real_world("it is about how quick a real thread is")
def test_a_call_of_a_few_microseconds_is_done_when_the_loop_comes_back(
    worker: NearWorker, main: AioContext
) -> None:
    def done_at_once() -> bool:
        worker.submit(lambda: 0, lambda ret: None)
        done = bool(main.registrations(worker)[0].what == "scheduled")
        poll_while(main, lambda: worker.busy)
        return done

    assert any(done_at_once() for _ in range(1000))


# -- O_DIRECT


@pytest.fixture
def direct(opener: Opener, tmp_path: Path) -> Any:
    """An image opened with cache=none."""
    needs.direct_io(tmp_path)
    return opener(f.BDRV_O_RDWR | f.BDRV_O_NOCACHE)


def test_direct_requests_of_any_shape_work(direct: Any, image: Path) -> None:
    assert direct.bs.bl.request_alignment >= 512
    direct.pwrite(5, b"hello")
    direct.pwrite(4096, b"x" * 8192)
    assert direct.pread(3, 9) == b"\0\0hello\0\0"
    assert direct.pread(4095, 3) == b"\0xx"
    direct.flush()
    assert image.read_bytes()[4096:12288] == b"x" * 8192


def test_memory_that_the_kernel_finds_misaligned_is_copied(direct: Any) -> None:
    memory = mmap.mmap(-1, 16384)
    view = memoryview(memory)[3 : 3 + 8192]
    direct.preadv_into(4096, [view[:100], view[100:]])
    assert bytes(view) == b"\1" * 4096 + b"\2" * 4096
    view[:] = b"y" * 8192
    direct.pwrite(4096, view)
    assert direct.pread(4096, 8192) == b"y" * 8192


def test_a_direct_file_with_an_odd_end_is_read_to_its_end(direct: Any, image: Path) -> None:
    os.truncate(image, SIZE - 4096 + 100)
    data = direct.pread(SIZE - 8192, 8192)
    assert data == b"\3" * 4096 + b"\4" * 100 + bytes(3996)


@pytest.mark.parametrize(
    ("needs", "memory_needs", "expected"),
    [
        (512, 512, (512, 512)),
        (4096, 512, (4096, 512)),
        (1, 1, (4096, 4096)),
        (4096, 4096, (4096, 4096)),
    ],
)
def test_alignment_is_found_by_trying(
    monkeypatch: pytest.MonkeyPatch, needs: int, memory_needs: int, expected: tuple[int, int]
) -> None:
    import ctypes

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        address = ctypes.addressof(ctypes.c_char.from_buffer(buffers[0]))
        if len(buffers[0]) % needs or address % memory_needs:
            raise OSError(errno.EINVAL, "misaligned")
        return 0

    monkeypatch.setattr(os, "preadv", preadv)
    assert align.probe(-1, direct=True) == expected


def test_a_disk_that_takes_no_alignment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def preadv(*_: object) -> int:
        raise OSError(errno.EINVAL, "never")

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(BlockError, match=r"^Could not find working O_DIRECT alignment$") as caught:
        align.probe(-1, direct=True)
    assert caught.value.hint == "Try cache.direct=off"


def test_a_failing_disk_teaches_nothing_about_alignment(monkeypatch: pytest.MonkeyPatch) -> None:
    def preadv(*_: object) -> int:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "preadv", preadv)
    assert align.probe(-1, direct=True) == (4096, 4096)


# -- loops around calls


def test_short_reads_and_writes_go_on(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real_read, real_write = os.preadv, os.pwritev
    monkeypatch.setattr(os, "preadv", lambda fd, q, at: real_read(fd, [q[0][:1000]], at))
    monkeypatch.setattr(os, "pwritev", lambda fd, q, at: real_write(fd, [q[0][:1000]], at))
    data = os.urandom(10000)
    views = [memoryview(data)[:3], memoryview(data)[3:]]
    assert syscalls.write_all(fd, 7, len(data), views) == 0
    back = bytearray(10000)
    into = [memoryview(back)[:5000], memoryview(back)[5000:]]
    assert syscalls.read_all(fd, 7, len(back), into) == 0
    assert back == data


def test_a_write_that_gets_nowhere_fails(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwritev", lambda *_: 0)
    with pytest.raises(OSError, match="Invalid argument"):
        syscalls.write_all(fd, 0, 5, [memoryview(b"hello")])


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 9, 10])
def test_a_vector_can_begin_anywhere(count: int) -> None:
    data = b"0123456789"
    views = [memoryview(data)[:3], memoryview(data)[3:4], memoryview(data)[4:]]
    assert b"".join(syscalls.skip_bytes(views, count)) == data[count:]


@pytest.mark.parametrize("offset", [0, 512, LARGE_FOLIO // 2, LARGE_FOLIO - 512])
@pytest.mark.parametrize(
    "nbytes", [LARGE_FOLIO - 3, LARGE_FOLIO, LARGE_FOLIO + 512, 4 * LARGE_FOLIO + 3]
)
def test_no_large_folio_of_the_page_cache_is_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: int, nbytes: int
) -> None:
    calls: list[tuple[int, int]] = []
    real = os.pwritev

    def pwritev(fd: int, qiov: Any, offset: int) -> int:
        calls.append((offset, offset + sum(map(len, qiov))))
        return real(fd, qiov, offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    data = (bytes(range(256)) * (nbytes // 256 + 1))[:nbytes]
    views = [memoryview(data)[:700_000], memoryview(data)[700_000:]]
    path = tmp_path / "long"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        assert write_all(fd, offset, nbytes, views) == 0
    finally:
        os.close(fd)
    assert path.read_bytes()[offset:] == data
    assert all(-start % LARGE_FOLIO + start + LARGE_FOLIO > end for start, end in calls)
    assert len(calls) <= 2 + nbytes // LARGE_FOLIO
