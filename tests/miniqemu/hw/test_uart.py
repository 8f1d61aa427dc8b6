# SPDX-License-Identifier: GPL-2.0-only
"""The serial port against the PC16550D's data sheet, and with slow and silent lines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from block.aio.context import AioContext
from block.aio.notifier import EventNotifier
from miniqemu.chardev.base import Chardev, Event
from miniqemu.hw import uart
from miniqemu.hw.uart import IER, IIR_FCR, LCR, LSR, MCR, MSR, RBR_THR, SCR, Uart16550
from miniqemu.machine.irq import IrqLine
from tests.support.virtual_world import VirtualWorld

NO_INT, THR_EMPTY, DATA, TIMEOUT, LINE_STATUS = 0x01, 0x02, 0x04, 0x0C, 0x06
FIFO_ON, TRIGGER_14 = 0x01, 0xC0


class Line(Chardev):
    """A line that keeps what was sent; it may be slow, and it may type."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.room: int | None = None  # None: takes everything
        self.accepts = 0
        self._callback: object = None

    def write(self, data: bytes | bytearray | memoryview) -> int:
        taken = len(data) if self.room is None else min(self.room, len(data))
        self.sent += data[:taken]
        if self.room is not None:
            self.room -= taken
        return taken

    def when_writable(self, callback: object) -> None:
        self._callback = callback

    def accept_input(self) -> None:
        self.accepts += 1

    def drain(self, room: int | None) -> None:
        """The other end read something: `room` bytes fit again."""
        self.room = room
        callback, self._callback = self._callback, None
        assert callable(callback)
        callback()

    def type(self, data: bytes) -> int:
        """A person types; returns how much the device wanted."""
        assert self.can_read
        assert self.read
        taken = 0
        while taken < len(data) and (room := self.can_read()):
            self.read(data[taken : taken + room])
            taken += room
        return min(taken, len(data))


class Pins:
    """An interrupt controller that counts edges."""

    def __init__(self) -> None:
        self.level = False
        self.edges = 0

    def set_irq(self, gsi: int, level: bool) -> None:
        assert gsi == 4
        self.edges += level and not self.level
        self.level = level

    def add_irqfd(self, gsi: int, notifier: EventNotifier) -> None:
        raise AssertionError("a serial port has no irqfd")

    def del_irqfd(self, gsi: int, notifier: EventNotifier) -> None:
        raise AssertionError("a serial port has no irqfd")


class Rig:
    """A serial port with a line, pins, and virtual time."""

    def __init__(self) -> None:
        self.world = VirtualWorld()
        self.context = AioContext("main", self.world)
        self.line, self.pins = Line(), Pins()
        self.port = Uart16550(0x3F8, IrqLine(4, self.pins, self.world), self.line, self.context)

    def read(self, register: int) -> int:
        return self.port.read(register, 1)

    def write(self, register: int, value: int) -> None:
        self.port.write(register, 1, value)

    def cause(self) -> int:
        """What IIR names as the cause; reading it acknowledges "transmitter empty"."""
        return self.read(IIR_FCR) & 0x0F

    def close(self) -> None:
        self.port.close()
        assert self.context.registrations() == []
        self.context.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def test_power_on_values(rig: Rig) -> None:
    values = [rig.read(register) for register in (IER, IIR_FCR, LCR, LSR, MSR, SCR)]
    assert values == [0, NO_INT, 0, 0x60, 0xB0, 0]
    assert not rig.pins.level


def test_a_sent_byte_goes_out_at_once_and_the_transmitter_is_empty_again(rig: Rig) -> None:
    for char in b"hi":
        rig.write(RBR_THR, char)
        assert rig.read(LSR) == 0x60
    assert rig.line.sent == b"hi"
    assert rig.pins.edges == 0


def test_the_divisor_latch_hides_behind_dlab(rig: Rig) -> None:
    rig.write(IER, 0x05)
    rig.write(LCR, 0x83)
    rig.write(RBR_THR, 0x01)
    rig.write(IER, 0x02)
    assert (rig.read(RBR_THR), rig.read(IER)) == (0x01, 0x02)
    rig.write(LCR, 0x03)
    assert (rig.read(IER), rig.read(LCR)) == (0x05, 0x03)
    assert rig.line.sent == b""


def test_the_scratch_register_keeps_its_value(rig: Rig) -> None:
    rig.write(SCR, 0xA5)
    assert rig.read(SCR) == 0xA5


def test_line_and_modem_status_cannot_be_written(rig: Rig) -> None:
    rig.write(LSR, 0)
    rig.write(MSR, 0)
    assert (rig.read(LSR), rig.read(MSR)) == (0x60, 0xB0)


def test_enabling_the_transmitter_interrupt_while_empty_raises_it_once(rig: Rig) -> None:
    rig.write(IER, uart.IER_THRI)
    assert rig.pins.level
    assert rig.cause() == THR_EMPTY
    assert not rig.pins.level, "reading IIR acknowledges"
    assert rig.cause() == NO_INT
    rig.write(RBR_THR, 0x41)
    assert rig.pins.level, "and the next byte raises it again"


def test_each_sent_byte_gives_an_edge(rig: Rig) -> None:
    rig.write(IER, uart.IER_THRI)
    before = rig.pins.edges
    for _ in range(3):
        rig.write(RBR_THR, 0x41)
    assert rig.pins.edges - before == 3


def test_a_typed_byte_is_data_ready_and_an_interrupt(rig: Rig) -> None:
    rig.write(IER, uart.IER_RDI)
    assert rig.line.type(b"ab") == 1, "without FIFO there is room for one"
    assert rig.read(LSR) & 1
    assert rig.cause() == DATA
    assert rig.read(RBR_THR) == ord("a")
    assert rig.read(LSR) & 1 == 0
    assert not rig.pins.level
    assert rig.line.accepts, "the line hears that there is room again"


def test_with_the_fifo_sixteen_bytes_wait_in_order(rig: Rig) -> None:
    rig.write(IIR_FCR, FIFO_ON)
    assert rig.read(IIR_FCR) & 0xC0 == 0xC0
    assert rig.line.type(b"0123456789abcdefXYZ") == 16
    assert bytes(rig.read(RBR_THR) for _ in range(16)) == b"0123456789abcdef"
    assert rig.read(LSR) & 1 == 0


def test_below_the_trigger_level_the_timeout_tells(rig: Rig) -> None:
    rig.write(IIR_FCR, FIFO_ON | TRIGGER_14)
    rig.write(IER, uart.IER_RDI)
    rig.line.type(b"key")
    assert not rig.pins.level
    before = rig.world.clock_ns(uart.ClockType.VIRTUAL)
    rig.context.poll(True)
    waited = rig.world.clock_ns(uart.ClockType.VIRTUAL) - before
    assert waited == 4 * 10 * 12 * 1_000_000_000 // 115200, "four characters at 9600 baud"
    assert rig.cause() == TIMEOUT
    assert rig.read(RBR_THR) == ord("k")
    assert not rig.pins.level, "a read ends the timeout"
    rig.context.poll(True)
    assert rig.pins.edges == 2, "and what is left begins a new one"
    assert rig.read(RBR_THR) + rig.read(RBR_THR) == ord("e") + ord("y")
    rig.world.advance(10**9)
    rig.context.poll(False)
    assert not rig.pins.level


def test_a_timeout_that_nobody_asked_for_is_no_interrupt(rig: Rig) -> None:
    rig.write(IIR_FCR, FIFO_ON | TRIGGER_14)
    rig.line.type(b"key")
    rig.context.poll(True)
    assert rig.cause() == NO_INT
    rig.write(IER, uart.IER_RDI)
    assert rig.cause() == TIMEOUT


def test_at_the_trigger_level_the_interrupt_is_data_ready(rig: Rig) -> None:
    rig.write(IIR_FCR, FIFO_ON | TRIGGER_14)
    rig.write(IER, uart.IER_RDI)
    rig.line.type(b"x" * 14)
    assert rig.cause() == DATA
    rig.read(RBR_THR)
    assert rig.cause() == NO_INT


def test_the_causes_have_the_data_sheets_priorities(rig: Rig) -> None:
    rig.write(IER, 0x0F)
    rig.line.type(b"a")
    rig.port.event(Event.BREAK)
    order = [rig.cause()]
    assert rig.read(LSR) & 0x10, "break"
    order.append(rig.cause())
    rig.read(RBR_THR)
    order += [rig.cause(), rig.cause()]
    assert order == [LINE_STATUS, DATA, THR_EMPTY, NO_INT]


def test_break_and_overrun_are_told_once(rig: Rig) -> None:
    rig.port.receive(b"a")
    rig.port.receive(b"b")
    rig.port.event(Event.BREAK)
    assert rig.read(LSR) & 0x12 == 0x12
    assert rig.read(LSR) & 0x12 == 0


def test_loop_mode_sends_to_itself_and_mirrors_the_modem_lines(rig: Rig) -> None:
    rig.write(MCR, 0x10 | 0x0F)
    assert rig.read(MSR) & 0xF0 == 0xF0
    rig.write(MCR, 0x10 | 0x02)
    assert rig.read(MSR) & 0xF0 == 0x10, "RTS comes back as CTS"
    rig.write(RBR_THR, 0x5A)
    assert rig.read(RBR_THR) == 0x5A
    assert rig.line.sent == b""
    assert rig.line.type(b"x") == 0, "nobody can type meanwhile"


def test_a_slow_line_holds_the_transmitter_and_loses_nothing(rig: Rig) -> None:
    rig.write(IER, uart.IER_THRI)
    rig.cause()
    rig.line.room = 1
    rig.write(RBR_THR, ord("1"))
    assert rig.cause() == THR_EMPTY
    rig.write(RBR_THR, ord("2"))
    assert rig.read(LSR) & 0x60 == 0
    assert rig.cause() == NO_INT
    rig.line.drain(0)
    assert rig.read(LSR) & 0x60 == 0
    rig.line.drain(None)
    assert rig.line.sent == b"12"
    assert rig.read(LSR) & 0x60 == 0x60
    assert rig.cause() == THR_EMPTY


def test_a_guest_that_does_not_wait_for_a_slow_line_loses_the_oldest(rig: Rig) -> None:
    rig.write(IIR_FCR, FIFO_ON)
    rig.line.room = 0
    for char in range(20):
        rig.write(RBR_THR, char)
    rig.line.drain(None)
    assert rig.line.sent == bytes(range(4, 20))


def test_clearing_a_fifo_empties_it(rig: Rig) -> None:
    rig.write(IIR_FCR, FIFO_ON)
    rig.line.type(b"abc")
    rig.write(IIR_FCR, FIFO_ON | 0x02)
    assert rig.read(LSR) & 1 == 0
    assert rig.read(RBR_THR) == 0


def test_reset_gives_power_on_values_and_lowers_the_line(rig: Rig) -> None:
    rig.write(IIR_FCR, FIFO_ON | TRIGGER_14)
    rig.write(IER, 0x0F)
    rig.line.type(b"abc")
    rig.write(SCR, 1)
    rig.port.reset()
    assert not rig.pins.level
    values = [rig.read(register) for register in (IER, IIR_FCR, LSR, SCR)]
    assert values == [0, NO_INT, 0x60, 0]
    rig.world.advance(10**9)
    rig.context.poll(False)
    assert not rig.pins.level
