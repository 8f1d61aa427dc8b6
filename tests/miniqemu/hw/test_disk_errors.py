# SPDX-License-Identifier: GPL-2.0-only
"""Real files that fail under a guest: the right status, nothing lost, and the machine goes on."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import block
from block.aio.iothread import IOThread
from miniqemu.hw.virtio_blk_layout import (
    F_RO,
    S_IOERR,
    S_OK,
    SEGMENT,
    T_DISCARD,
    T_FLUSH,
    T_IN,
    T_OUT,
    T_WRITE_ZEROES,
)
from tests.support import needs
from tests.support.ring_driver import Buffer
from tests.support.virtio_rig import Rig

SIZE = 1 << 20
LIMIT = 64 << 10
# Who serves the disk, the engine below it, and how the file is cached.
WAYS = {
    "main loop": ("threads", "writeback"),
    "IOThread": ("threads", "writeback"),
    "vCPU": ("threads", "writeback"),
    "IOThread, native": ("native", "none"),
    "main loop, io_uring": ("io_uring", "writeback"),
    "IOThread, io_uring": ("io_uring", "none"),
}
ways = pytest.mark.parametrize("way", WAYS)


class FileRig(Rig):
    """A device on an image file, with a driver that has started."""

    def __init__(self, path: Path, way: str, read_only: bool = False) -> None:
        aio, cache = WAYS[way]
        needs.engine(aio)
        self.iothread = IOThread("errors") if way.startswith("IOThread") else None
        options = {"file": {"aio": aio}}
        self.image = block.open(
            str(path), format="raw", read_only=read_only, cache=cache, options=options
        )
        super().__init__(self.image, iothread=self.iothread, ioeventfd=way != "vCPU")
        self.driver.start(num=64)

    def close(self) -> None:
        super().close()
        self.image.close()
        if self.iothread is not None:
            self.iothread.close()

    def begin(self, kind: int, sector: int = 0, out: bytes = b"", into: int = 0) -> list[Buffer]:
        """Makes a request available and rings."""
        chain = self.chain(kind, sector, out=out, into=into)
        self.driver.queues[0].submit(chain)
        self.driver.kick()
        return chain

    def status(self, kind: int, sector: int = 0, out: bytes = b"", into: int = 0) -> int:
        """A whole request; its status."""
        return self.end(self.begin(kind, sector, out, into))

    def end(self, chain: list[Buffer]) -> int:
        """Waits for the answer to a request; its status."""
        self.run_until(lambda: self.status_of(chain) != 0xFF)
        self.run_until(lambda: bool(self.driver.queues[0].reap()))
        return self.status_of(chain)


@contextmanager
def file_rig(path: Path, way: str, read_only: bool = False) -> Iterator[FileRig]:
    bench = FileRig(path, way, read_only)
    try:
        yield bench
    finally:
        bench.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(b"\xa5" * SIZE)
    return path


@contextmanager
def file_size_limit(nbytes: int | None) -> Iterator[Callable[[int | None], None]]:
    """No file of this process grows beyond a size, nor is written behind it: EFBIG.

    The value changes the limit: None lifts it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def change(limit: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft if limit is None else limit, hard))

    change(nbytes)
    try:
        yield change
    finally:
        change(None)


@ways
def test_a_file_cut_short_behind_the_back_reads_as_zeroes_and_grows_again(
    image: Path, way: str
) -> None:
    with file_rig(image, way) as bench:
        os.truncate(image, 512 * 8 + 100)  # within a sector
        chain = bench.begin(T_IN, 8, into=1024)
        assert bench.end(chain) == S_OK
        assert bench.data_of(chain) == b"\xa5" * 100 + bytes(924)
        chain = bench.begin(T_IN, 100, into=4096)  # wholly behind the end
        assert bench.end(chain) == S_OK
        assert bench.data_of(chain) == bytes(4096)
        assert bench.status(T_OUT, 200, out=b"w" * 512) == S_OK
        assert bench.status(T_FLUSH) == S_OK
    data = image.read_bytes()
    assert data[200 * 512 :] == b"w" * 512
    assert data[: 512 * 8 + 100] == b"\xa5" * (512 * 8 + 100)


@ways
def test_a_write_that_the_file_cannot_take_fails_and_the_others_do_not(
    image: Path, way: str
) -> None:
    with file_rig(image, way) as bench:
        bench.image.on_write_error = "report"
        with file_size_limit(LIMIT):
            assert bench.status(T_OUT, LIMIT // 512, out=b"n" * 512) == S_IOERR
            assert bench.status(T_OUT, LIMIT // 512 - 2, out=b"h" * 2048) == S_IOERR  # half of it
            assert bench.status(T_OUT, 1, out=b"y" * 512) == S_OK
            assert bench.status(T_IN, LIMIT // 512, into=512) == S_OK
        assert bench.status(T_OUT, LIMIT // 512, out=b"y" * 512) == S_OK
        assert not bench.vm_stops
    data = image.read_bytes()
    assert data[512:1024] == b"y" * 512
    assert data[LIMIT : LIMIT + 512] == b"y" * 512
    assert data[LIMIT + 512 :] == b"\xa5" * (SIZE - LIMIT - 512)


@ways
def test_the_machine_stops_for_it_and_goes_on_with_nothing_lost(image: Path, way: str) -> None:
    with file_rig(image, way) as bench:
        bench.image.on_write_error = "stop"
        ring = bench.driver.queues[0]
        with file_size_limit(LIMIT):
            chains = [
                bench.begin(T_OUT, sector, out=bytes([sector]) * 512)
                for sector in range(124, 132)  # the last four are behind the limit
            ]
            bench.run_until(lambda: bool(bench.vm_stops))
            bench.transport.vm_state_changed(False)
        assert 0xFF in [bench.status_of(chain) for chain in chains]
        chains.append(bench.begin(T_FLUSH))  # rung for while the machine stands
        bench.run()
        assert bench.status_of(chains[-1]) == 0xFF
        bench.transport.vm_state_changed(True)
        bench.run_until(lambda: ring.used_idx == len(chains))
        assert [bench.status_of(chain) for chain in chains] == [S_OK] * len(chains)
        assert bench.image.io_status == "ok"
    expected = b"".join(bytes([sector]) * 512 for sector in range(124, 132))
    assert image.read_bytes()[124 * 512 : 132 * 512] == expected


@ways
def test_an_error_that_is_ignored_is_an_answer_of_ok(image: Path, way: str) -> None:
    with file_rig(image, way) as bench:
        bench.image.on_write_error = "ignore"
        with file_size_limit(LIMIT):
            assert bench.status(T_OUT, LIMIT // 512, out=b"n" * 512) == S_OK
    assert image.read_bytes() == b"\xa5" * SIZE


@ways
def test_a_read_only_file_is_offered_as_one_and_stays_as_it_is(image: Path, way: str) -> None:
    image.chmod(0o444)
    with file_rig(image, way, read_only=True) as bench:
        assert bench.device.host_features & F_RO
        assert bench.status(T_OUT, out=bytes(512)) == S_IOERR
        assert bench.status(T_DISCARD, out=SEGMENT.pack(0, 1, 0)) == S_IOERR
        assert bench.status(T_WRITE_ZEROES, out=SEGMENT.pack(0, 1, 0)) == S_IOERR
        assert bench.status(T_FLUSH) == S_OK
        assert bench.status(T_IN, into=512) == S_OK
    assert image.read_bytes() == b"\xa5" * SIZE
