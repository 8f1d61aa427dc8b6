# SPDX-License-Identifier: GPL-2.0-only
"""aio=native and aio=io_uring beside the real QEMU's: what one writes, the other finds."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import block
from tests.interop.test_raw_with_qemu import SIZE, ours, random_ranges, succeeds
from tests.support import needs
from tests.support.qemu_tools import qemu

ENGINES = [("native", "none"), ("io_uring", "none"), ("io_uring", "writeback")]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    block.create(os.fspath(path), "raw", SIZE)
    return path


@pytest.mark.parametrize(("aio", "cache"), ENGINES)
def test_what_we_write_qemu_finds_equal(image: Path, tmp_path: Path, aio: str, cache: str) -> None:
    needs.engine(aio)
    model = bytearray(SIZE)
    with ours(image, cache=cache, options={"file": {"aio": aio}}) as disk:
        for source, offset, length in random_ranges(3, 100):
            data = source.randbytes(length)
            disk.pwrite(offset, data)
            model[offset : offset + length] = data
            if source.random() < 0.1:
                disk.flush()
        assert disk.pread(0, SIZE) == model
    reference = tmp_path / "reference.img"
    reference.write_bytes(model)
    succeeds("qemu-img", "compare", "-f", "raw", "-F", "raw", image, reference)


@pytest.mark.parametrize(("aio", "cache"), ENGINES)
def test_what_qemu_io_writes_we_read(image: Path, aio: str, cache: str) -> None:
    needs.engine(aio)
    source = random.Random(5)
    model = bytearray(SIZE)
    commands = []
    for _ in range(20):
        page, letter = source.randrange(SIZE // 4096), source.randrange(256)
        model[page * 4096 : (page + 1) * 4096] = bytes([letter]) * 4096
        commands += ["-c", f"aio_write -P {letter} {page * 4096} 4k"]
    commands += ["-c", "aio_flush"]
    succeeds("qemu-io", "-f", "raw", "-i", aio, "-t", cache, *commands, image)
    with ours(image, read_only=True, cache=cache, options={"file": {"aio": aio}}) as disk:
        assert disk.pread(0, SIZE) == model


def test_native_without_o_direct_is_refused_in_qemus_words(image: Path) -> None:
    theirs = qemu("qemu-img", "info", "--image-opts", f"driver=file,filename={image},aio=native")
    with pytest.raises(block.BlockError) as caught:
        block.open(options={"driver": "file", "filename": os.fspath(image), "aio": "native"})
    assert theirs.stderr.rstrip().endswith(str(caught.value))
