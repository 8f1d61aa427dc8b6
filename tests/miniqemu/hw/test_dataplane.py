# SPDX-License-Identifier: GPL-2.0-only
"""The data plane: an IOThread serves the device, and nothing is lost when it starts or stops."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import block
from block.aio.co_sleep import co_sleep_ns
from block.aio.iothread import IOThread
from block.aio.world import ClockType, the_world
from block.core import drain
from miniqemu.hw import virtio_mmio as mmio
from miniqemu.hw.virtio import ISR_CONFIG, ISR_QUEUE
from miniqemu.hw.virtio_blk_layout import S_OK, T_FLUSH, T_IN, T_OUT
from tests.support.drivers import (
    Disk,
    FastRam,
    Ram,
    ReleasingRam,
    backend_on,
    pass_node,
    ram_node,
)
from tests.support.ring_driver import Buffer
from tests.support.virtio_rig import Rig

ROUNDS = 50


class SlowDisk(Disk):
    """Every request takes a moment, each another one."""

    async def note(self, name: str, *args: object) -> None:
        await co_sleep_ns(ClockType.REALTIME, random.randrange(1, 200_000))
        await super().note(name, *args)


class Plane(Rig):
    """A device on a filter on a disk in memory, served by an IOThread."""

    def __init__(self, disk: Disk, driver: type[Ram], iothread: IOThread | None, **conf: object):
        self.disk = disk
        self.iothread = iothread
        self.backend = backend_on(pass_node(ram_node(disk, "", driver)))
        super().__init__(self.backend, iothread=iothread, **conf)

    def close(self) -> None:
        super().close()
        self.backend.close()

    def thread(self) -> int:
        """The identity of the IOThread's thread."""
        seen: list[int] = []
        assert self.iothread is not None
        self.iothread.ctx.bh_schedule_oneshot(lambda: seen.append(the_world().current()))
        self.run_until(lambda: bool(seen))
        return seen[0]

    def submit(self, count: int, first: int = 0) -> list[list[Buffer]]:
        """Makes `count` writes available, each of its own sector, and rings once."""
        ring = self.driver.queues[0]
        chains = [
            self.chain(T_OUT, n, out=bytes([n & 255]) * 512) for n in range(first, first + count)
        ]
        for chain in chains:
            ring.submit(chain, indirect=True)
        self.driver.kick()
        return chains

    def all_done(self, chains: list[list[Buffer]]) -> bool:
        return all(self.status_of(chain) == S_OK for chain in chains)


@contextmanager
def plane(disk: Disk | None = None, driver: type[Ram] = FastRam, **conf: object) -> Iterator[Plane]:
    with IOThread("plane") as iothread:
        bench = Plane(disk or Disk(), driver, iothread, **conf)
        try:
            yield bench
        finally:
            bench.close()


def test_requests_are_served_in_the_iothread_without_the_big_lock() -> None:
    disk = Disk()
    with plane(disk, Ram) as bench:
        bench.driver.start(num=64)
        thread = bench.thread()
        chains = bench.submit(32)
        bench.run_until(lambda: bench.all_done(chains))
        assert disk.threads == {thread}
        assert bench.big_lock.taken_by(thread) == 0
        assert bench.irqs.irqfd is not None
        bench.run_until(lambda: bench.irqs.edges >= 1)
        assert bench.irqs.wire_edges == 0


def test_the_tree_moves_in_at_driver_ok_and_back_at_reset() -> None:
    with plane() as bench:
        main, ctx = the_world().main_context, bench.device.service.ctx
        bench.driver.negotiate()
        bench.driver.set_up_queue(0, 8)
        assert bench.backend.aio_context is main
        bench.driver.add_status(4)
        assert bench.backend.aio_context is ctx
        bench.driver.set_reg(mmio.STATUS, 0)
        assert bench.backend.aio_context is main
        assert [entry for entry in bench.disk.log if entry[0] in ("detach", "attach")] == [
            ("detach", "main"),
            ("attach", "plane"),
            ("detach", "plane"),
            ("attach", "main"),
        ]


def test_after_a_stop_nothing_of_the_device_is_left_in_the_iothread() -> None:
    with plane() as bench:
        bench.driver.start()
        ctx = bench.device.service.ctx
        with ctx:
            assert [entry.kind for entry in ctx.registrations(bench.device)] == ["notifier"]
        bench.transport.reset()
        with ctx:
            assert not ctx.registrations(bench.device)
        assert bench.irqs.irqfd is None
        assert bench.device.queues[0].host_notifier is None


def test_the_doorbell_goes_around_the_registers() -> None:
    with plane() as bench:
        bench.driver.start()
        bench.device.notify_queue = None  # type: ignore[assignment]  # it must not be called
        chains = bench.submit(1)
        bench.run_until(lambda: bench.all_done(chains))


@pytest.mark.parametrize("bits", [ISR_QUEUE, ISR_QUEUE | ISR_CONFIG])
def test_an_acknowledgement_goes_around_the_registers(bits: int) -> None:
    with plane() as bench:
        bench.driver.start()
        bench.device.acknowledge = None  # type: ignore[assignment]  # it must not be called
        bench.submit(1)
        bench.run_until(lambda: bench.driver.reg(mmio.INTERRUPT_STATUS) == ISR_QUEUE)
        bench.driver.set_reg(mmio.INTERRUPT_ACK, bits)
        assert bench.driver.reg(mmio.INTERRUPT_STATUS) == 0


def test_an_acknowledgement_clears_what_was_set_before_it_and_nothing_else() -> None:
    with plane() as bench:
        bench.driver.start()
        bench.device.interrupt(ISR_QUEUE)
        bench.driver.set_reg(mmio.INTERRUPT_ACK, ISR_QUEUE | ISR_CONFIG)
        bench.device.interrupt(ISR_QUEUE)
        assert bench.driver.reg(mmio.INTERRUPT_STATUS) == ISR_QUEUE
        bench.device.interrupt(ISR_CONFIG)
        bench.driver.set_reg(mmio.INTERRUPT_ACK, ISR_QUEUE)
        assert bench.driver.reg(mmio.INTERRUPT_STATUS) == ISR_CONFIG
        bench.driver.set_reg(mmio.INTERRUPT_ACK, ISR_CONFIG)
        assert bench.driver.reg(mmio.INTERRUPT_STATUS) == 0


def test_an_acknowledgement_before_a_stop_is_not_lost_in_it() -> None:
    with plane() as bench:
        bench.driver.start()
        bench.device.interrupt(ISR_QUEUE)
        bench.driver.set_reg(mmio.INTERRUPT_ACK, ISR_QUEUE)
        edges = bench.irqs.edges
        bench.transport.vm_state_changed(False)
        assert bench.driver.reg(mmio.INTERRUPT_STATUS) == 0
        assert bench.irqs.edges == edges


def test_an_acknowledgement_for_which_the_kernel_has_no_place_is_a_register_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with plane() as bench:
        add_ioeventfd = bench.space.add_ioeventfd

        def refuse(addr: int, *args: Any, **words: Any) -> None:
            if addr == bench.base + mmio.INTERRUPT_ACK:
                raise OSError(errno.ENOSPC, "no place")
            add_ioeventfd(addr, *args, **words)

        monkeypatch.setattr(bench.space, "add_ioeventfd", refuse)
        bench.driver.start()
        assert bench.backend.aio_context is bench.device.service.ctx
        bench.device.interrupt(ISR_QUEUE)
        assert bench.driver.acknowledge() == ISR_QUEUE
        assert bench.driver.reg(mmio.INTERRUPT_STATUS) == 0


def test_a_reset_waits_for_requests_in_flight() -> None:
    disk = Disk()
    with plane(disk, ReleasingRam) as bench:
        ring = bench.driver.start(num=32)
        bench.thread()  # what the move to the IOThread released is over
        disk.parked = True
        chains = bench.submit(8)
        bench.run_until(lambda: len(disk.asked("pwritev")) >= 1)
        bench.driver.set_reg(mmio.STATUS, 0)
        assert bench.all_done(chains)
        assert len(ring.reap()) == 8
        assert disk.data[:4096] == b"".join(bytes([n]) * 512 for n in range(8))


def test_the_last_interrupt_is_not_lost_in_a_stop() -> None:
    disk = Disk()
    with plane(disk, ReleasingRam) as bench:
        ring = bench.driver.start(num=32)
        bench.thread()  # what the move to the IOThread released is over
        disk.parked = True
        bench.submit(4)
        bench.run_until(lambda: len(disk.asked("pwritev")) >= 1)
        assert bench.irqs.edges == 0
        bench.transport.vm_state_changed(False)
        assert len(ring.reap()) == 4
        assert bench.irqs.edges >= 1
        assert bench.driver.acknowledge() & 1


def test_what_the_bottom_half_has_not_told_yet_is_told_in_the_stop() -> None:
    with plane() as bench:
        bench.driver.start()
        service = bench.device.service
        unassign = service.unassign_doorbells

        def a_completion_at_the_last_moment() -> None:
            unassign()
            with service.ctx:
                service.notify(bench.device.queues[0])
                service.batch.cancel()  # the IOThread does not come to it

        service.unassign_doorbells = a_completion_at_the_last_moment  # type: ignore[method-assign]  # of this one service
        bench.transport.vm_state_changed(False)
        assert bench.irqs.edges >= 1


@pytest.mark.parametrize("end", ["reset", "stop and cont", "machine reset"])
def test_starting_and_stopping_under_io_loses_nothing(end: str) -> None:
    random.seed(end)
    disk = SlowDisk()
    with plane(disk, Ram) as bench:
        bench.driver.start(num=64)
        for _ in range(ROUNDS):
            bench.driver.queues[0].reap()
            chains = bench.submit(random.randrange(1, 24), first=random.randrange(1000))
            for _ in range(random.randrange(3)):
                bench.ctx.poll(False)
            if end == "stop and cont":
                bench.transport.vm_state_changed(False)
                assert bench.backend.in_flight == 0
                chains += bench.submit(3)  # rung for while nobody listens
                bench.transport.vm_state_changed(True)
                bench.run_until(lambda: bench.all_done(chains))  # noqa: B023  # run in its turn of the loop
                continue
            if end == "reset":
                bench.driver.set_reg(mmio.STATUS, 0)
            else:
                bench.transport.reset()
            assert bench.backend.in_flight == 0
            assert_answered_or_untouched(bench, chains)
            bench.driver.pages.next = 0x10000
            bench.driver.start(num=64)
        chains = bench.submit(8)
        bench.run_until(lambda: bench.all_done(chains))


def assert_answered_or_untouched(bench: Plane, chains: list[list[Buffer]]) -> None:
    """After a reset a request was either done wholly, or never begun."""
    ring = bench.driver.queues[0]
    answered = {head for head, _ in ring.reap()}
    done = [chain for chain in chains if bench.status_of(chain) == S_OK]
    untouched = [chain for chain in chains if bench.status_of(chain) == 0xFF]
    assert len(done) + len(untouched) == len(chains)
    assert len(answered) == len(done)


def test_a_drained_section_holds_requests_back_and_lets_them_go_in_order() -> None:
    with plane(driver=Ram, request_merging=False) as bench:
        bench.driver.start(num=64)
        bs = bench.backend.bs
        assert bs is not None
        ctx = bench.backend.aio_context
        with ctx:
            drain.drained_begin(bs)
        chains = bench.submit(6)
        bench.thread()  # the IOThread has had its turn
        assert bench.driver.queues[0].used_idx == 0
        with ctx:
            drain.drained_end(bs)
        bench.run_until(lambda: bench.all_done(chains))
        assert [entry[1] for entry in bench.disk.asked("pwritev")] == [512 * n for n in range(6)]


def test_two_devices_share_an_iothread() -> None:
    with IOThread("shared") as iothread:
        first = Plane(Disk(), FastRam, iothread)
        second = Plane(Disk(), FastRam, iothread)
        for bench in (first, second):
            bench.driver.start(num=32)
        chains = [(bench, bench.submit(8)) for bench in (first, second)]
        for bench, submitted in chains:
            bench.run_until(lambda: bench.all_done(submitted))  # noqa: B023  # run in its turn of the loop
        first.transport.reset()
        more = second.submit(8)
        second.run_until(lambda: second.all_done(more))
        first.close()
        second.close()


def test_several_queues_have_a_doorbell_each() -> None:
    with plane(num_queues=4) as bench:
        bench.driver.start(queues=4)
        for n, ring in enumerate(bench.driver.queues):
            ring.submit(bench.chain(T_IN, n, into=512))
            bench.driver.kick(n)
        bench.run_until(lambda: all(ring.used_idx == 1 for ring in bench.driver.queues))


def test_a_ring_that_breaks_in_the_iothread_tells_by_the_irqfd() -> None:
    with plane() as bench:
        ring = bench.driver.start()
        ring.make_available(0xFFFF)
        bench.driver.kick()
        bench.run_until(lambda: bench.device.broken)
        bench.thread()
        assert bench.irqs.edges == 1
        assert bench.driver.acknowledge() == 2
        bench.driver.start()
        chains = bench.submit(1)
        bench.run_until(lambda: bench.all_done(chains))


@pytest.mark.parametrize("iothread", [True, False])
def test_a_real_image_holds_what_the_driver_wrote(tmp_path: Path, iothread: bool) -> None:
    path = str(tmp_path / "disk.img")
    block.create(path, size=1 << 20)
    thread = IOThread("real") if iothread else None
    image = block.open(path, format="raw")
    bench = Rig(image, iothread=thread)
    ring = bench.driver.start(num=64)
    chains = [bench.chain(T_OUT, n, out=bytes([n]) * 512) for n in range(40)]
    for chain in chains:
        ring.submit(chain, indirect=True)
    ring.submit(last := bench.chain(T_FLUSH))
    bench.driver.kick()
    bench.run_until(lambda: ring.used_idx == 41)
    assert all(bench.status_of(chain) == S_OK for chain in [*chains, last])
    bench.close()
    image.close()
    if thread is not None:
        thread.close()
    with open(path, "rb") as file:
        assert file.read(40 * 512) == b"".join(bytes([n]) * 512 for n in range(40))


@pytest.mark.parametrize("what", ["irqfd", "ioeventfd", "second ioeventfd"])
def test_without_irqfd_or_ioeventfd_the_device_is_served_all_the_same(
    what: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    refused = OSError(errno.ENOSPC, f"no {what}")
    with plane(num_queues=2) as bench:
        doorbells = bench.space.add_ioeventfd
        left = [what == "second ioeventfd"]

        def add_ioeventfd(addr: int, *args: Any, **words: Any) -> None:
            if addr == bench.base + mmio.QUEUE_NOTIFY and not (left and left.pop()):
                raise refused
            doorbells(addr, *args, **words)

        def add_irqfd(*args: object) -> None:
            raise refused

        with monkeypatch.context() as patch:
            if what == "irqfd":
                patch.setattr(bench.irqs, "add_irqfd", add_irqfd)
            else:
                patch.setattr(bench.space, "add_ioeventfd", add_ioeventfd)
            bench.driver.start(num=16, queues=2)
        assert "served without IOThread and ioeventfd, slowly: [Errno" in capfd.readouterr().err
        assert bench.backend.aio_context is the_world().main_context
        for queue in (0, 1):
            assert bench.request(T_OUT, 1, out=b"x" * 512, queue=queue).status == S_OK
        assert bench.irqs.irqfd is None
        assert bench.irqs.wire_edges >= 1
        bench.transport.reset()
        bench.driver.start(num=16, queues=2)  # more luck this time
        assert bench.backend.aio_context is bench.device.service.ctx
        assert bench.irqs.irqfd is not None
        assert not capfd.readouterr().err
