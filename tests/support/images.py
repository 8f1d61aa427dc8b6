# SPDX-License-Identifier: GPL-2.0-only
"""A format with backing files that is written by hand, and drivers that are there for one test.

    with toy_format(): ...              the format 'toy' can be opened, and probed
    with registered_driver(Mine): ...   so can be a test's own driver, by its name

A toy image is b"TOYF", then the name of its backing file up to a newline, then the data
from byte 512 on; it holds nothing of its own but sectors that are not all zero.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path

from block.core import flags as f
from block.core import registry
from block.core.driver import BlockDriver
from block.core.iov import Iov
from block.core.node import BlockDriverState
from block.core.open import open_child

MAGIC = b"TOYF"


class ToyDriver(BlockDriver):
    """Reads its file from sector 1 on; where that is all zero, the backing file."""

    format_name = "toy"
    supports_backing = True

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        role = f.BDRV_CHILD_IMAGE
        bs.file = open_child(None, options, "file", bs, role)
        assert bs.file is not None
        header = bs.file.pread(0, 512)
        bs.backing_file = header[4 : header.index(b"\n")].decode()
        bs.auto_backing_file = bs.backing_file

    def getlength(self, bs: BlockDriverState) -> int:
        assert bs.file is not None
        return bs.file.bs.getlength() - 512

    def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        assert bs.file is not None
        return bs.file.co_preadv(offset + 512, nbytes, qiov, flags)


def write_toy(path: Path, backing: str = "", data: bytes = bytes(512)) -> Path:
    """Makes a toy image."""
    path.write_bytes((MAGIC + backing.encode() + b"\n").ljust(512, b"\0") + data)
    return path


@contextmanager
def registered(row: registry.Row) -> Iterator[None]:
    """A row is in the table for the length of a test."""
    registry.add_row(row)
    try:
        yield
    finally:
        registry.remove_row(row)


@contextmanager
def registered_driver(driver: type[BlockDriver]) -> Iterator[None]:
    """A driver of a test's can be opened by its name."""
    row = registry.Row(driver.format_name, driver.__module__, driver.__name__)
    row.driver = driver()
    with registered(row):
        yield


@contextmanager
def toy_format() -> Iterator[None]:
    """The format 'toy' is there for the length of a test."""
    row = registry.Row("toy", __name__, "ToyDriver", magic=((0, MAGIC, 100),))
    row.driver = ToyDriver()
    with registered(row):
        yield
