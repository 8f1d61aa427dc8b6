# SPDX-License-Identifier: GPL-2.0-only
"""A device's start, stop and reset while its IOThread serves requests."""

from __future__ import annotations

from contextlib import suppress

import pytest

from block.aio.iothread import IOThread
from block.aio.poller import READ
from block.testing.world import DeterministicWorld
from miniqemu.hw import virtio_mmio as mmio
from miniqemu.hw.virtio_blk_layout import S_OK, T_IN
from tests.support.drivers import Disk, backend_on, ram_node
from tests.support.exploring import must_hold
from tests.support.virtio_rig import Rig

pytestmark = pytest.mark.full
MACHINE = ("block.core", "miniqemu.hw", "miniqemu.machine", "tests.support.drivers",
           "tests.support.ring_driver", "tests.support.virtio_rig")  # fmt: skip


class Bench:
    """A device that an IOThread serves, its driver, and a request; built up in one order."""

    def __init__(self, world: DeterministicWorld) -> None:
        with world.in_one_order():
            self.world = world
            self.iothread = IOThread("plane", world, poll_max_ns=0)
            self.blk = backend_on(ram_node(Disk(1 << 16)))
            self.rig = Rig(self.blk, iothread=self.iothread)
            self.ring = self.rig.driver.start(num=8)

    def submit(self) -> list[tuple[int, int, bool]]:
        chain = self.rig.chain(T_IN, 0, into=512)
        self.rig.driver.queues[0].submit(chain)
        self.rig.driver.kick()
        return chain

    def close(self) -> None:
        """Clears it away, in one order."""
        with self.world.in_one_order():
            with suppress(BufferError):  # the search keeps views of the memory until the run ends
                self.rig.close()
            self.blk.close()
            self.iothread.close()
            self.world.main_context.close()


def test_a_request_beside_start_and_reset_is_served_once_or_not_at_all() -> None:
    def scenario(world: DeterministicWorld) -> None:
        bench = Bench(world)
        chain = bench.submit()
        bench.rig.driver.set_reg(mmio.STATUS, 0)
        assert bench.blk.aio_context is world.main_context
        assert bench.blk.in_flight == 0
        with bench.iothread.ctx as ctx:
            assert not ctx.registrations(bench.rig.device), "the device listens in the IOThread yet"
        answered = bench.rig.status_of(chain) == S_OK
        assert answered or bench.rig.status_of(chain) == 0xFF
        assert len(bench.ring.reap()) == answered
        bench.close()

    must_hold(scenario, watched=MACHINE)


def test_a_doorbell_that_rings_beside_stop_and_start_is_heard() -> None:
    def scenario(world: DeterministicWorld) -> None:
        bench = Bench(world)
        chain = bench.submit()
        bench.rig.transport.vm_state_changed(False)
        assert bench.blk.in_flight == 0
        bench.rig.transport.vm_state_changed(True)
        served = world.new_poller()
        irqfd = bench.rig.irqs.irqfd
        assert irqfd is not None
        served.update(irqfd.fileno(), READ)
        if not bench.ring.used_idx:
            served.wait(-1)
        served.close()
        assert bench.rig.status_of(chain) == S_OK
        bench.close()

    must_hold(scenario, watched=MACHINE)
