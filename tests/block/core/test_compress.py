# SPDX-License-Identifier: GPL-2.0-only
"""Packing and unpacking: no more comes out than was asked for, and other programs understand it."""

from __future__ import annotations

import errno
import os
import random
import sys
import threading
import zlib
from collections.abc import Iterator, Sequence
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
from tests.block.core.conftest import main, nothing_left_behind
from tests.support.drivers import Disk, ram_node

__all__ = ["main", "nothing_left_behind"]

SIZE = 65536
METHODS = {
    "deflate": (compress.pack_deflate, compress.unpack_deflate),
    "zlib": (compress.pack_zlib, compress.unpack_zlib),
    "zstd": (compress.pack_zstd, compress.unpack_zstd),
}


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


@pytest.mark.parametrize("method", METHODS)
def test_what_was_packed_comes_out_again(library: ModuleType, method: str) -> None:
    pack, unpack = METHODS[method]
    for data in (plain(), bytes(SIZE), random.Random(3).randbytes(SIZE)):
        packed = pack(memoryview(data))
        assert unpack(packed, SIZE) == data
        assert compress._zlib_module in (None, library)


@pytest.mark.parametrize("method", ["deflate", "zstd"])
def test_what_follows_in_the_last_sector_does_not_count(library: ModuleType, method: str) -> None:
    pack, unpack = METHODS[method]
    data = plain()
    assert unpack(pack(data) + os.urandom(511), SIZE) == data


@pytest.mark.parametrize("method", METHODS)
def test_a_bomb_does_not_go_off(library: ModuleType, method: str) -> None:
    pack, unpack = METHODS[method]
    bomb = pack(bytes(256 << 20))
    found = unpack(bomb, SIZE)
    assert found is None or len(found) == SIZE


def test_a_frame_of_zstd_that_says_it_is_larger_than_a_cluster_is_refused() -> None:
    assert compress.unpack_zstd(compress.pack_zstd(bytes(SIZE + 1)), SIZE) is None


def test_a_bomb_of_zstd_that_does_not_tell_its_size_is_stopped() -> None:
    packer = zstandard.ZstdCompressor().compressobj()
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()
    assert zstandard.frame_content_size(bomb) == -1
    found = compress.unpack_zstd(bomb, SIZE)
    assert found is not None
    assert len(found) == SIZE


@pytest.mark.parametrize("method", METHODS)
def test_less_than_was_packed_is_an_error(library: ModuleType, method: str) -> None:
    pack, unpack = METHODS[method]
    packed = pack(plain())
    assert unpack(packed[: len(packed) // 2], SIZE) is None
    assert unpack(b"", SIZE) is None
    if method != "zlib":  # there it is a limit
        assert unpack(pack(plain()[: SIZE - 1]), SIZE) is None


@pytest.mark.parametrize("method", METHODS)
def test_noise_is_an_error_or_unpacks_to_the_size(library: ModuleType, method: str) -> None:
    unpack = METHODS[method][1]
    source = random.Random(7)
    for _ in range(300):
        found = unpack(source.randbytes(source.randint(1, 400)), 512)
        assert found is None or len(found) <= 512


def test_several_frames_of_zstd_make_one_cluster() -> None:
    data = plain()
    frames = b"".join(compress.pack_zstd(data[at : at + 30_000]) for at in range(0, SIZE, 30_000))
    assert compress.unpack_zstd(frames + b"more", SIZE) == data


def test_no_repeat_is_farther_away_than_qemus_unpacker_remembers(library: ModuleType) -> None:
    far = random.Random(5).randbytes(20_000) * 3
    packed = compress.pack_deflate(far)
    assert zlib.decompressobj(-12).decompress(packed, len(far)) == far


def test_the_quick_packer_is_at_most_a_tenth_worse() -> None:
    data = b"".join(plain(seed) for seed in range(8))
    packer = zlib.compressobj(wbits=-12, memLevel=9)
    best = len(packer.compress(data) + packer.flush())
    assert len(isal_zlib.compress(data, compress.ISAL_LEVEL, -12)) < 1.1 * best


def test_without_zstandard_an_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    for call in (lambda: compress.pack_zstd(b"x"), lambda: compress.unpack_zstd(b"x", 1)):
        with pytest.raises(BlockError, match="pip install zstandard") as caught:
            call()
        assert caught.value.errno == errno.ENOTSUP


# -- threads


def test_the_work_is_divided_among_threads_that_are_not_the_loops(main: AioContext) -> None:
    done: list[tuple[int, int]] = []

    def work(part: Sequence[int]) -> None:
        done.extend((number, threading.get_ident()) for number in part)

    with a_node() as bs:
        run_sync(main, lambda: compress.co_in_workers(bs, work, range(9)))
    assert sorted(number for number, _ in done) == list(range(9))
    assert threading.get_ident() not in {thread for _, thread in done}


@pytest.mark.parametrize("count", [1, 9])
def test_what_a_worker_raises_the_caller_gets(main: AioContext, count: int) -> None:
    def work(part: Sequence[int]) -> None:
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
