# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel does for us under kvm: doorbells without an exit, pins, registers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from block.aio.notifier import EventNotifier
from miniqemu.accel.base import GENERAL, SEGMENTS
from miniqemu.accel.kvm import KvmAccel, KvmVcpu
from miniqemu.machine.machine import Machine
from miniqemu.pykvm import KvmError
from tests.miniqemu.machine.conftest import Guest, MakeGuest, guest
from tests.support.tiny_guest import LOOP_FOR_EVER, out, power_off, store

__all__ = ["guest"]
STAR = 0xC000_0081
DOORBELL = 0xFEB0_0050
RING_THRICE = store(DOORBELL, 1) + store(DOORBELL, 2) + store(DOORBELL + 4, 1)


class Registers:
    """A device that remembers what reached it."""

    base, size, name = 0xFEB0_0000, 0x200, "registers"

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        self.seen.append((offset, size, value))


@pytest.fixture
def notifier() -> Iterator[EventNotifier]:
    made = EventNotifier()
    yield made
    made.close()


def test_a_bound_doorbell_rings_without_an_exit(guest: MakeGuest, notifier: EventNotifier) -> None:
    one, device = guest(RING_THRICE + power_off(0)), Registers()
    space = one.machine.space
    space.add_mmio(device)
    space.add_ioeventfd(DOORBELL, 4, notifier, datamatch=1)
    assert one.run() == 0
    assert notifier.test_and_clear()
    assert device.seen == [(0x50, 4, 2), (0x54, 4, 1)]
    space.del_ioeventfd(DOORBELL, 4, notifier, datamatch=1)
    with pytest.raises(KvmError, match="KVM_IOEVENTFD: No such file"):
        space.del_ioeventfd(DOORBELL, 4, notifier, datamatch=1)


def test_an_unbound_doorbell_reaches_the_device(guest: MakeGuest, notifier: EventNotifier) -> None:
    one, device = guest(RING_THRICE + power_off(0)), Registers()
    space = one.machine.space
    space.add_mmio(device)
    space.add_ioeventfd(DOORBELL, 4, notifier)
    space.del_ioeventfd(DOORBELL, 4, notifier)
    assert one.run() == 0
    assert not notifier.test_and_clear()
    assert len(device.seen) == 3


def test_a_narrow_store_brings_nothing_of_the_wide_one_before_it(guest: MakeGuest) -> None:
    byte = b"\xc6\x05" + DOORBELL.to_bytes(4, "little") + b"\x01"  # mov byte [DOORBELL], 1
    one, device = guest(store(DOORBELL, 0xFFFF_FFFF) + byte + power_off(0)), Registers()
    one.machine.space.add_mmio(device)
    assert one.run() == 0
    assert device.seen == [(0x50, 4, 0xFFFF_FFFF), (0x50, 1, 1)]


def test_a_port_can_be_a_doorbell_too(guest: MakeGuest, notifier: EventNotifier) -> None:
    one = guest(out(0x99, 7) + power_off(0))
    one.machine.space.add_ioeventfd(0x99, 1, notifier, pio=True)
    assert one.run() == 0
    assert notifier.test_and_clear()


def is_requested(machine: Machine, gsi: int) -> bool:
    """Whether the pin's request waits in the first interrupt controller."""
    accel = machine.accel
    assert isinstance(accel, KvmAccel)
    interrupt_request_register = bytes(accel._vm.irqchip(0))[8 + 1]  # kvm_pic_state.irr
    return bool(interrupt_request_register >> gsi & 1)


def test_a_wire_and_an_irqfd_reach_their_pins_and_a_reset_clears_them(guest: MakeGuest) -> None:
    one = guest(LOOP_FOR_EVER)
    machine = one.machine
    machine.start(paused=True)
    wire, edge = machine.irq(5), machine.irq(6)
    edge.irqfd()
    wire.set_level(True)
    edge.pulse()
    assert is_requested(machine, 5)
    while not is_requested(machine, 6):
        continue  # the kernel delivers it in a thread of its own
    machine.reset()
    assert not is_requested(machine, 5)
    assert not is_requested(machine, 6)
    edge.release_irqfd()


def registers_of(one: Guest) -> dict[str, object]:
    registers = one.machine.vcpus[0].registers()
    out: dict[str, object] = {name: getattr(registers, name) for name in GENERAL}
    for name in SEGMENTS:
        segment = getattr(registers, name)
        out[name] = (segment.selector, segment.base, segment.limit, segment.flags)
    for name in ("cr0", "cr2", "cr3", "cr4", "efer", "gdt_base", "gdt_limit", "idt_base"):
        out[name] = getattr(registers, name)
    return out


def test_registers_that_are_loaded_are_read_back(guest: MakeGuest) -> None:
    one = guest(LOOP_FOR_EVER)
    one.machine.start(paused=True)
    vcpu = one.machine.vcpus[0]
    before = registers_of(one)
    changed = vcpu.registers()
    for number, name in enumerate(GENERAL[:16]):
        setattr(changed, name, 0x1111_0000_0000 + number)
    changed.cr2, changed.idt_base, changed.idt_limit = 0x1234, 0x5000, 0x7FF
    vcpu.load(changed)
    after = registers_of(one)
    assert after["r15"] == 0x1111_0000_000F
    assert (after["cr2"], after["idt_base"]) == (0x1234, 0x5000)
    assert after["cs"] == before["cs"]


def test_a_reset_gives_every_register_its_power_on_value(guest: MakeGuest) -> None:
    one = guest(LOOP_FOR_EVER)
    vcpu = one.machine.vcpus[0]
    assert isinstance(vcpu, KvmVcpu)
    raw = vcpu._raw
    power_on, msr = registers_of(one), raw.msrs((STAR,))
    assert power_on["cs"] == (0xF000, 0xFFFF_0000, 0xFFFF, 0x9B00)
    assert power_on["rip"] == 0xFFF0
    one.machine.start(paused=True)
    assert registers_of(one) != power_on, "the kernel's entry"
    raw.set_msrs({STAR: 0x1234})
    vcpu.reset()
    assert registers_of(one) == power_on
    assert raw.msrs((STAR,)) == msr
