# SPDX-License-Identifier: GPL-2.0-only
"""Packing and unpacking: no more comes out than was asked for, and other programs understand it."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import threading
import tracemalloc
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest
import zstandard
from isal import isal_zlib

from block.aio.context import AioContext
from block.core import compress
from block.core.error import BlockError
from block.core.node import BlockDriverState
from block.core.wait import run_sync
from block.core.zstd_library import POLICY
from tests.block.core.conftest import main, nothing_left_behind
from tests.support.drivers import Disk, ram_node

__all__ = ["main", "nothing_left_behind"]

SIZE = 65536
CODECS: dict[str, type[compress.Deflate | compress.Zlib | compress.Zstd]] = {
    "deflate": compress.Deflate,
    "zlib": compress.Zlib,
    "zstd": compress.Zstd,
}


def pack(method: str, data: bytes | memoryview) -> bytes:
    return CODECS[method]().pack(data)


def unpack(method: str, data: bytes, size: int) -> bytes | None:
    """What a Codec makes of the data, or None; "zlib" may make fewer than `size` bytes."""
    found = bytes(CODECS[method]().unpack(data, size))
    into = memoryview(bytearray(b"?" * (size + 1)))
    is_whole = CODECS[method]().unpack_into(data, into[:size])
    assert into[size] == ord("?"), "R1"
    assert is_whole == (len(found) == size)
    assert not is_whole or into[:size] == found
    return found or None


def plain(seed: int = 1) -> bytes:
    """Data as files have them: words that come again, near and far."""
    source = random.Random(seed)
    words = [source.randbytes(source.randint(2, 30)) for _ in range(200)]
    return b"".join(source.choice(words) for _ in range(8000))[:SIZE].ljust(SIZE, b"\0")


@pytest.fixture(params=["isal", "zlib"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """With isal, and as it is where nobody has installed that."""
    module = {"isal": isal_zlib, "zlib": zlib}[request.param]
    monkeypatch.setattr(compress, "_zlib_module", None)
    if module is zlib:
        monkeypatch.setitem(sys.modules, "isal", None)
    return module


@pytest.mark.parametrize("method", CODECS)
def test_what_was_packed_comes_out_again(library: ModuleType, method: str) -> None:
    for data in (plain(), bytes(SIZE), random.Random(3).randbytes(SIZE)):
        packed = pack(method, memoryview(data))
        assert unpack(method, packed, SIZE) == data
        assert compress._zlib_module in (None, library)


@pytest.mark.parametrize("method", CODECS)
def test_what_follows_in_the_last_sector_does_not_count(library: ModuleType, method: str) -> None:
    data = plain()
    assert unpack(method, pack(method, data) + os.urandom(511), SIZE) == data


@contextmanager
def little_memory() -> Iterator[None]:
    """What is done here needs no more than some times a cluster."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 8 * SIZE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", CODECS)
def test_a_bomb_does_not_go_off(library: ModuleType, method: str) -> None:
    bomb = pack(method, bytes(256 * SIZE))
    with little_memory():
        found = unpack(method, bomb, SIZE)
    assert found is None or (len(found) == SIZE and method != "zlib")


def test_a_frame_of_zstd_that_says_it_is_larger_than_a_cluster_is_refused() -> None:
    assert unpack("zstd", pack("zstd", bytes(SIZE + 1)), SIZE) is None


def test_a_bomb_of_zstd_that_does_not_tell_its_size_is_stopped() -> None:
    packer = zstandard.ZstdCompressor().compressobj()
    bomb = b"".join(packer.compress(bytes(SIZE)) for _ in range(256)) + packer.flush()
    assert zstandard.frame_content_size(bomb) == -1
    with little_memory():
        found = unpack("zstd", bomb, SIZE)
    assert found == bytes(SIZE)


@pytest.mark.parametrize("method", CODECS)
def test_less_than_was_packed_is_an_error(library: ModuleType, method: str) -> None:
    packed = pack(method, plain())
    assert unpack(method, packed[: len(packed) // 2], SIZE) is None
    assert unpack(method, b"", SIZE) is None
    short = plain()[: SIZE - 1]
    assert unpack(method, pack(method, short), SIZE) == (short if method == "zlib" else None)


@pytest.mark.parametrize("method", CODECS)
def test_noise_is_an_error_or_unpacks_to_the_size(library: ModuleType, method: str) -> None:
    source = random.Random(7)
    for _ in range(300):
        found = unpack(method, source.randbytes(source.randint(1, 400)), 512)
        assert found is None or len(found) <= 512


@pytest.mark.parametrize("method", CODECS)
def test_a_codec_forgets_what_went_wrong(library: ModuleType, method: str) -> None:
    codec, into = CODECS[method](), memoryview(bytearray(SIZE))
    good = [plain(seed) for seed in range(4)]
    packed = [codec.pack(data) for data in good]
    bomb = codec.pack(bytes(1 << 20))
    spoilt = packed[0][:50] + bytes(1000) + packed[0][1050:]
    for lie in (packed[0][:3000], bomb, spoilt, b"", b"\xff" * 100):
        for data, small in zip(good, packed, strict=True):
            codec.unpack_into(lie, into)
            assert codec.unpack_into(small, into)
            assert into == data
            assert codec.pack(data) == small


def test_several_frames_of_zstd_make_one_cluster() -> None:
    data = plain()
    frames = b"".join(pack("zstd", data[at : at + 30_000]) for at in range(0, SIZE, 30_000))
    assert unpack("zstd", frames + b"more", SIZE) == data


def test_no_repeat_is_farther_away_than_qemus_unpacker_remembers(library: ModuleType) -> None:
    far = random.Random(5).randbytes(20_000) * 3
    packed = pack("deflate", far)
    assert zlib.decompressobj(-12).decompress(packed, len(far)) == far


def test_the_quick_packer_is_at_most_a_tenth_worse() -> None:
    data = b"".join(plain(seed) for seed in range(8))
    packer = zlib.compressobj(wbits=-12, memLevel=9)
    best = len(packer.compress(data) + packer.flush())
    assert len(isal_zlib.compress(data, compress.ISAL_LEVEL, -12)) < 1.1 * best


def test_without_zstandard_an_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(BlockError, match="pip install zstandard") as caught:
        compress.Zstd()
    assert caught.value.errno == errno.ENOTSUP


FRESH = """
import sys
from block.core import zstd_library
{change}
from block.core.compress import Zstd
codec, before = Zstd(), sorted({{"platform", "typing", "zstandard"}} & set(sys.modules))
import zstandard
packed = codec.pack(b"x" * 1000)
try:
    zstandard.ZstdDecompressor().decompress(packed[:9])
except codec._library.ZstdError:
    print(before, zstandard.ZstdCompressor is codec._library.ZstdCompressor, zstandard.backend)
"""


@pytest.mark.parametrize(
    ("change", "before"),
    [
        ("", []),
        ("zstd_library.PACKAGE = 'zstandard_of_another_make'", ["platform", "typing", "zstandard"]),
        ("zstd_library.COMPILED = 'zstandard.elsewhere'", ["platform", "typing", "zstandard"]),
        (f"import os; os.environ[{POLICY!r}] = 'cext'", ["platform", "typing", "zstandard"]),
    ],
    ids=["as we know it", "no package", "no compiled part", "policy"],
)
def test_zstandard_comes_without_what_it_imports_and_is_the_same_for_all(
    change: str, before: list[str]
) -> None:
    """In a process of its own: whoever loads it a second time spoils it for the first."""
    script = f"import sys; sys.path = {sys.path!r}; {FRESH.format(change=change)}"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{before} True cext"


# -- threads


def test_each_item_is_done_once_by_threads_that_are_not_the_loops(main: AioContext) -> None:
    done: list[tuple[int, int]] = []

    def work(part: Iterable[int]) -> None:
        done.extend((number, threading.get_ident()) for number in part)

    with a_node() as bs:
        run_sync(main, lambda: compress.co_in_workers(bs, work, range(200)))
    assert sorted(number for number, _ in done) == list(range(200))
    assert threading.get_ident() not in {thread for _, thread in done}


@pytest.mark.parametrize("processors", [1, 3])
def test_all_processors_work_at_one_request(main: AioContext, processors: int) -> None:
    main.thread_pool.max_computing = processors
    together = threading.Barrier(processors)
    threads: list[int] = []

    def work(part: Iterable[int]) -> None:
        threads.append(threading.get_ident())
        for _ in part:
            together.wait(60)  # nobody gets through before all are there

    with a_node() as bs:
        run_sync(main, lambda: compress.co_in_workers(bs, work, range(2 * processors)))
    assert len(set(threads)) == len(threads) == processors


@pytest.mark.parametrize("count", [1, 9])
def test_what_a_worker_raises_the_caller_gets(main: AioContext, count: int) -> None:
    def work(part: Iterable[int]) -> None:
        if 0 in part:
            raise BlockError(errno.ENOTSUP, "no such thing")

    with a_node() as bs, pytest.raises(BlockError, match="no such thing"):
        run_sync(main, lambda: compress.co_in_workers(bs, work, range(count)))


@contextmanager
def a_node() -> Iterator[BlockDriverState]:
    bs = ram_node(Disk(512), "ram")
    try:
        yield bs
    finally:
        bs.unref()
