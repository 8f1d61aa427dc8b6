# SPDX-License-Identifier: GPL-2.0-only
"""Salvage: what can be read is read, what cannot is zeroes and told, and that costs few reads."""

from __future__ import annotations

import errno

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from block.aio.world import the_world
from block.core.error import BlockError
from block.core.iov import Iov
from block.core.node import BlockDriverState
from block.core.wait import run_sync
from block.ops.salvage import co_salvage
from tests.support.drivers import Disk, Ram, backend_on, ram_node

SECTOR = 512
CLUSTER = 128  # sectors
LENGTH = 1000


class BadDisk(Disk):
    """The state of a BadRam: some sectors cannot be read."""

    def __init__(self, sectors: int, bad: set[int]) -> None:
        super().__init__(sectors * SECTOR)
        self.data[:] = b"".join(bytes([n % 255 + 1]) * SECTOR for n in range(sectors))
        self.bad = bad

    @property
    def reads(self) -> list[range]:
        """What was read, in sectors."""
        return [sectors(offset, nbytes) for _, offset, nbytes in self.asked("preadv")]


class BadRam(Ram):
    """Memory with bad sectors. Half of what a failed read was to bring may be there."""

    format_name = protocol_name = "bad-ram"

    async def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        await super().co_preadv(bs, offset, nbytes, qiov, flags)
        if not bs.opaque.bad.isdisjoint(sectors(offset, nbytes)):
            raise BlockError(errno.EIO)


def sectors(offset: int, nbytes: int) -> range:
    return range(offset // SECTOR, (offset + nbytes) // SECTOR)


def salvage(disk: BadDisk, first: int, count: int) -> tuple[bytearray, list[int]]:
    """What is read of so many sectors, and which are told to be bad."""
    told: list[int] = []

    def warn(offset: int, error: OSError) -> None:
        assert error.errno == errno.EIO
        told.append(offset // SECTOR)

    data = bytearray(b"?" * (count * SECTOR))
    with backend_on(ram_node(disk, "bad", BadRam)) as blk:
        view = memoryview(data)
        run_sync(the_world().main_context, lambda: co_salvage(blk, first * SECTOR, view, warn))
    return data, told


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, LENGTH - 1), st.integers(1, LENGTH), st.sets(st.integers(0, LENGTH), max_size=9)
)
def test_every_bad_sector_and_only_it_is_zeroes_and_told(
    first: int, count: int, bad: set[int]
) -> None:
    disk = BadDisk(LENGTH, bad)
    asked = range(first, min(first + count, LENGTH))
    data, told = salvage(disk, first, len(asked))
    for at, sector in enumerate(asked):
        is_bad = sector in bad
        expected = bytes(SECTOR) if is_bad else bytes([sector % 255 + 1]) * SECTOR
        assert data[at * SECTOR : (at + 1) * SECTOR] == expected
    assert told == sorted(bad.intersection(asked)), "in the order of the disk"
    assert len(disk.reads) <= 1 + len(told) * 4 * len(asked).bit_length()
    for read in disk.reads:
        for start in range(0, LENGTH, CLUSTER):
            cluster = set(range(start, start + CLUSTER)).intersection(asked)
            assert cluster.issubset(read) or cluster.isdisjoint(read) or cluster & bad


def test_one_bad_sector_of_two_mebibytes_costs_few_reads() -> None:
    disk = BadDisk(4096, {1234})
    assert salvage(disk, 0, 4096)[1] == [1234]
    assert len(disk.reads) == 25


def test_what_can_be_read_is_read_at_once() -> None:
    disk = BadDisk(4096, {5000})
    assert salvage(disk, 0, 4096) == (disk.data, [])
    assert disk.reads == [range(4096)]


def test_a_single_sector_is_not_tried_again() -> None:
    disk = BadDisk(8, {3})
    assert salvage(disk, 3, 1) == (bytes(SECTOR), [3])
    assert disk.reads == [range(3, 4)]
