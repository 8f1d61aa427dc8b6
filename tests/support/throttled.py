# SPDX-License-Identifier: GPL-2.0-only
"""Throttled disks for tests: groups, nodes with the driver `throttle`, and who keeps them busy.

All of it runs in virtual time (tests/support/virtual_world.py): a minute of waiting takes the
milliseconds that its requests take.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from block.aio.context import AioContext
from block.aio.coroutine import Coroutine
from block.aio.world import ClockType, set_world
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.open import bdrv_open
from block.objects import throttle_group
from block.objects.throttle_bucket import READ, WRITE
from block.objects.throttle_group import ThrottleGroup, throttle_group_create
from block.objects.throttle_member import ThrottleGroupMember
from block.objects.throttle_options import config_of
from tests.support.drivers import Outcome, backend_on
from tests.support.virtual_world import VirtualWorld

SECOND_NS = 1_000_000_000
PERM = f.BLK_PERM_CONSISTENT_READ | f.BLK_PERM_WRITE


@contextmanager
def virtual_world() -> Iterator[VirtualWorld]:
    """The process's World is a virtual one meanwhile; no group may be left behind."""
    world = VirtualWorld()
    before = set_world(world)
    try:
        yield world
        assert throttle_group.groups == {}, "a group is left behind"
        world.main_context.close()
    finally:
        set_world(before)


@pytest.fixture(autouse=True)
def world() -> Iterator[VirtualWorld]:
    """The virtual World, in each test of a file that imports this."""
    with virtual_world() as virtual:
        yield virtual


@pytest.fixture
def main(world: VirtualWorld) -> AioContext:
    """Its main loop."""
    return world.main_context


@contextmanager
def group(name: str = "slow", **limits: int) -> Iterator[ThrottleGroup]:
    """An object throttle-group; `iops_total=10` is the limit iops-total."""
    made = throttle_group_create(
        name, config_of({key.replace("_", "-"): value for key, value in limits.items()})
    )
    try:
        yield made
    finally:
        made.unref()


def throttled(group: str = "slow", **options: object) -> BlockBackend:
    """A backend on a throttle node over a disk of a gibibyte that forgets."""
    bs = bdrv_open(
        options={
            "driver": "throttle",
            "throttle-group": group,
            "discard": "unmap",
            "file": {"driver": "null-co", **options},
        }
    )
    return backend_on(bs, PERM)


def member_of(blk: BlockBackend) -> ThrottleGroupMember:
    """The part in its group of a backend's throttle node."""
    assert blk.bs is not None
    member: ThrottleGroupMember = blk.bs.opaque
    return member


def now_ns(blk: BlockBackend) -> int:
    """What the clock of throttling says where a disk lives."""
    return blk.aio_context.clock_ns(ClockType.REALTIME)


def submit(disk: BlockBackend, count: int) -> list[Outcome]:
    """Reads, each of them counted once; in the thread at home in the disk's context."""
    outcomes = [Outcome() for _ in range(count)]
    for outcome in outcomes:
        disk.aio_preadv(0, [memoryview(bytearray(512))], outcome)
    return outcomes


def submit_both(disk: BlockBackend, count: int) -> list[Outcome]:
    """Reads and writes by turns."""
    outcomes = [Outcome() for _ in range(count)]
    for number, outcome in enumerate(outcomes):
        submit = disk.aio_pwritev if number % 2 else disk.aio_preadv
        submit(0, [memoryview(bytearray(512))], outcome)
    return outcomes


def rets(outcomes: list[Outcome]) -> set[int | None]:
    """What callbacks got, None for those that have not come; none comes twice."""
    assert {outcome.calls for outcome in outcomes} <= {0, 1}
    return {outcome.ret for outcome in outcomes}


class Load:
    """Requests one after the other, as fast as the disk lets them, for some seconds.

    `done` counts those that are through by then, `times` are the nanoseconds that they ended at.
    """

    def __init__(
        self, blk: BlockBackend, seconds: float, direction: int = READ, nbytes: int = 4096
    ) -> None:
        self.blk = blk
        self.began_ns = now_ns(blk)
        self.seconds = seconds
        self.direction = direction
        self.nbytes = nbytes
        self.over = False
        self.times: list[int] = []
        blk.aio_context.co_enter(Coroutine(self._run()))

    async def _run(self) -> None:
        buffer = memoryview(bytearray(self.nbytes))
        while True:
            if self.direction == WRITE:
                await self.blk.co_pwritev(0, self.nbytes, [buffer])
            else:
                await self.blk.co_preadv(0, self.nbytes, [buffer])
            now = now_ns(self.blk) - self.began_ns
            if now >= self.seconds * SECOND_NS:
                break
            self.times.append(now)
        self.over = True

    @property
    def done(self) -> int:
        """How many requests are through."""
        return len(self.times)

    def done_by(self, seconds: float) -> int:
        """How many were through after that time."""
        return sum(when <= seconds * SECOND_NS for when in self.times)


def run(ctx: AioContext, *loads: Load) -> None:
    """Lets loads run to their end in a loop."""
    while not all(load.over for load in loads):
        ctx.poll(True)
