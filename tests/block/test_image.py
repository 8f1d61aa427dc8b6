# SPDX-License-Identifier: GPL-2.0-only
"""The block layer in a person's hands: block.open and create, asyncio, what imports cost."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import block
from tests.block.core.conftest import iothread, main, nothing_left_behind, second_iothread

__all__ = ["iothread", "main", "nothing_left_behind", "second_iothread"]

ROOT = Path(__file__).parent.parent.parent
own_loop = pytest.mark.real_world("asyncio waits for descriptors by itself")
DEAR = {"construct", "asyncio", "logging", "dataclasses", "argparse", "subprocess", "pathlib"}


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = os.fspath(tmp_path / "a.img")
    block.create(path, "raw", "1M")
    return path


def modules_after(statements: str) -> set[str]:
    """The modules that a bare interpreter has after running some statements."""
    program = f"import sys; sys.path.insert(0, {os.fspath(ROOT)!r})\n{statements}\n"
    program += "print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_importing_block_imports_nothing_else() -> None:
    ours = {name for name in modules_after("import block") if name.split(".")[0] == "block"}
    assert ours == {"block"}


def test_a_raw_file_is_opened_and_read_without_anything_dear(image: str) -> None:
    statements = (
        f"import block\nwith block.open({image!r}, format='raw', read_only=True) as disk:\n"
        "    assert disk.pread(0, 512) == bytes(512)"
    )
    loaded = modules_after(statements)
    assert not loaded & (DEAR | {"ctypes", "json", "typing"})
    assert not {name for name in loaded if name.startswith("block.protocols.null")}


def test_every_export_is_there_and_listed() -> None:
    for name in block.__all__:
        assert getattr(block, name) is not None
        assert name in dir(block)
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        block.nosuch  # noqa: B018  # the access is what is tested


def test_open_write_read_move_close(image: str, iothread: Any) -> None:
    with block.open(image, format="raw") as disk:
        disk.pwrite(0, b"hello")
        disk.set_aio_context(iothread.ctx)
        disk.pwrite(5, b" there")
        disk.flush()
        assert disk.pread(0, 11) == b"hello there"
        disk.set_aio_context(block.main_context())


def test_a_disk_may_begin_in_an_iothread(image: str, iothread: Any) -> None:
    with block.open(image, format="raw", aio_context=iothread.ctx) as disk:
        assert disk.aio_context is iothread.ctx
        assert disk.pread(0, 1) == b"\0"


def test_a_format_and_a_driver_must_agree(image: str) -> None:
    with pytest.raises(block.BlockError, match=r"^Cannot specify both 'driver' and 'format'$"):
        block.open(image, format="raw", options={"driver": "file"})


def test_a_cache_mode_reaches_device_and_file(image: str) -> None:
    with block.open(image, format="raw", cache="writethrough") as disk:
        assert not disk.enable_write_cache
    with pytest.raises(block.BlockError, match=r"^invalid cache option$"):
        block.open(image, cache="x")


def test_creation_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "new")
    with pytest.raises(block.BlockError, match=r"^Unknown file format 'nosuch'$"):
        block.create(path, "nosuch", 512)
    with pytest.raises(block.BlockError, match=r"^Invalid parameter 'colour'$"):
        block.create(path, "raw", 512, colour="red")
    with pytest.raises(block.BlockError, match=r"^Parameter 'size' expects a non-negative"):
        block.create(path, "raw", "big")
    assert not os.path.exists(path)


# -- asyncio


@own_loop
def test_asyncio_tasks_share_a_disk(image: str) -> None:
    async def program() -> None:
        async with await block.asyncio_open(image, format="raw") as disk:
            await asyncio.gather(*(disk.pwrite(n * 4096, bytes([n]) * 4096) for n in range(50)))
            await disk.flush()
            read = await asyncio.gather(*(disk.pread(n * 4096, 1) for n in range(50)))
            assert b"".join(read) == bytes(range(50))
            await disk.pwrite_zeroes(4096, 4096)
            into = memoryview(bytearray(b"x" * 4096))
            await disk.preadv_into(4096, [into])
            assert into == bytes(4096)
            await disk.pdiscard(0, 4096)
            assert disk.length == 1 << 20

    asyncio.run(program())


@own_loop
def test_asyncio_runs_on_while_a_request_is_on_its_way(image: str) -> None:
    async def program() -> int:
        async with await block.asyncio_open(image, format="raw") as disk:
            write = asyncio.ensure_future(disk.pwrite(0, bytes(1 << 20)))
            passes = 0
            while not write.done():
                passes += 1
                await asyncio.sleep(0)
            return passes

    assert asyncio.run(program()) > 0


@own_loop
def test_a_disk_in_an_iothread_answers_asyncio(image: str, iothread: Any) -> None:
    async def program() -> None:
        async with await block.asyncio_open(image, format="raw") as disk:
            disk.set_aio_context(iothread.ctx)
            await disk.pwrite(0, b"from afar")
            assert await disk.pread(0, 9) == b"from afar"
            with pytest.raises(block.BlockError):
                await disk.pread(1 << 20, 1)
            disk.set_aio_context(block.main_context())

    asyncio.run(program())


@own_loop
def test_a_cancelled_task_leaves_its_request_to_its_end(
    image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    real = os.pwritev

    def pwritev(*args: Any) -> int:
        gate.wait(30)
        return real(*args)

    monkeypatch.setattr(os, "pwritev", pwritev)

    async def program() -> None:
        async with await block.asyncio_open(image, format="raw") as disk:
            task = asyncio.ensure_future(disk.pwrite(0, b"x" * 4096))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.set()
            await disk.flush()
        with block.open(image, format="raw") as disk:
            assert disk.pread(0, 1) == b"x"

    asyncio.run(program())


@own_loop
def test_a_disk_that_cannot_be_opened_leaves_asyncio_alone() -> None:
    async def program() -> None:
        for _ in range(2):
            with pytest.raises(block.BlockError, match="No such file"):
                await block.asyncio_open("/nosuch", format="raw")

    asyncio.run(program())
