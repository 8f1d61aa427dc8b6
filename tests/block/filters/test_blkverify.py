# SPDX-License-Identifier: GPL-2.0-only
"""blkverify: equal copies are one disk, and different ones end the request that finds it out."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import block
from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.core import report
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.node import BlockDriverState
from block.core.open import bdrv_open
from block.core.verify import ContentsMismatch
from block.core.wait import poll_while
from tests.support.drivers import Disk, FastRam, Outcome, Ram, ReleasingRam, backend_on, ram_node

SIZE = 1 << 20


def blkverify_on(raw: BlockDriverState, test: BlockDriverState) -> BlockDriverState:
    """A node of the driver over two nodes, whose references it takes."""
    try:
        return bdrv_open(
            options={"driver": "blkverify", "raw": raw.node_name, "test": test.node_name}
        )
    finally:
        raw.unref()
        test.unref()


class Copies:
    """A backend over blkverify, and the two disks in memory below it."""

    def __init__(self, driver: type[Ram] = Ram) -> None:
        self.raw, self.test = Disk(SIZE), Disk(SIZE)
        nodes = ram_node(self.raw, driver=driver), ram_node(self.test, driver=driver)
        self.blk: BlockBackend = backend_on(blkverify_on(*nodes))


@pytest.fixture
def copies() -> Iterator[Copies]:
    made = Copies()
    yield made
    made.blk.unref()


# -- comparing


def test_a_write_goes_to_both_and_a_read_comes_from_both(copies: Copies) -> None:
    copies.blk.pwrite(700, b"hello")
    assert copies.raw.data[700:705] == copies.test.data[700:705] == b"hello"
    assert copies.blk.pread(699, 7) == b"\0hello\0"
    for disk in (copies.raw, copies.test):
        assert disk.asked("preadv") == [("preadv", 699, 7)]


@pytest.mark.parametrize("where", [0, 4095, 65535, 65536, 200_000])
def test_a_difference_is_raised_with_the_offset_of_its_first_byte(
    where: int, copies: Copies
) -> None:
    copies.test.data[where] ^= 1
    copies.test.data[where + 1] ^= 1
    start = max(0, where - 4000)
    with pytest.raises(ContentsMismatch) as error:
        copies.blk.pread(start, 66_000)
    assert str(error.value) == (
        f"blkverify: read offset={start} bytes=66000 contents mismatch at offset {where}"
    )
    assert (error.value.offset, error.value.errno) == (where, errno.EIO)


def test_what_lies_beside_a_difference_can_still_be_read(copies: Copies) -> None:
    copies.raw.data[5000] ^= 1
    assert copies.blk.pread(0, 5000) == bytes(5000)
    assert copies.blk.pread(5001, 5000) == bytes(5000)


def test_the_views_of_a_vector_are_compared_one_after_the_other(copies: Copies) -> None:
    copies.raw.data[1500] = 1
    views = [memoryview(bytearray(size)) for size in (1000, 400, 600)]
    with pytest.raises(ContentsMismatch, match=r"at offset 1500$"):
        copies.blk.preadv_into(0, views)


def test_what_is_there_and_alike_needs_no_coroutine_and_a_difference_does(
    main: AioContext,
) -> None:
    copies = Copies(FastRam)
    for where, ret, again in ((600, 0, 0), (100, -errno.EIO, 1)):
        copies.raw.data[where] ^= 1
        outcome = Outcome()
        copies.blk.aio_preadv(0, [memoryview(bytearray(512))], outcome)
        poll_while(main, lambda outcome=outcome: outcome.pending)  # type: ignore[misc]  # a lambda's default
        assert outcome.ret == ret
        assert [len(disk.asked("preadv")) for disk in (copies.raw, copies.test)] == [again] * 2
    copies.blk.unref()


def test_both_may_fail_alike_and_then_nothing_is_compared(copies: Copies) -> None:
    copies.raw.data[0] = 1
    for disk in (copies.raw, copies.test):
        disk.errors["preadv"] = BlockError(errno.ENOSPC, "no space")
    with pytest.raises(BlockError, match="no space") as error:
        copies.blk.pread(0, 512)
    assert not isinstance(error.value, ContentsMismatch)


@pytest.mark.parametrize(
    ("raw", "test", "words"),
    [
        (None, errno.EIO, "-5 != 0"),
        (errno.ENOSPC, None, "0 != -28"),
        (errno.ENOSPC, errno.EIO, "-5 != -28"),
    ],
)
@pytest.mark.parametrize("request_of", ["read", "write"])
def test_it_is_a_mismatch_when_they_do_not_fail_alike(
    request_of: str, raw: int | None, test: int | None, words: str, copies: Copies
) -> None:
    hook = {"read": "preadv", "write": "pwritev"}[request_of]
    for disk, number in ((copies.raw, raw), (copies.test, test)):
        if number is not None:
            disk.errors[hook] = BlockError(number)
    request = {
        "read": lambda: copies.blk.pread(1024, 512),
        "write": lambda: copies.blk.pwrite(1024, bytes(512)),
    }
    with pytest.raises(ContentsMismatch) as error:
        request[request_of]()
    assert str(error.value) == (
        f"blkverify: {request_of} offset=1024 bytes=512 return value mismatch {words}"
    )


def test_zeroes_go_to_both_and_a_flush_to_the_image_alone(copies: Copies) -> None:
    copies.blk.pwrite(0, b"x" * 4096)
    copies.blk.pwrite_zeroes(1000, 2000)
    copies.blk.flush()
    assert copies.raw.data == copies.test.data
    assert copies.raw.data[999:1001] == b"x\0"
    assert (copies.raw.flushes, copies.test.flushes) == (0, 1)


def test_both_become_longer_and_the_image_says_how_long_the_disk_is(copies: Copies) -> None:
    copies.blk.truncate(SIZE * 2)
    assert copies.blk.length == len(copies.raw.data) == len(copies.test.data) == SIZE * 2
    copies.blk.pwrite(SIZE, b"beyond")
    assert copies.blk.pread(SIZE, 6) == b"beyond"


def test_the_disk_is_as_long_as_the_image_now(copies: Copies) -> None:
    image = copies.blk.bs.child("test").bs  # type: ignore[union-attr]  # it is there
    for size in (SIZE * 2, SIZE // 2):
        copies.test.data[size:] = bytes(max(0, size - len(copies.test.data)))
        image.length_changed()
        assert copies.blk.length == size


# -- what the process makes of a difference


def test_the_process_is_asked_before_the_exception(
    copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    monkeypatch.setattr(report, "on_mismatch", heard.append)
    copies.raw.data[7] = 1
    with pytest.raises(ContentsMismatch) as error:
        copies.blk.pread(0, 16)
    assert heard == [str(error.value)]


PROGRAM = """
import sys, atexit, block
from block.core import report
report.on_mismatch = report.die
atexit.register(lambda: print("tidied up"))
thread = block.IOThread("io0")
disk = block.open(sys.argv[1], aio_context=thread.ctx)
print("before", flush=True)
disk.pread(0, 8192)
print("after")
"""


@pytest.mark.parametrize("equal", [True, False])
def test_a_program_may_end_there_whatever_thread_found_it(equal: bool, tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(8192))
    (tmp_path / "b.raw").write_bytes(bytes(8191) + (b"\0" if equal else b"x"))
    root = os.fspath(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "json:{\"driver\": \"blkverify\", "
         '"raw": {"driver": "file", "filename": "a.raw"}, '
         '"test": {"driver": "raw", "file.driver": "file", "file.filename": "b.raw"}}'],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    if equal:
        assert (done.returncode, done.stdout) == (0, "before\nafter\ntidied up\n"), done.stderr
    else:
        line = "blkverify: read offset=0 bytes=8192 contents mismatch at offset 8191\n"
        assert (done.returncode, done.stdout, done.stderr) == (1, "before\ntidied up\n", line)


# -- moving


def test_both_children_move_along_and_back(
    copies: Copies, iothread: IOThread, main: AioContext
) -> None:
    """Patch 05: the image under test is a child that only the driver knows."""
    nodes = [copies.blk.bs, *(child.bs for child in copies.blk.bs.children)]  # type: ignore[union-attr]  # it is there
    for ctx in (iothread.ctx, main, iothread.ctx):
        before = nodes[0].aio_context.name
        for disk in (copies.raw, copies.test):
            disk.log.clear()
        copies.blk.set_aio_context(ctx)
        assert [node.aio_context for node in nodes] == [ctx] * 3
        for disk in (copies.raw, copies.test):
            assert disk.asked("detach", "attach") == [("detach", before), ("attach", ctx.name)]
        copies.blk.pwrite(0, ctx.name.encode())
        assert copies.blk.pread(0, len(ctx.name)) == ctx.name.encode()


def test_requests_on_their_way_end_before_the_move(iothread: IOThread, main: AioContext) -> None:
    copies = Copies(ReleasingRam)
    copies.raw.parked = copies.test.parked = True
    outcome = Outcome()
    copies.blk.aio_pwritev(0, [memoryview(b"on its way")], outcome)
    copies.blk.set_aio_context(iothread.ctx)
    poll_while(iothread.ctx, lambda: outcome.pending)
    assert outcome.ret == 0
    assert copies.raw.data[:10] == copies.test.data[:10] == b"on its way"
    copies.blk.unref()


def test_it_can_be_closed_in_another_context(iothread: IOThread) -> None:
    copies = Copies()
    copies.blk.set_aio_context(iothread.ctx)
    copies.blk.pwrite(0, b"last words")
    copies.blk.unref()
    for disk in (copies.raw, copies.test):
        assert disk.log[-1] == ("close",)
    assert copies.test.flushes == 1


# -- names and options


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.raw", "b.raw", "c:d.raw"):
        (tmp_path / name).write_bytes(bytes(4096))
    return tmp_path


@pytest.mark.usefixtures("files")
def test_the_name_says_both_files_and_is_the_name_of_the_node() -> None:
    with block.open("blkverify:a.raw:./c:d.raw", options={"driver": "blkverify"}) as disk:
        bs = disk.bs
        assert bs is not None
        assert [child.name for child in bs.children] == ["raw", "test"]
        assert bs.filename == "blkverify:a.raw:./c:d.raw"
        assert bs.file is not None
        assert bs.file.bs.drv.format_name == "file"  # type: ignore[union-attr]  # it is there


@pytest.mark.usefixtures("files")
def test_a_colon_in_the_raw_name_needs_the_long_form() -> None:
    described = {
        "driver": "blkverify",
        "raw": {"driver": "file", "filename": "./c:d.raw"},
        "test": {"driver": "raw", "file": {"driver": "file", "filename": "a.raw"}},
    }
    with block.open(options=described) as disk:
        name = disk.bs.filename  # type: ignore[union-attr]  # it is there
    assert name.endswith('"raw": {"driver": "file", "filename": "./c:d.raw"}}')
    with block.open(name) as disk:
        assert disk.length == 4096


@pytest.mark.usefixtures("files")
def test_a_part_of_a_file_needs_the_long_form_too_whatever_it_was_opened_by() -> None:
    part = 'json:{"driver": "raw", "size": 512, "file.driver": "file", "file.filename": "b.raw"}'
    with block.open(f"blkverify:a.raw:{part}", options={"driver": "blkverify"}) as disk:
        name = disk.bs.filename  # type: ignore[union-attr]  # it is there
    assert "x-" not in name
    with block.open(name) as disk:
        assert disk.length == 512


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("blkverify:a.raw", {}, "blkverify requires raw copy and original image path"),
        ("blkverify:nope:a.raw", {}, "Could not open 'nope': No such file or directory"),
        (
            None,
            {"driver": "blkverify", "raw.driver": "file", "raw.filename": "a.raw"},
            'A block device must be specified for "test"',
        ),
        (
            None,
            {"driver": "blkverify", "test.driver": "file", "test.filename": "a.raw"},
            'A block device must be specified for "raw"',
        ),
        (
            None,
            {"driver": "blkverify", "raw.filename": "a.raw", "test.filename": "b.raw"},
            "Must specify either driver or file",
        ),
    ],
)
def test_what_is_missing_is_named(
    name: str | None, options: dict[str, object], message: str
) -> None:
    with pytest.raises(BlockError) as error:
        block.open(name, options=options)
    assert str(error.value) == message


@pytest.mark.usefixtures("files")
def test_a_backing_file_cannot_be_relative_to_two_folders() -> None:
    from block.core.filename import node_dirname

    with (
        block.open("blkverify:a.raw:b.raw", options={"driver": "blkverify"}) as disk,
        pytest.raises(BlockError, match="Cannot generate a base directory for blkverify nodes"),
    ):
        node_dirname(disk.bs)  # type: ignore[arg-type]  # an open disk has a node
