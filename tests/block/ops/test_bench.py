# SPDX-License-Identifier: GPL-2.0-only
"""What a benchmark sends: how many requests, how many at once, and the flushes between them."""

from __future__ import annotations

import pytest

import block
from block.core.accounting import FLUSH, READ, WRITE
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.ops.bench import Bench

SIZE = 64 << 10


class Watched(Bench):
    """Notes how many requests are in flight."""

    def __init__(self, blk: BlockBackend, count: int, depth: int) -> None:
        super().__init__(blk, count, depth, 4096)
        self.most = 0

    def _submit(self) -> None:
        super()._submit()
        self.most = max(self.most, self.in_flight)


@pytest.fixture
def disk() -> BlockBackend:
    return block.open(options={"driver": "null-co", "size": SIZE, "read-zeroes": True})


def test_as_many_requests_as_were_asked_for_and_no_more_at_once(disk: BlockBackend) -> None:
    with disk:
        bench = Watched(disk, 100, 7)
        bench.run()
        assert (disk.stats.nr_ops[READ], disk.stats.nr_ops[WRITE]) == (100, 0)
        assert disk.stats.nr_bytes[READ] == 100 * 4096
        assert bench.most == 7
        assert bench.offset == 100 * 4096 % SIZE


# Who does not wait for the last requests flushes after each of these five, as QEMU does.
@pytest.mark.parametrize(("drain", "flushes"), [(True, 4), (False, 3 + 5)])
def test_a_flush_after_every_so_many_writes(disk: BlockBackend, drain: bool, flushes: int) -> None:
    with disk:
        bench = Bench(disk, 20, 5, 4096)
        bench.writes, bench.flush_interval, bench.drain = True, 5, drain
        bench.run()
        disk.drain()
        assert disk.stats.nr_ops[WRITE] == 20
        assert disk.stats.nr_ops[FLUSH] == flushes


def test_a_request_that_fails_ends_it(disk: BlockBackend) -> None:
    with disk:
        bench = Bench(disk, 100, 2, 4096)
        bench.offset = SIZE - 2048
        with pytest.raises(BlockError, match="Failed request: Input/output error"):
            bench.run()
        assert not disk.in_flight
