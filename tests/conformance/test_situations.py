# SPDX-License-Identifier: GPL-2.0-only
"""Moves at an awkward moment, one at a time: what the runs under load meet by chance."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.core.backend import BlockBackend
from block.core.open import blockdev_add
from block.core.wait import poll_while
from block.objects.throttle_group import throttle_group_create
from block.objects.throttle_options import config_of
from tests.conformance.cells import samples
from tests.conformance.findings import Audit
from tests.conformance.samples import Sample
from tests.support.drivers import Outcome, backend_on
from tests.support.request_reply import Peer, connected_node

each_sample = pytest.mark.parametrize("sample", samples().values(), ids=lambda each: each.driver)


@contextmanager
def opened(sample: Sample, folder: Path) -> Iterator[BlockBackend]:
    """A backend over a node of a driver, in the main loop."""
    sample.require(folder)
    blk = backend_on(blockdev_add({**sample.options(folder), "node-name": "tested"}))
    try:
        yield blk
    finally:
        blk.unref()
        sample.close()


def left_behind(blk: BlockBackend, ctx: AioContext, *others: AioContext) -> list[str]:
    """Returns what the other contexts hold of a tree that lives in `ctx`."""
    assert blk.bs is not None
    found = Audit([ctx, *others], [blk.bs]).leftovers(ctx)
    return [str(each) for each in found if each.driver != "?"]


@each_sample
def test_a_node_that_goes_and_comes_back_is_as_it_was(
    sample: Sample, tmp_path: Path, iothread: IOThread, main: AioContext
) -> None:
    with opened(sample, tmp_path) as blk:
        blk.pwrite(0, b"before")
        held = sorted(each.kind for each in main.registrations(owner=blk.bs))
        for _ in range(3):
            blk.set_aio_context(iothread.ctx)
            assert left_behind(blk, iothread.ctx, main) == []
            blk.set_aio_context(main)
            assert left_behind(blk, main, iothread.ctx) == []
        again = sorted(each.kind for each in main.registrations(owner=blk.bs))
        assert [kind for kind in again if kind != "bh"] == [kind for kind in held if kind != "bh"]
        if sample.keeps_data:
            assert blk.pread(0, 6) == b"before"


@each_sample
def test_a_node_is_closed_while_it_is_elsewhere(
    sample: Sample, tmp_path: Path, iothread: IOThread, main: AioContext
) -> None:
    outcomes = [Outcome() for _ in range(4)]
    with opened(sample, tmp_path) as blk:
        bs = blk.bs
        blk.set_aio_context(iothread.ctx)
        with iothread.ctx:
            for number, outcome in enumerate(outcomes):
                blk.aio_pwritev(4096 * number, [memoryview(bytes(4096))], outcome)
    assert [outcome.ret for outcome in outcomes] == [0] * 4
    for ctx in (main, iothread.ctx):
        with ctx:
            assert ctx.registrations(owner=bs) == []
            assert not ctx.external_disabled


def test_a_throttled_queue_is_let_go_by_the_move(
    tmp_path: Path, iothread: IOThread, main: AioContext
) -> None:
    """One request a second: the drained section does not wait for that."""
    group = throttle_group_create("slow", config_of({"iops-total": 1, "iops-total-max": 1}))
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    below = {"driver": "file", "filename": str(tmp_path / "disk")}
    options = {"driver": "throttle", "throttle-group": "slow", "file": below}
    blk = backend_on(blockdev_add({**options, "node-name": "throttled"}))
    outcomes = [Outcome() for _ in range(10)]
    for number, outcome in enumerate(outcomes):
        blk.aio_pwritev(4096 * number, [memoryview(bytes([number]) * 4096)], outcome)
    assert sum(outcome.pending for outcome in outcomes) == 10
    blk.set_aio_context(iothread.ctx)
    assert [(outcome.ret, outcome.calls) for outcome in outcomes] == [(0, 1)] * 10
    assert left_behind(blk, iothread.ctx, main) == []
    blk.set_aio_context(main)
    assert (tmp_path / "disk").read_bytes()[4096 * 9] == 9
    blk.unref()
    group.unref()


def test_replies_that_come_during_the_move_end_their_requests(
    iothread: IOThread, main: AioContext
) -> None:
    """The peer answers in a thread of its own, while the main thread drains an IOThread's node."""
    peer = Peer().start()
    blk = backend_on(connected_node(peer))
    calls: list[tuple[int, int]] = []
    for turn in range(50):
        ctx = (main, iothread.ctx)[turn % 2]
        blk.set_aio_context(ctx)
        with ctx:
            for number in range(8):
                blk.aio_pwritev(
                    512 * number,
                    [memoryview(bytes(512))],
                    lambda ret, turn=turn: calls.append((turn, ret)),  # type: ignore[misc]  # a lambda's default
                )
    blk.set_aio_context(main)
    poll_while(main, lambda: len(calls) < 400)
    assert calls == [(turn, 0) for turn in range(50) for _ in range(8)]
    blk.unref()
    peer.die()
    assert not [t for t in threading.enumerate() if t.name == peer.name]


def test_a_chain_of_200_images_moves_and_is_used_in_an_iothread(
    tmp_path: Path, iothread: IOThread, main: AioContext
) -> None:
    """Its requests need a deep stack, in the IOThread's own thread, too."""
    (tmp_path / "disk").write_bytes(bytes(1 << 16))
    options: dict[str, object] = {"driver": "file", "filename": str(tmp_path / "disk")}
    for _ in range(198):
        options = {"driver": "raw", "file": options}
    blk = backend_on(blockdev_add({"driver": "raw", "node-name": "top", "file": options}))
    written, read, buffer = Outcome(), Outcome(), bytearray(4096)

    def use() -> None:
        blk.aio_pwritev(1000, [memoryview(b"deep")], written)
        blk.aio_preadv(8192, [memoryview(buffer)], read)

    blk.set_aio_context(iothread.ctx)
    iothread.ctx.bh_schedule_oneshot(use)
    poll_while(main, lambda: waking(iothread, main, written, read))
    blk.set_aio_context(main)
    assert (written.ret, read.ret) == (0, 0)
    assert blk.pread(1000, 4) == b"deep"
    blk.unref()


def waking(iothread: IOThread, main: AioContext, *outcomes: Outcome) -> bool:
    """Says whether outcomes are pending, and has the main loop look again after the IOThread."""
    if not any(outcome.pending for outcome in outcomes):
        return False
    iothread.ctx.bh_schedule_oneshot(main.notify)
    return True


def test_a_chain_of_201_images_is_refused_by_name(tmp_path: Path) -> None:
    options: dict[str, object] = {"driver": "null-co"}
    for _ in range(199):
        options = {"driver": "raw", "file": options}
    bottom = blockdev_add({**options, "node-name": "below"})
    with pytest.raises(OSError, match="The chain would be 201 nodes deep; at most 200 are supp"):
        blockdev_add({"driver": "raw", "node-name": "over", "file": "below"})
    bottom.unref()
