# SPDX-License-Identifier: GPL-2.0-only
"""Raw images and their locks, ours beside the real QEMU's."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import block
from block.core import flags as f
from tests.support import needs
from tests.support.qemu_tools import qemu, qemu_done

SIZE = 4 << 20
PAGE = 4096


def succeeds(program: str, *words: str | Path) -> str:
    """As qemu_done, of qemu-io as well, which goes on after a failure."""
    said = qemu_done(program, *words)
    assert "failed" not in said, said
    return said


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    block.create(os.fspath(path), "raw", SIZE)
    return path


@contextmanager
def ours(path: Path, **how: Any) -> Iterator[Any]:
    disk = block.open(os.fspath(path), format="raw", **how)
    try:
        yield disk
    finally:
        disk.close()


def random_ranges(seed: int, count: int) -> Iterator[tuple[random.Random, int, int]]:
    """Ranges within the image; odd ones too."""
    source = random.Random(seed)
    for _ in range(count):
        offset = source.randrange(SIZE)
        length = min(source.choice((1, 511, 512, PAGE, 3 * PAGE, 65537, 200000)), SIZE - offset)
        yield source, offset, length


# -- data


@pytest.mark.parametrize("cache", ["writeback", "none", "unsafe", "directsync"])
def test_what_we_write_qemu_finds_equal(image: Path, tmp_path: Path, cache: str) -> None:
    model = bytearray(SIZE)
    with ours(image, cache=cache, options={"discard": "unmap"}) as disk:
        for source, offset, length in random_ranges(1, 150):
            what = source.randrange(4)
            if what < 2:
                data = source.randbytes(length)
                disk.pwrite(offset, data)
            elif what == 2:
                data = bytes(length)
                disk.pwrite_zeroes(offset, length, source.choice((0, f.REQ_MAY_UNMAP)))
            else:
                offset, length = offset // PAGE * PAGE, PAGE * 4
                length = min(length, SIZE - offset)
                data = bytes(length)
                disk.pdiscard(offset, length)
            model[offset : offset + length] = data
        assert disk.pread(0, SIZE) == model
    reference = tmp_path / "reference.img"
    reference.write_bytes(model)
    said = succeeds("qemu-img", "compare", "-f", "raw", "-F", "raw", image, reference)
    assert said == "Images are identical.\n"


def test_what_qemu_writes_we_read(image: Path) -> None:
    model = bytearray(SIZE)
    commands: list[str] = []
    for source, offset, length in random_ranges(2, 60):
        pattern = source.randrange(256)
        zero = source.randrange(3) == 0
        commands += ["-c", f"write {'-z' if zero else f'-P {pattern}'} {offset} {length}"]
        model[offset : offset + length] = bytes([0 if zero else pattern]) * length
    succeeds("qemu-io", "-f", "raw", *commands, image)
    with ours(image, read_only=True) as disk:
        assert disk.pread(0, SIZE) == model


def test_qemu_verifies_our_patterns(image: Path) -> None:
    with ours(image) as disk:
        disk.pwrite(0, b"\x11" * 65536)
        disk.pwrite(100000, b"\x22" * 1000)
    commands = ["-c", "read -P 0x11 0 65536", "-c", "read -P 0x22 100000 1000"]
    said = succeeds("qemu-io", "-f", "raw", *commands, "-c", "read -P 0 65536 4096", image)
    assert "Pattern verification" not in said


def test_a_sparse_file_has_the_same_map_here_and_there(image: Path) -> None:
    with image.open("r+b") as held:
        for offset, length in [(0, 8192), (1 << 20, 4096), ((2 << 20) + 65536, 65536)]:
            held.seek(offset)
            held.write(b"x" * length)
        os.fsync(held)
    theirs = json.loads(succeeds("qemu-img", "map", "--output=json", "-f", "raw", image))
    mine = []
    with ours(image, read_only=True) as disk:
        offset = 0
        while offset < SIZE:
            found, length, where, _ = disk.bs.block_status(offset, SIZE - offset)
            mine.append((offset, length, bool(found & f.BDRV_BLOCK_DATA),
                         bool(found & f.BDRV_BLOCK_ZERO), where))  # fmt: skip
            offset += length
    assert mine == [(e["start"], e["length"], e["data"], e["zero"], e["offset"]) for e in theirs]


@pytest.mark.parametrize("mode", ["off", "falloc", "full"])
def test_creation_makes_what_qemu_makes(tmp_path: Path, mode: str) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    block.create(os.fspath(mine), "raw", "1M", preallocation=mode)
    succeeds("qemu-img", "create", "-f", "raw", "-o", f"preallocation={mode}", theirs, "1M")
    assert mine.stat().st_size == theirs.stat().st_size
    assert mine.stat().st_blocks == theirs.stat().st_blocks


# -- messages


@pytest.mark.parametrize(
    "options",
    [
        "driver=nosuch",
        "driver=file",
        "driver=raw",
        "driver=raw,file=nosuch",
        "driver=file,filename=nosuch.img",
        "driver=file,filename=a.img,foo=1",
        "driver=raw,file.filename=a.img,foo=1",
        "driver=raw,file.filename=a.img,file.foo=1",
        "driver=raw,file.filename=a.img,cache.direct=maybe",
        "driver=raw,file.filename=a.img,size=xx",
        "driver=raw,file.filename=a.img,discard=xx",
        "driver=file,filename=a.img,aio=native",
        "driver=raw,file.filename=a.img,node-name=1x",
        "driver=raw,file.filename=a.img,detect-zeroes=unmap",
        "driver=file,filename=.",
        "driver=raw,file.filename=nosuch:x",
        "driver=raw,file.driver=file,file.filename=file:a.img",
    ],
)
def test_a_refusal_has_qemus_words(
    image: Path, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    from block.core.keyval import parse_opts

    monkeypatch.chdir(image.parent)
    theirs = qemu("qemu-img", "info", "-U", "--image-opts", options).stderr
    with pytest.raises(block.BlockError) as caught:
        block.open(options=parse_opts(options), read_only=True).close()
    assert str(caught.value) == theirs.splitlines()[0].split(f"'{options}': ")[-1].removeprefix(
        "qemu-img: "
    )


@pytest.mark.parametrize("name", ["nosuch.img", "nosuch:x", "json:[]", "file:nosuch", "."])
def test_a_bad_name_is_refused_in_qemus_words(
    image: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(image.parent)
    theirs = qemu("qemu-img", "info", name).stderr
    with pytest.raises(block.BlockError) as caught:
        block.open(name, read_only=True).close()
    assert theirs == f"qemu-img: Could not open '{name}': {caught.value}\n"


# -- locks


@contextmanager
def qemu_machine(path: Path) -> Iterator[None]:
    """A running virtual machine of QEMU's that has the image as its disk, alone."""
    words = ["-M", "microvm", "-accel", "tcg", "-nodefaults", "-display", "none", "-qmp", "stdio"]
    drive = ["-drive", f"file={path},format=raw,if=none,id=d"]
    command = [needs.program("qemu-system-x86_64"), *words, *drive]
    command += ["-device", "virtio-blk-device,drive=d"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert b"QMP" in process.stdout.readline()
        # The answer shows that the machine runs: before, the disk is not locked.
        process.stdin.write(b'{"execute": "qmp_capabilities"}\n')
        process.stdin.flush()
        assert b"return" in process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def test_an_image_in_a_machine_of_qemus_is_refused_with_qemus_words(image: Path) -> None:
    with qemu_machine(image):
        for attempt in (
            lambda: block.open(os.fspath(image), format="raw"),
            lambda: block.create(os.fspath(image), "raw", SIZE),
        ):
            with pytest.raises(block.BlockError) as caught:
                attempt()
            theirs = qemu("qemu-io", "-f", "raw", "-c", "quit", image).stderr
            hint = f"Is another process using the image [{image}]?"
            assert (str(caught.value), caught.value.hint) == ('Failed to get "write" lock', hint)
            assert theirs == f"qemu-io: can't open device {image}: {caught.value}\n{hint}\n"
        with ours(image, read_only=True) as disk:
            assert disk.pread(0, 1) == b"\0"
    with ours(image) as disk:
        disk.pwrite(0, b"x")


def test_an_image_that_we_write_is_refused_by_qemu(image: Path) -> None:
    with ours(image):
        refused = qemu("qemu-io", "-f", "raw", "-c", "quit", image)
        assert 'Failed to get "write" lock' in refused.stderr
        assert f"Is another process using the image [{image}]?" in refused.stderr
        refused = qemu("qemu-img", "resize", "-f", "raw", image, "8M")
        assert refused.returncode == 1
        assert 'Failed to get "write" lock' in refused.stderr
        succeeds("qemu-io", "-r", "-f", "raw", "-c", "read 0 512", image)
    succeeds("qemu-io", "-f", "raw", "-c", "write 0 512", image)


def test_readers_of_both_sides_share(image: Path) -> None:
    with ours(image, read_only=True):
        succeeds("qemu-io", "-r", "-f", "raw", "-c", "read 0 512", image)
        succeeds("qemu-img", "info", image)
    command = [needs.program("qemu-io"), "-r", "-f", "raw", os.fspath(image)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"read 0 512\n")
        process.stdin.flush()
        # The answer shows that the image is open.
        assert b"512" in process.stdout.readline()
        with ours(image, read_only=True) as disk:
            assert disk.pread(0, 1) == b"\0"
        process.stdin.close()


def test_locks_of_both_kinds_of_writers_lie_on_the_same_bytes(image: Path) -> None:
    from block.protocols.file import locks

    def locked() -> list[int]:
        fd = os.open(image, os.O_RDWR)
        try:
            return [n for n in range(90, 220) if locks.is_locked_by_others(fd, n)]
        finally:
            os.close(fd)

    with qemu_machine(image):
        theirs = locked()
    with block.open(
        options={"driver": "raw", "file": {"driver": "file", "filename": os.fspath(image)}}
    ) as disk:
        # What a virtio-blk device does and shares.
        perm = f.BLK_PERM_CONSISTENT_READ | f.BLK_PERM_WRITE
        disk.set_perm(perm, f.BLK_PERM_ALL & ~f.BLK_PERM_WRITE)
        mine = locked()
    assert mine == theirs
