# SPDX-License-Identifier: GPL-2.0-only
"""Local APICs: each processor's interrupt controller and timer (hw/intc/apic.c).

    IOAPIC, other processors  ->  ApicBus.deliver  ->  LocalApic: IRR  ->  take()  ->  ISR  ->  EOI

IRR, ISR and TMR are numbers of 256 bits, one for each vector: requested, in service, level.
An interrupt is taken when its class (vector >> 4) is above the task priority's and above that of
everything in service.

Modelled: fixed, lowest-priority, INIT and STARTUP messages, physical and logical (flat)
destinations, all shorthands, the timer one-shot and periodic at 1 GHz (KVM's rate). Not modelled:
NMI, SMI, ExtINT and the pins LINT0/1, logical clusters, x2APIC, the TSC deadline, the error
register's contents.

Rules:
R1  Everything that other threads read is written under `bus.lock`: IRR, ISR, the timer, `startup`.
R2  Registers are 32 bits wide, 16 bytes apart. Any other access reads 0 and writes nothing.
R3  `bus.wake` is called with the lock held, after the reason for it was written.

Source: Intel SDM volume 3, chapter 11.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.aio.world import Lock

BASE, SIZE = 0xFEE0_0000, 0x1000
ID, VERSION, TPR, PPR, EOI, LDR, DFR, SVR = 0x20, 0x30, 0x80, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0
ISR, TMR, IRR, ESR, ICR_LOW, ICR_HIGH = 0x100, 0x180, 0x200, 0x280, 0x300, 0x310
LVT_TIMER, LVT_LAST, TIMER_INITIAL, TIMER_CURRENT, TIMER_DIVIDE = 0x320, 0x370, 0x380, 0x390, 0x3E0
VERSION_VALUE = 0x0005_0014  # an APIC inside the processor, six entries in the LVT
MASKED, PERIODIC, ENABLED = 1 << 16, 1 << 17, 1 << 8
FIXED, LOWEST, INIT, STARTUP = 0, 1, 5, 6
LEVEL, ASSERT = 1 << 15, 1 << 14
EVERYBODY = 0xFF
SELF, ALL, OTHERS = 1, 2, 3  # the shorthands


class ApicBus:
    """What joins the local APICs with each other and with the IOAPIC."""

    def __init__(self, lock: Lock, now_ns: Callable[[], int]) -> None:
        self.lock, self.now_ns = lock, now_ns
        self.apics: list[LocalApic] = []
        self.wake: Callable[[int], None] = _nobody  # a processor has something new (R3)
        self.end_of_interrupt: Callable[[int], None] = _nobody  # a level vector: the IOAPIC's
        self.timer_changed: Callable[[], None] = _nothing

    def deliver(self, message: int, targets: list[LocalApic]) -> None:
        """A message to processors; its low 16 bits as in the ICR. The lock is held."""
        mode, vector = message >> 8 & 7, message & 0xFF
        if mode == LOWEST:
            targets = targets[:1]
        for apic in targets:
            if mode in (FIXED, LOWEST):
                apic.request(vector, bool(message & LEVEL))
            elif mode == STARTUP or (mode == INIT and message & (LEVEL | ASSERT) != LEVEL):
                apic.start_up(mode, vector)

    def addressed(self, destination: int, logical: bool) -> list[LocalApic]:
        """The APICs that a destination names; the lock is held."""
        if destination == EVERYBODY:
            return self.apics
        if logical:
            return [apic for apic in self.apics if apic.registers[LDR] >> 24 & destination]
        return [apic for apic in self.apics if apic.index == destination]


class LocalApic:
    """One processor's local APIC (APICCommonState)."""

    def __init__(self, index: int, bus: ApicBus) -> None:
        self.index, self.bus = index, bus
        bus.apics.append(self)
        self.reset()

    def reset(self, keep: bool = False) -> None:
        """The state after power-on and INIT: switched off by software, everything masked.
        `keep`: INIT and STARTUP messages that wait for the processor stay.
        """
        self.irr = self.isr = self.tmr = 0
        if not keep:
            self.startup: list[tuple[int, int]] = []  # INIT or STARTUP, and its vector
        self.registers = dict.fromkeys(range(0, 0x400, 0x10), 0)
        self.registers |= dict.fromkeys(range(LVT_TIMER, LVT_LAST + 1, 0x10), MASKED)
        self.registers |= {ID: self.index << 24, VERSION: VERSION_VALUE, DFR: 0xFFFF_FFFF}
        self.registers[SVR] = 0xFF
        self.timer_start = 0
        self.deadline: int | None = None  # when the timer interrupts next, in ns

    # -- Interrupts ------------------------------------------------------------------------

    def request(self, vector: int, level: bool = False) -> None:
        """An interrupt arrives (apic_set_irq); the lock is held."""
        if vector < 16 or not self.registers[SVR] & ENABLED:
            return
        bit = 1 << vector
        self.irr |= bit
        self.tmr = self.tmr | bit if level else self.tmr & ~bit
        self.bus.wake(self.index)

    def start_up(self, mode: int, vector: int) -> None:
        """INIT or STARTUP arrives; the lock is held."""
        self.startup.append((mode, vector))
        self.bus.wake(self.index)

    def priority(self) -> int:
        """The class below or at which nothing is taken (PPR)."""
        return max(self.registers[TPR] >> 4 & 15, self.isr.bit_length() - 1 >> 4)

    def pending(self) -> int:
        """The vector that the processor would take now, -1: none (apic_irq_pending)."""
        vector = self.irr.bit_length() - 1
        return vector if vector >= 0 and vector >> 4 > self.priority() else -1

    def take(self) -> int:
        """The processor takes what is pending (apic_get_interrupt); -1: there is none."""
        with self.bus.lock:
            vector = self.pending()
            if vector >= 0:
                self.irr &= ~(1 << vector)
                self.isr |= 1 << vector
            return vector

    def _end_of_interrupt(self) -> None:
        vector = self.isr.bit_length() - 1
        if vector >= 0:
            self.isr &= ~(1 << vector)
            if self.tmr >> vector & 1:
                self.bus.end_of_interrupt(vector)
        if self.irr:
            self.bus.wake(self.index)

    # -- Registers -------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """A load by the processor (apic_mem_readl)."""
        if size != 4 or offset & 15:
            return 0
        if offset == TIMER_CURRENT:
            return self._current_count()
        if offset == PPR:
            return self.priority() << 4
        for base, bits in ((ISR, self.isr), (TMR, self.tmr), (IRR, self.irr)):
            if base <= offset < base + 0x80:
                return bits >> (offset - base) * 2 & 0xFFFF_FFFF
        return self.registers.get(offset, 0)

    def write(self, offset: int, size: int, value: int) -> None:
        """A store by the processor (apic_mem_writel)."""
        if size != 4 or offset & 15:
            return
        with self.bus.lock:
            if offset == EOI:
                self._end_of_interrupt()
            elif offset == ICR_LOW:
                self.registers[ICR_LOW] = value & ~0x1000  # sent at once: never "pending"
                self._send(value)
            elif offset in (LVT_TIMER, TIMER_INITIAL, TIMER_DIVIDE):
                self._write_timer(offset, value)
            elif offset in (TPR, LDR, DFR, SVR, ICR_HIGH) or LVT_TIMER < offset <= LVT_LAST:
                self.registers[offset] = value
                if self.irr:
                    self.bus.wake(self.index)

    def _send(self, command: int) -> None:
        """An interrupt to other processors (apic_deliver)."""
        apics, shorthand = self.bus.apics, command >> 18 & 3
        if shorthand == SELF:
            apics = [self]
        elif shorthand == OTHERS:
            apics = [apic for apic in apics if apic is not self]
        elif not shorthand:
            apics = self.bus.addressed(self.registers[ICR_HIGH] >> 24, bool(command & 1 << 11))
        self.bus.deliver(command & 0xFFFF, apics)

    # -- The timer: one count is `divide` nanoseconds ----------------------------------------

    def _divide(self) -> int:
        value = self.registers[TIMER_DIVIDE]
        return 1 << ((value & 3 | value >> 1 & 4) + 1 & 7)

    def _current_count(self) -> int:
        count = self.registers[TIMER_INITIAL]
        passed = (self.bus.now_ns() - self.timer_start) // self._divide()
        if self.registers[LVT_TIMER] & PERIODIC:
            return count - passed % count if count else 0
        return max(0, count - passed)

    def _write_timer(self, offset: int, value: int) -> None:
        self.registers[offset] = value
        if offset == TIMER_INITIAL:
            self.timer_start = self.bus.now_ns()
        before, self.deadline = (
            self.deadline,
            self._next_deadline(self.timer_start if offset == TIMER_INITIAL else self.bus.now_ns()),
        )
        if self.deadline is not None and self.deadline != before:
            self.bus.timer_changed()

    def _next_deadline(self, after: int) -> int | None:
        count, mode = self.registers[TIMER_INITIAL], self.registers[LVT_TIMER]
        if not count or mode & MASKED:
            return None
        period = count * self._divide()
        if mode & PERIODIC:
            return self.timer_start + ((after - self.timer_start) // period + 1) * period
        end = self.timer_start + period
        return end if end > after else None

    def expire(self, now: int) -> None:
        """Interrupts if it is time (apic_timer); the lock is held."""
        if self.deadline is not None and now >= self.deadline:
            self.deadline = self._next_deadline(now)
            self.request(self.registers[LVT_TIMER] & 0xFF)


def _nobody(number: int) -> None:
    """A bus without processors, or without an IOAPIC."""


def _nothing() -> None:
    """A bus whose timers nobody watches."""
