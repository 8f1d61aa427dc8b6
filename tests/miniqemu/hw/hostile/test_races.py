# SPDX-License-Identifier: GPL-2.0-only
"""Two processors at one device: each store is whole, and in whatever order they come, it lives."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from miniqemu.hw import virtio_mmio as mmio
from miniqemu.hw import virtio_status as status
from miniqemu.hw.virtio_blk_layout import S_OK, T_IN
from miniqemu.machine.main_loop import MainLoop
from tests.miniqemu.hw.hostile.bench import DATA, WAYS, Bench, bench

ROUNDS = 60
ways = pytest.mark.parametrize("way", WAYS)


class Vcpu:
    """A thread that stores to registers as a vCPU does: under the big lock."""

    def __init__(self, machine: Bench, deed: Callable[[Vcpu, int], None]) -> None:
        self.machine = machine
        self.deed = deed
        self.done = False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        try:
            for number in range(ROUNDS):
                self.deed(self, number)
        finally:
            self.done = True
            self.machine.ctx.notify()

    def store(self, offset: int, value: int) -> None:
        """A store to a register, which the address space may turn into a doorbell."""
        with self.machine.big_lock:
            self.machine.driver.set_reg(offset, value)

    def load(self, offset: int) -> int:
        """A load from a register."""
        with self.machine.big_lock:
            return self.machine.driver.reg(offset)


def together(machine: Bench, *deeds: Callable[[Vcpu, int], None]) -> None:
    """Lets vCPUs do their deeds while the main loop runs, with the big lock as it has it."""
    loop = MainLoop(machine.ctx, machine.big_lock)
    with machine.big_lock:
        vcpus = [Vcpu(machine, deed) for deed in deeds]
        loop.wait_for(lambda: all(vcpu.done for vcpu in vcpus))
    loop.close()
    for vcpu in vcpus:
        vcpu.thread.join()
    machine.settle()
    assert not machine.exceptions


def ring(vcpu: Vcpu, number: int) -> None:
    vcpu.store(mmio.QUEUE_NOTIFY, number % 2)


def reset_and_start(vcpu: Vcpu, number: int) -> None:
    """The whole sequence, store by store; the other vCPU's stores come between."""
    rings = vcpu.machine.driver.queues[0]
    for value in (0, 1, 3):
        vcpu.store(mmio.STATUS, value)
    vcpu.store(mmio.DRIVER_FEATURES_SEL, 1)
    vcpu.store(mmio.DRIVER_FEATURES, 1)
    vcpu.store(mmio.STATUS, status.State.NEGOTIATED.value)
    vcpu.store(mmio.QUEUE_SEL, 0)
    vcpu.store(mmio.QUEUE_NUM, rings.num)
    for low, where in (
        (mmio.QUEUE_DESC_LOW, rings.desc),
        (mmio.QUEUE_DRIVER_LOW, rings.avail),
        (mmio.QUEUE_DEVICE_LOW, rings.used),
    ):
        vcpu.store(low, where)
    vcpu.store(mmio.QUEUE_READY, 1)
    vcpu.store(mmio.STATUS, status.State.RUNNING.value)


def take_away_and_back(vcpu: Vcpu, number: int) -> None:
    vcpu.store(mmio.QUEUE_SEL, 0)
    vcpu.store(mmio.QUEUE_READY, number % 2)


def acknowledge(vcpu: Vcpu, number: int) -> None:
    vcpu.store(mmio.INTERRUPT_ACK, vcpu.load(mmio.INTERRUPT_STATUS))


def break_the_ring(vcpu: Vcpu, number: int) -> None:
    vcpu.machine.driver.queues[0].set_avail_idx(0x4000 + number)
    vcpu.store(mmio.QUEUE_NOTIFY, 0)


@ways
def test_two_that_ring_the_same_queue_get_each_answer_once(way: str) -> None:
    with bench(way) as machine:
        rings = machine.driver.start()
        adding = threading.Lock()
        chains = []
        heads = []

        def add(number: int) -> bool:
            with adding:
                heads.extend(head for head, _ in rings.reap())
                if len(rings.free) < 3:
                    return False
                chain = machine.chain(T_IN, number % 8, into=512)
                chains.append(chain)
                rings.submit(chain)
                return True

        def add_and_ring(vcpu: Vcpu, number: int) -> None:
            while not add(number):
                pass  # a guest that polls
            vcpu.store(mmio.QUEUE_NOTIFY, 0)

        together(machine, add_and_ring, add_and_ring)
        heads.extend(head for head, _ in rings.reap())
        assert len(heads) == len(chains) == 2 * ROUNDS
        assert all(machine.status_of(chain) == S_OK for chain in chains)
        assert not machine.reports
        machine.check_alive()


@ways
@pytest.mark.parametrize(
    "other", [ring, reset_and_start, take_away_and_back, acknowledge, break_the_ring]
)
def test_one_resets_while_the_other_is_at_work(
    way: str, other: Callable[[Vcpu, int], None]
) -> None:
    with bench(way) as machine:
        machine.driver.start()
        machine.remember()
        for _ in range(3):  # what each start finds in the ring
            machine.ring.submit(machine.chain(T_IN, into=512), indirect=True)
        together(machine, reset_and_start, other)
        machine.check_untouched()
        machine.driver.pages.next = DATA // 2
        machine.driver.start()
        machine.check_alive()


@ways
def test_the_machine_stops_and_goes_on_while_two_are_at_work(way: str) -> None:
    with bench(way) as machine:
        machine.driver.start()
        machine.remember()
        turns = [True, False] * ROUNDS  # taken from the end

        def turn() -> None:
            if turns:
                machine.transport.vm_state_changed(turns.pop())
                machine.ctx.bh_schedule_oneshot(turn)

        machine.ctx.bh_schedule_oneshot(turn)
        together(machine, reset_and_start, ring)
        machine.run_until(lambda: not turns)
        machine.check_untouched()
        machine.driver.start()
        machine.check_alive()
