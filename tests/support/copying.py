# SPDX-License-Identifier: GPL-2.0-only
"""A chain of two nodes, of which the upper one keeps what it reads from the lower one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from block.core import edge
from block.core.backend import BlockBackend
from block.core.copy_on_read import enable_copy_on_read
from block.core.driver import BlockDriver
from block.core.wait import run_sync
from tests.support.drivers import Clusters, Disk, Overlay, backend_on, make_node, ram_node

LENGTH = 1 << 16
CLUSTER = 4096
BASE = bytes(n // 256 % 251 + 1 for n in range(LENGTH))  # no two clusters are alike


class Chain:
    """An overlay with copy-on-read over a disk in memory, and a backend on top."""

    def __init__(self, driver: type[BlockDriver] = Overlay) -> None:
        self.disk = Disk(LENGTH)
        self.disk.data[:] = BASE
        self.clusters = Clusters(LENGTH, CLUSTER)
        self.top = make_node(driver(), self.clusters)
        base = ram_node(self.disk)
        edge.set_backing_hd(self.top, base)
        base.unref()
        enable_copy_on_read(self.top)
        self.blk: BlockBackend = backend_on(self.top)

    @property
    def held(self) -> list[int]:
        """The numbers of the clusters that the overlay holds."""
        return sorted(self.clusters.held)

    def prefetch(self, offset: int, nbytes: int, flags: int) -> None:
        root = self.blk.root
        assert root is not None
        run_sync(self.top.aio_context, lambda: root.co_preadv(offset, nbytes, [], flags))


@pytest.fixture
def chain() -> Iterator[Chain]:
    made = Chain()
    yield made
    made.blk.unref()
