# SPDX-License-Identifier: GPL-2.0-only
"""A node with a connection: it moves with requests in flight, and when the connection breaks."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.core.backend import BlockBackend
from block.core.open import blockdev_add
from block.core.wait import poll_while
from tests.conformance.cells import MOVES
from tests.conformance.run import run
from tests.conformance.samples import Sample
from tests.conformance.trees import TREES, Tree
from tests.support import request_reply
from tests.support.drivers import Outcome, backend_on
from tests.support.request_reply import Peer, connected_node


@pytest.fixture
def peer() -> Iterator[Peer]:
    """The server's side; the test says how it runs."""
    made = Peer()
    yield made
    made.die()


@pytest.fixture
def blk(peer: Peer) -> Iterator[BlockBackend]:
    """A backend over a node of it."""
    backend = backend_on(connected_node(peer))
    yield backend
    backend.unref()


def test_what_is_written_through_the_wire_is_read_back(peer: Peer, blk: BlockBackend) -> None:
    peer.start()
    blk.pwrite(1000, b"over the wire")
    assert blk.pread(1000, 13) == b"over the wire"
    assert peer.data[1000:1013] == b"over the wire"


def test_requests_longer_than_the_socket_takes_go_through(peer: Peer, blk: BlockBackend) -> None:
    peer.start()
    data = bytes(range(256)) * 4096
    blk.pwrite(0, data)
    assert blk.pread(0, 1 << 20) == data


def test_a_node_is_opened_by_options(main: AioContext) -> None:
    peer = Peer().serve_in(main)
    with request_reply.registered():
        bs = blockdev_add({"driver": "request-reply", "peer": peer.name, "node-name": "wire"})
    blk = backend_on(bs)
    blk.pwrite(0, b"x")
    assert peer.data[:1] == b"x"
    assert [r.kind for r in main.registrations(owner=bs)] == ["fd"]
    blk.unref()
    assert main.registrations(owner=bs) == []
    peer.die()


def test_a_move_waits_for_the_replies_and_takes_the_handler_along(
    peer: Peer, blk: BlockBackend, iothread: IOThread, main: AioContext
) -> None:
    peer.hold = True
    peer.serve_in(main)
    outcomes = [Outcome() for _ in range(4)]
    for number, outcome in enumerate(outcomes):
        blk.aio_pwritev(512 * number, [memoryview(bytearray(b"%d" % number))], outcome)
    poll_while(main, lambda: peer.requests < 4)
    assert all(outcome.pending for outcome in outcomes)
    main.bh_schedule_oneshot(peer.release)
    blk.set_aio_context(iothread.ctx)
    assert [outcome.ret for outcome in outcomes] == [0] * 4
    assert main.registrations(owner=blk.bs) == []
    with iothread.ctx:
        assert [r.kind for r in iothread.ctx.registrations(owner=blk.bs)] == ["fd"]
    blk.set_aio_context(main)
    assert blk.pread(512, 1) == b"1"


@pytest.mark.parametrize("where", ["main", "iothread"])
def test_a_broken_connection_ends_what_is_in_flight_and_still_moves(
    where: str, peer: Peer, blk: BlockBackend, iothread: IOThread, main: AioContext
) -> None:
    peer.hold = True
    peer.serve_in(main)
    ctx = {"main": main, "iothread": iothread.ctx}[where]
    blk.set_aio_context(ctx)
    outcomes = [Outcome() for _ in range(3)]
    with ctx:
        for outcome in outcomes:
            blk.aio_preadv(0, [memoryview(bytearray(512))], outcome)
    poll_while(main, lambda: peer.requests < 3)
    peer.die()
    elsewhere = main if where == "iothread" else iothread.ctx
    blk.set_aio_context(elsewhere)  # waits for those in flight
    assert [outcome.ret for outcome in outcomes] == [-errno.EIO] * 3
    assert [outcome.calls for outcome in outcomes] == [1] * 3
    with pytest.raises(OSError, match="The connection is broken"):
        blk.pread(0, 512)
    for left in (main, iothread.ctx):
        with left:
            assert left.registrations(owner=blk.bs) == []
    blk.set_aio_context(ctx)


@pytest.mark.parametrize("tree", [TREES[0], TREES[2]], ids=lambda tree: tree.name)
def test_a_connection_passes_the_conformance_suite(tree: Tree, tmp_path: Path) -> None:
    """As every registered driver with a connection will: three users, fifty moves."""
    peers: list[Peer] = []

    def options(folder: Path) -> dict[str, object]:
        peers.append(Peer().start())
        return {"driver": "request-reply", "peer": peers[-1].name}

    with request_reply.registered():
        result = run(Sample("request-reply", options), tree, MOVES, tmp_path)
    for peer in peers:
        peer.die()
    assert result.verdict == "passed"
    assert result.moves == MOVES
