# SPDX-License-Identifier: GPL-2.0-only
"""A disk behind a connection (requests and replies, as NBD has them) in an IOThread, and moving."""

from __future__ import annotations

import pytest

from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.testing.world import DeterministicWorld
from tests.support.drivers import backend_on
from tests.support.exploring import Reader, in_a_thread, must_hold
from tests.support.request_reply import Peer, connected_node

pytestmark = pytest.mark.full
TREE = ("block.core", "tests.support.drivers", "tests.support.request_reply")


class Server:
    """The other side of the wire, in a fake thread with a context of its own."""

    def __init__(self, world: DeterministicWorld) -> None:
        self.peer = Peer(1 << 16)
        self.ctx = AioContext("server", world)
        self.ctx.disown()
        self._stopped = False
        self._thread = world.start_thread("server", self._run)

    def _run(self) -> None:
        with self.ctx as ctx:
            self.peer.serve_in(ctx)
            while not self._stopped:
                ctx.poll(True)
            self.peer.die()
            ctx.close()

    def _stop(self) -> None:
        self._stopped = True

    def stop(self) -> None:
        self.ctx.bh_schedule_oneshot(self._stop)
        self._thread.join()


def test_a_server_in_a_thread_of_its_own_answers_a_tree_that_moves() -> None:
    def scenario(world: DeterministicWorld) -> None:
        with world.in_one_order():
            server = Server(world)
            blk = backend_on(connected_node(server.peer))
            iothread = IOThread("io0", world)
        reader = Reader(blk, 1)
        reader.submit()
        blk.set_aio_context(iothread.ctx)
        blk.set_aio_context(world.main_context)
        reader.wait(world)
        with world.in_one_order():
            server.stop()
            iothread.close()
            reader.close(world)

    must_hold(scenario, preemptions=3, watched=TREE)


def test_a_connection_that_breaks_ends_every_request_once_wherever_the_tree_is() -> None:
    def scenario(world: DeterministicWorld) -> None:
        peer = Peer(1 << 16)
        peer.hold = True
        blk = backend_on(connected_node(peer))
        reader = Reader(blk, 2, ret=-5)
        with in_a_thread(world, reader) as iothread:
            iothread.ctx.bh_schedule_oneshot(reader.submit)
            iothread.ctx.bh_schedule_oneshot(peer.die)
            blk.set_aio_context(world.main_context)
            reader.wait(world)

    must_hold(scenario, watched=TREE)
