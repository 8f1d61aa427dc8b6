# SPDX-License-Identifier: GPL-2.0-only
"""Guest memory and the dispatch of accesses that hit no RAM."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from block.aio.notifier import EventNotifier
from miniqemu.machine import debug
from miniqemu.machine.memory import AddressSpace, GuestMemory, GuestMemoryError

MIB, GIB = 1 << 20, 1 << 30


class Device:
    """Registers that remember what was asked of them."""

    def __init__(self, base: int, size: int, name: str = "device") -> None:
        self.base, self.size, self.name = base, size, name
        self.seen: list[tuple[object, ...]] = []

    def read(self, offset: int, size: int) -> int:
        self.seen.append(("read", offset, size))
        return 0x1234_5678_9ABC_DEF0

    def write(self, offset: int, size: int, value: int) -> None:
        self.seen.append(("write", offset, size, value))


@pytest.fixture
def ram() -> Iterator[GuestMemory]:
    memory = GuestMemory([(0, MIB), (4 * GIB, MIB)])
    yield memory
    memory.close()


@pytest.fixture
def space(ram: GuestMemory) -> AddressSpace:
    return AddressSpace(ram)


def test_a_view_is_the_memory_itself(ram: GuestMemory) -> None:
    with ram.view(0x1000, 4) as view:
        view[:] = b"abcd"
    assert ram.read(0x0FFE, 8) == b"\0\0abcd\0\0"


def test_the_second_region_begins_at_its_own_address(ram: GuestMemory) -> None:
    ram.write(4 * GIB + MIB - 2, b"hi")
    assert ram.read(4 * GIB + MIB - 2, 2) == b"hi"
    assert ram.read(MIB - 2, 2) == b"\0\0"
    assert ram.size == 2 * MIB


@pytest.mark.parametrize(
    ("gpa", "length"),
    [
        (MIB, 1),
        (MIB - 1, 2),
        (4 * GIB - 1, 2),
        (4 * GIB + MIB, 1),
        (2**64 - 1, 2),
        (-1, 2),
        (0x1000, -1),
        (0, 4 * GIB + 2 * MIB),
    ],
)
def test_a_range_that_is_not_all_ram_is_refused(ram: GuestMemory, gpa: int, length: int) -> None:
    with pytest.raises(GuestMemoryError, match="are not all RAM"):
        ram.view(gpa, length)


def test_an_empty_view_at_the_end_of_ram_is_no_error(ram: GuestMemory) -> None:
    assert ram.read(MIB, 0) == b""


def test_closing_ram_that_somebody_still_looks_at_says_so() -> None:
    memory = GuestMemory([(0, MIB)])
    view = memory.view(0, 16)
    with pytest.raises(BufferError):
        memory.close()
    view.release()
    memory.regions[0].map.close()


def test_an_access_reaches_the_device_with_its_own_offset(space: AddressSpace) -> None:
    device = Device(0xFEB0_0000, 512)
    space.add_mmio(device)
    assert space.mmio_read(0xFEB0_0010, 4) == 0x9ABC_DEF0
    space.mmio_write(0xFEB0_01FC, 4, 7)
    assert device.seen == [("read", 0x10, 4), ("write", 0x1FC, 4, 7)]


def test_ports_and_memory_are_different_spaces(space: AddressSpace) -> None:
    port, memory = Device(0x3F8, 8), Device(0x3F8, 8)
    space.add_pio(port)
    space.add_mmio(memory)
    space.pio_write(0x3FF, 1, 1)
    space.mmio_write(0x3F8, 1, 2)
    assert port.seen == [("write", 7, 1, 1)]
    assert memory.seen == [("write", 0, 1, 2)]


@pytest.mark.parametrize(("size", "ones"), [(1, 0xFF), (2, 0xFFFF), (4, 2**32 - 1), (8, 2**64 - 1)])
def test_where_nobody_answers_a_read_is_all_ones(space: AddressSpace, size: int, ones: int) -> None:
    assert space.mmio_read(0xD000_0000, size) == ones
    assert space.pio_read(0x80, size) == ones
    space.mmio_write(0xD000_0000, size, 0)


def test_an_access_over_a_devices_edge_reaches_nobody(space: AddressSpace) -> None:
    device = Device(0x100, 8)
    space.add_pio(device)
    assert space.pio_read(0x106, 4) == 0xFFFF_FFFF
    assert space.pio_read(0x0FF, 1) == 0xFF
    assert device.seen == []


@pytest.mark.parametrize(("base", "size"), [(0x100, 1), (0x0FF, 2), (0x107, 9), (0, 0x1000)])
def test_devices_may_not_overlap(space: AddressSpace, base: int, size: int) -> None:
    space.add_pio(Device(0x100, 8, "first"))
    with pytest.raises(ValueError, match="second overlaps first"):
        space.add_pio(Device(base, size, "second"))


def test_a_removed_device_answers_no_more(space: AddressSpace) -> None:
    device = Device(0x100, 8)
    space.add_pio(device)
    space.remove_pio(device)
    assert space.pio_read(0x100, 1) == 0xFF


@pytest.fixture
def notifier() -> Iterator[EventNotifier]:
    made = EventNotifier()
    yield made
    made.close()


def test_a_doorbell_takes_the_store_instead_of_the_device(
    space: AddressSpace, notifier: EventNotifier
) -> None:
    device = Device(0x1000, 0x100)
    space.add_mmio(device)
    space.add_ioeventfd(0x1050, 4, notifier, datamatch=1)
    space.mmio_write(0x1050, 4, 0)
    space.mmio_write(0x1050, 2, 1)
    assert not notifier.test_and_clear()
    space.mmio_write(0x1050, 4, 1)
    assert notifier.test_and_clear()
    assert device.seen == [("write", 0x50, 4, 0), ("write", 0x50, 2, 1)]
    space.del_ioeventfd(0x1050, 4, notifier, datamatch=1)
    space.mmio_write(0x1050, 4, 1)
    assert device.seen[-1] == ("write", 0x50, 4, 1)


def test_a_doorbell_for_any_size_and_value(space: AddressSpace, notifier: EventNotifier) -> None:
    space.add_ioeventfd(0x60, 0, notifier, pio=True)
    space.mmio_write(0x60, 1, 9)
    assert not notifier.test_and_clear()
    space.pio_write(0x60, 2, 9)
    assert notifier.test_and_clear()


class Binder:
    """An accelerator that binds doorbells by itself."""

    has_ioeventfd = True

    def __init__(self) -> None:
        self.bound: list[tuple[int, int, int | None, bool]] = []

    def add_ioeventfd(
        self, addr: int, size: int, notifier: EventNotifier, datamatch: int | None, pio: bool
    ) -> bool:
        self.bound.append((addr, size, datamatch, pio))
        return True

    def del_ioeventfd(
        self, addr: int, size: int, notifier: EventNotifier, datamatch: int | None, pio: bool
    ) -> None:
        self.bound.remove((addr, size, datamatch, pio))


def test_the_accelerator_gets_the_doorbell_where_it_can(
    ram: GuestMemory, notifier: EventNotifier
) -> None:
    binder = Binder()
    space = AddressSpace(ram, binder)
    space.add_ioeventfd(0x1050, 4, notifier, datamatch=3)
    assert binder.bound == [(0x1050, 4, 3, False)]
    space.del_ioeventfd(0x1050, 4, notifier, datamatch=3)
    assert binder.bound == []


def test_guest_errors_are_told_only_when_asked_for(
    space: AddressSpace, capfd: pytest.CaptureFixture[str]
) -> None:
    space.pio_write(0x80, 1, 0x5A)
    debug.enable("guest_errors")
    try:
        space.pio_write(0x80, 1, 0x5A)
        space.mmio_read(0xD000_0000, 4)
    finally:
        debug.disable()
    assert capfd.readouterr().err.splitlines() == [
        "I/O port: unassigned write of 0x5a at 0x80, 1 bytes",
        "memory: unassigned read at 0xd0000000, 4 bytes",
    ]


def test_an_unknown_debug_category_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^nonsense$"):
        debug.enable("int,nonsense")
    assert not debug.enabled
