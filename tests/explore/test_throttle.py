# SPDX-License-Identifier: GPL-2.0-only
"""Throttled disks that move, and a group whose disks are served by two threads."""

from __future__ import annotations

import pytest

from block.testing.world import DeterministicWorld
from tests.support.exploring import Reader, in_a_thread, must_hold
from tests.support.throttled import group, throttled

pytestmark = pytest.mark.full
TREE = ("block.core", "block.objects", "block.filters.throttle", "block.protocols.null",
        "tests.support.drivers")  # fmt: skip
GROUP = ("block.aio", "block.objects.throttle_group", "block.objects.throttle_member")


def test_a_tree_moves_with_requests_in_the_throttles_queue() -> None:
    def scenario(world: DeterministicWorld) -> None:
        with group(iops_total=1):
            reader = Reader(throttled(), 3)
            with in_a_thread(world, reader) as iothread:
                iothread.ctx.bh_schedule_oneshot(reader.submit)
                reader.wait(world)

    must_hold(scenario, watched=TREE)


def test_two_threads_share_a_group_and_every_request_gets_its_turn() -> None:
    def scenario(world: DeterministicWorld) -> None:
        with group(iops_total=1):
            here, there = Reader(throttled(), 2), Reader(throttled(), 2)
            with in_a_thread(world, there) as iothread:
                iothread.ctx.bh_schedule_oneshot(there.submit)
                here.submit()
                while here.pending:
                    world.main_context.poll(True)
                there.wait(world)
                here.blk.close()

    must_hold(scenario, watched=TREE, steps=GROUP)
