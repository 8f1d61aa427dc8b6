# SPDX-License-Identifier: GPL-2.0-only
"""A device whose rings are looked at: the driver need not ring, and nothing is lost by it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.aio.poll_window import Trial
from miniqemu.hw.virtio import F_EVENT_IDX
from miniqemu.hw.virtio_blk_layout import S_OK, T_IN, T_OUT
from tests.support.drivers import Disk, FastRam, backend_on, ram_node
from tests.support.ring_driver import Buffer
from tests.support.virtio_rig import Rig, rig

MAX_NS = 2_000_000_000


class Yes(Trial):
    """Looking pays, whatever happens."""

    def __init__(self) -> None:
        super().__init__()
        self.looking = True

    def note(self, ns: int, work: int) -> None:
        pass


def look_always(ctx: AioContext) -> None:
    ctx.set_poll_params(MAX_NS, shrink=1)
    ctx.polling.window.ns = MAX_NS
    ctx.polling.trial = Yes()


@pytest.fixture(params=[True, False], ids=["event-idx", "flags"])
def bench(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """A started device on a loop that looks, after its first request."""
    with rig() as made:
        look_always(made.ctx)
        made.driver.start(F_EVENT_IDX if request.param else 0, num=16)
        made.request(T_IN, into=512)
        assert made.ctx.polling.active
        yield made
        made.ctx.polling.end()
        made.ctx.set_poll_params(0)


def add(bench: Rig) -> list[Buffer]:
    """A request that nobody announces."""
    chain = bench.chain(T_IN, into=512)
    bench.driver.queues[0].submit(chain)
    return chain


def done(bench: Rig, chain: list[Buffer]) -> bool:
    return bench.status_of(chain) == S_OK


def begin_to_look(bench: Rig) -> None:
    """Leaves the loop between two looks, with an empty ring."""
    bench.ctx.bh_schedule_oneshot(lambda: None)
    bench.ctx.poll(False)
    bench.ctx.polling.begin()


def test_a_request_is_seen_without_a_doorbell(bench: Rig) -> None:
    chain = add(bench)
    while not done(bench, chain):
        bench.ctx.poll(True)


def test_while_the_ring_is_looked_at_the_driver_need_not_ring(bench: Rig) -> None:
    begin_to_look(bench)
    ring = bench.driver.queues[0]
    for _ in range(20):
        old = ring.avail_idx
        chain = add(bench)
        assert not ring.must_kick(old)
        while not done(bench, chain):
            bench.ctx.poll(False)
        ring.reap()


def test_before_the_loop_sleeps_the_driver_must_ring_again(bench: Rig) -> None:
    begin_to_look(bench)
    ring = bench.driver.queues[0]
    old = ring.avail_idx
    bench.ctx.polling.end()
    add(bench)
    assert ring.must_kick(old)


def test_what_the_driver_added_before_it_could_know_is_found(bench: Rig) -> None:
    begin_to_look(bench)
    chain = add(bench)
    bench.ctx.polling.end()
    bench.ctx.set_poll_params(0)
    bench.run_until(lambda: done(bench, chain))


def test_a_drained_section_leaves_it_in_the_ring(bench: Rig) -> None:
    begin_to_look(bench)
    bench.ctx.disable_external()
    bench.device.drained_begin()
    chain = add(bench)
    bench.run()
    assert not done(bench, chain)
    bench.device.drained_end()
    bench.ctx.enable_external()
    bench.run_until(lambda: done(bench, chain))


def test_a_device_that_takes_nothing_is_not_found_busy(bench: Rig) -> None:
    begin_to_look(bench)
    bench.device.drained_begin()
    chain = add(bench)
    assert not bench.ctx.polling.look()
    bench.device.drained_end()
    assert bench.ctx.polling.look()
    bench.run_until(lambda: done(bench, chain))


def test_a_broken_ring_is_looked_at_in_vain(bench: Rig) -> None:
    begin_to_look(bench)
    bench.driver.queues[0].set_avail_idx(1000)
    while not bench.device.broken:
        bench.ctx.poll(False)
    assert not bench.ctx.polling.look()


def test_after_a_reset_nobody_looks(bench: Rig) -> None:
    begin_to_look(bench)
    bench.transport.reset()
    assert not bench.ctx.polling.active


def test_starting_again_finds_what_came_meanwhile(bench: Rig) -> None:
    begin_to_look(bench)
    bench.transport.vm_state_changed(False)
    assert not bench.ctx.polling.active
    chain = add(bench)
    bench.transport.vm_state_changed(True)
    bench.run_until(lambda: done(bench, chain))


def test_with_an_iothread_that_looks_no_request_is_lost() -> None:
    """It rings when it is asked to; some of the requests meet the loop on its way to sleep."""
    with IOThread("looking", poll_max_ns=100_000) as iothread:
        backend = backend_on(ram_node(Disk(), "", FastRam))
        plane = Rig(backend, iothread=iothread)
        with iothread.ctx:
            iothread.ctx.polling.trial = Yes()
        plane.driver.start(num=64)
        ring = plane.driver.queues[0]
        for n in range(300):
            old = ring.avail_idx
            chain = plane.chain(T_OUT, n, out=bytes([n & 255]) * 512)
            ring.submit(chain, indirect=True)
            if ring.must_kick(old):
                plane.driver.kick()
            plane.run_until(lambda: plane.status_of(chain) == S_OK)  # noqa: B023  # run in its turn of the loop
            ring.reap()
        plane.close()
        backend.close()
