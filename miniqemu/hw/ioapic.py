# SPDX-License-Identifier: GPL-2.0-only
"""The IOAPIC: 24 pins, each with an entry that says which processor and vector it means
(hw/intc/ioapic.c).

    IrqLine.set_level, pulse  ->  pin  ->  redirection entry  ->  ApicBus.deliver

Rules:
R1  A pin is edge- or level-triggered by its entry. An edge is the change from low to high; one
    that comes while the entry is masked is lost, as with KVM's model.
R2  A level interrupt sets "remote IRR" and is sent again only after the processor's end of
    interrupt, and then if the line is still high.
R3  `pulse` may be called from any thread; all state is guarded by the bus's lock.
R4  Registers are reached through a window: 32-bit accesses, others read 0 and write nothing.

Source: Intel 82093AA data sheet, 3.2.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from miniqemu.hw.lapic import ApicBus

BASE, SIZE = 0xFEC0_0000, 0x1000
PINS = 24
SELECT, WINDOW = 0x00, 0x10
ID, VERSION, ARBITRATION, TABLE = 0x00, 0x01, 0x02, 0x10
VERSION_VALUE = (PINS - 1) << 16 | 0x11
MASKED, LEVEL, REMOTE_IRR, LOGICAL = 1 << 16, 1 << 15, 1 << 14, 1 << 11
READ_ONLY = 1 << 12 | REMOTE_IRR  # delivery status, remote IRR


class IoApic:
    """One IOAPIC, pin n = GSI n (IOAPICCommonState)."""

    base, size, name = BASE, SIZE, "ioapic"

    def __init__(self, bus: ApicBus) -> None:
        self.bus = bus
        bus.end_of_interrupt = self.end_of_interrupt
        self.reset()

    def reset(self) -> None:
        """Power-on: every entry masked, every pin low."""
        self.select = self.identity = 0
        self.levels = 0
        self.entries = [MASKED] * PINS

    # -- Pins ------------------------------------------------------------------------------

    def set_level(self, pin: int, level: bool) -> None:
        """A wire goes up or down (ioapic_set_irq)."""
        with self.bus.lock:
            self._drive(pin, level)

    def pulse(self, pin: int) -> None:
        """An edge, from any thread."""
        with self.bus.lock:
            self.edge_locked(pin)

    def edge_locked(self, pin: int) -> None:
        """An edge, from who holds the lock."""
        self._drive(pin, True)
        self._drive(pin, False)

    def _drive(self, pin: int, level: bool) -> None:
        if pin >= PINS:
            return
        was_high = self.levels >> pin & 1
        self.levels = self.levels & ~(1 << pin) | level << pin
        if level and (self.entries[pin] & LEVEL or not was_high):
            self._send(pin)

    def _send(self, pin: int) -> None:
        entry = self.entries[pin]
        if entry & MASKED or (entry & LEVEL and entry & REMOTE_IRR):
            return
        if entry & LEVEL:
            self.entries[pin] |= REMOTE_IRR
        targets = self.bus.addressed(entry >> 56, bool(entry & LOGICAL))
        self.bus.deliver(entry & 0x87FF, targets)

    def end_of_interrupt(self, vector: int) -> None:
        """A processor is done with a level interrupt (R2); the lock is held."""
        for pin, entry in enumerate(self.entries):
            if entry & LEVEL and entry & REMOTE_IRR and entry & 0xFF == vector:
                self.entries[pin] &= ~REMOTE_IRR
                self._send_if_high(pin)

    def _send_if_high(self, pin: int) -> None:
        if self.entries[pin] & LEVEL and self.levels >> pin & 1:
            self._send(pin)

    # -- Registers -------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """A load (ioapic_mem_read)."""
        if size != 4 or offset not in (SELECT, WINDOW):
            return 0
        if offset == SELECT:
            return self.select
        if self.select in (ID, ARBITRATION):
            return self.identity
        if self.select == VERSION:
            return VERSION_VALUE
        pin, half = divmod(self.select - TABLE, 2)
        return self.entries[pin] >> 32 * half & 0xFFFF_FFFF if 0 <= pin < PINS else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """A store (ioapic_mem_write)."""
        if size != 4:
            return
        with self.bus.lock:
            if offset == SELECT:
                self.select = value & 0xFF
            elif offset == WINDOW and self.select == ID:
                self.identity = value & 0x0F00_0000
            elif offset == WINDOW and 0 <= self.select - TABLE < 2 * PINS:
                self._write_entry(*divmod(self.select - TABLE, 2), value)

    def _write_entry(self, pin: int, half: int, value: int) -> None:
        entry = self.entries[pin]
        if half:
            self.entries[pin] = entry & 0xFFFF_FFFF | value << 32
            return
        self.entries[pin] = entry & ~0xFFFF_FFFF | entry & READ_ONLY | value & ~READ_ONLY
        if not value & LEVEL:
            self.entries[pin] &= ~REMOTE_IRR
        self._send_if_high(pin)
