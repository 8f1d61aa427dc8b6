# SPDX-License-Identifier: GPL-2.0-only
"""A blklogwrites node over two disks in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.open import bdrv_open
from block.ops.replay_log import ReplayLog
from tests.block.filters.conftest import iothread, main, nothing_left_behind
from tests.support.drivers import Disk, ZeroRam, backend_on, ram_node

__all__ = ["iothread", "main", "nothing_left_behind"]

SIZE = 1 << 20


class Logged:
    """A backend over blklogwrites; `disk` and `log` are what is below it."""

    def __init__(self, log: bytes = b"", **options: object) -> None:
        self.disk, self.log = Disk(SIZE), Disk(0)
        self.log.data[:] = log
        file, logged = ram_node(self.disk, driver=ZeroRam), ram_node(self.log)
        file.supported_write_flags |= f.REQ_FUA
        try:
            bs = bdrv_open(
                options={
                    "driver": "blklogwrites",
                    "file": file.node_name,
                    "log": logged.node_name,
                    "discard": "unmap",
                    **options,
                }
            )
        finally:
            file.unref()
            logged.unref()
        self.blk: BlockBackend = backend_on(bs)

    def replay_log(self) -> ReplayLog:
        """What a reader finds in the log now."""
        return ReplayLog(bytes(self.log.data))

    def entries(self) -> list[tuple[int, int, int]]:
        """(offset, nbytes, flags) of each entry."""
        return [(entry.offset, entry.nbytes, entry.flags) for entry in self.replay_log().entries]


@pytest.fixture
def logged() -> Iterator[Logged]:
    made = Logged()
    yield made
    made.disk.errors.clear()
    made.log.errors.clear()
    made.disk.release()
    made.log.release()
    made.blk.unref()
