# SPDX-License-Identifier: GPL-2.0-only
"""Trees in an IOThread that are drained and moved from the main loop, with requests in flight."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.core import drain
from block.core.backend import BlockBackend
from block.testing.world import DeterministicWorld
from tests.support.drivers import Disk, backend_on, pass_node, ram_node
from tests.support.exploring import Reader, in_a_thread, must_hold

pytestmark = pytest.mark.full
TREE = ("block.core", "tests.support.drivers")


def tree(world: DeterministicWorld) -> tuple[BlockBackend, Disk]:
    """A filter over a disk in memory, in the main loop."""
    disk = Disk(1 << 16)
    return backend_on(pass_node(ram_node(disk))), disk


@contextmanager
def tree_in_a_thread(world: DeterministicWorld, count: int) -> Iterator[tuple[Reader, Disk]]:
    """A tree in an IOThread, which is told to submit so many reads."""
    blk, disk = tree(world)
    reader = Reader(blk, count)
    with in_a_thread(world, reader) as iothread:
        iothread.ctx.bh_schedule_oneshot(reader.submit)
        yield reader, disk


def serve_all(ctx: AioContext) -> None:
    """Does what there is to do in a context, in its thread's stead."""
    with ctx:
        while ctx.poll(False):
            pass


def test_a_drained_section_waits_for_what_is_in_flight_and_lets_nothing_in() -> None:
    def scenario(world: DeterministicWorld) -> None:
        with tree_in_a_thread(world, 2) as (reader, disk):
            bs = reader.blk.bs
            assert bs is not None
            drain.drained_begin(bs)
            asked = len(disk.asked("preadv"))
            assert asked + reader.pending == 2, "drained, and something is in flight"
            serve_all(bs.aio_context)
            assert len(disk.asked("preadv")) == asked, "a request came into a drained section"
            drain.drained_end(bs)

    must_hold(scenario, watched=TREE)


def test_a_tree_moves_away_from_an_iothread_that_submits() -> None:
    def scenario(world: DeterministicWorld) -> None:
        with tree_in_a_thread(world, 1) as (reader, _):
            there = reader.blk.aio_context
            serve_all(there)
            reader.blk.set_aio_context(world.main_context)
            with there:
                assert not there.registrations(reader.blk.bs), "the tree has left something behind"

    must_hold(scenario, watched=TREE)


def test_a_tree_moves_to_an_iothread_with_requests_in_flight_and_back() -> None:
    def scenario(world: DeterministicWorld) -> None:
        with world.in_one_order():
            blk, disk = tree(world)
            reader = Reader(blk, 2)
            iothread = IOThread("io0", world)
        disk.parked = True
        reader.submit()
        world.main_context.bh_schedule_oneshot(disk.release)
        blk.set_aio_context(iothread.ctx)
        reader.wait(world)
        with world.in_one_order():
            iothread.close()
            reader.close(world)

    must_hold(scenario, preemptions=3, watched=TREE)


def test_a_tree_moves_from_one_iothread_to_another() -> None:
    def scenario(world: DeterministicWorld) -> None:
        with world.in_one_order():
            b = IOThread("b", world)
        with tree_in_a_thread(world, 1) as (reader, _):
            reader.blk.set_aio_context(b.ctx)
            assert reader.blk.aio_context is b.ctx
            with world.in_one_order():
                reader.wait(world)
                b.close()

    must_hold(scenario, watched=TREE)


def test_a_thread_that_finds_the_tree_at_home_keeps_it_there_until_its_callback_ends() -> None:
    """A move holds the old context until the tree is in the new one: there is no time between."""

    def scenario(world: DeterministicWorld) -> None:
        blk, _ = tree(world)
        reader = Reader(blk, 1)
        with IOThread("io0", world) as iothread:
            blk.set_aio_context(iothread.ctx)
            iothread.ctx.bh_schedule_oneshot(reader.submit)
            blk.set_aio_context(world.main_context)
        reader.finish(world)

    steps = ("tests.support.exploring",)
    must_hold(scenario, preemptions=3, watched=("block.aio", *TREE), steps=steps)


def test_a_thread_that_finds_a_tree_keeps_it_until_its_callback_ends() -> None:
    """To take the tree out, the context is held from the drain to the end."""

    def scenario(world: DeterministicWorld) -> None:
        blk, _ = tree(world)
        outcomes: list[int] = []

        def submit_if_there_is_a_tree() -> None:
            if blk.bs is not None:
                blk.aio_preadv(0, [memoryview(bytearray(512))], outcomes.append)

        with IOThread("io0", world) as iothread:
            blk.set_aio_context(iothread.ctx)
            iothread.ctx.bh_schedule_oneshot(submit_if_there_is_a_tree)
            blk.remove_bs()
            assert blk.in_flight == 0, "the tree is gone, and a request is in flight"
        blk.close()
        world.main_context.close()
        assert outcomes in ([], [0])

    steps = ("block.core.backend",)
    must_hold(scenario, preemptions=3, watched=("block.aio", *TREE), steps=steps)
