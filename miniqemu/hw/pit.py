# SPDX-License-Identifier: GPL-2.0-only
"""The i8254 interval timer: three counters at 1.193182 MHz (hw/timer/i8254.c).

    ports 0x40-0x42   the counters      0x43   commands      0x61   gate and output of counter 2

Counter 0's output is GSI 0. Counter 2 is what kernels calibrate other clocks with: its gate and
output are bits of port 0x61. A counter is never stepped: what it holds is computed from the time
that has passed since it was loaded.

Modelled: modes 0, 2 and 3 (1, 4 and 5 count like 0), latch, read-back, byte-wise access. Not
modelled: BCD (counted in binary), the speaker.

Rule: `deadline` and `expire` are under the lock of the interrupt controllers, as is every write.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.aio.world import Lock

BASE, SIZE, GATE_PORT = 0x40, 4, 0x61
HERTZ = 1_193_182
SECOND = 1_000_000_000
LOW, HIGH, BOTH = 1, 2, 3  # how a counter is accessed


class Counter:
    """One of the three (PITChannelState)."""

    def __init__(self) -> None:
        self.mode, self.access, self.count = 3, BOTH, 0x1_0000
        self.start = 0
        self.gate = True
        self.running = False
        self.low: int | None = None  # the first byte of two that were written
        self.latched: list[int] = []  # bytes that reads give first
        self.high_next = False

    def ticks(self, now: int) -> int:
        """How many ticks have passed since it was loaded."""
        return (now - self.start) * HERTZ // SECOND

    def value(self, now: int) -> int:
        """What it holds."""
        if not self.running:
            return self.count & 0xFFFF
        ticks = self.ticks(now)
        if self.mode == 3:
            return (self.count - 2 * ticks % self.count) & 0xFFFE
        if self.mode == 2:
            return (self.count - ticks % self.count) & 0xFFFF
        return (self.count - ticks) & 0xFFFF

    def output(self, now: int) -> bool:
        """Its output pin."""
        ticks = self.ticks(now)
        if self.mode == 3:
            return ticks % self.count < (self.count + 1) // 2
        if self.mode == 2:
            return ticks % self.count != self.count - 1
        return self.running and ticks >= self.count

    def next_rise(self, now: int) -> int | None:
        """When its output rises next, None: never again."""
        if not self.running:
            return None
        ticks = self.ticks(now)
        if self.mode in (2, 3):
            ticks = (ticks // self.count + 1) * self.count
        elif ticks >= self.count:
            return None
        else:
            ticks = self.count
        return self.start - (-ticks * SECOND // HERTZ)


class Pit:
    """The timer's ports (PITCommonState)."""

    base, size, name = BASE, SIZE, "i8254"

    def __init__(
        self, lock: Lock, now_ns: Callable[[], int], rise: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:  # fmt: skip
        """`rise()`: an edge on GSI 0; `changed()`: the deadline is another. Lock held."""
        self.lock, self.now_ns, self._rise, self._changed = lock, now_ns, rise, changed
        self.reset()

    def reset(self) -> None:
        """Power-on: nothing counts."""
        self.counters = [Counter() for _ in range(3)]
        self.counters[2].gate = False
        self.deadline: int | None = None

    def expire(self, now: int) -> None:
        """Interrupts if it is time (pit_irq_timer); the lock is held."""
        if self.deadline is not None and now >= self.deadline:
            self.deadline = self.counters[0].next_rise(now)
            self._rise()

    def read(self, offset: int, size: int) -> int:
        """A load from a counter, low byte first."""
        if offset == 3:
            return 0
        counter = self.counters[offset]
        if counter.latched:
            return counter.latched.pop(0)
        value = counter.value(self.now_ns())
        high = counter.access == HIGH or (counter.access == BOTH and counter.high_next)
        counter.high_next = counter.access == BOTH and not counter.high_next
        return value >> 8 if high else value & 0xFF

    def write(self, offset: int, size: int, value: int) -> None:
        """A command, or a byte of a count."""
        with self.lock:
            if offset == 3:
                self._command(value & 0xFF)
            else:
                self._write_count(self.counters[offset], value & 0xFF)
            self._watch()

    def _watch(self) -> None:
        before, self.deadline = self.deadline, self.counters[0].next_rise(self.now_ns())
        if self.deadline is not None and self.deadline != before:
            self._changed()

    def _command(self, value: int) -> None:
        if value >> 6 == 3:
            self._read_back(value)
            return
        counter, access = self.counters[value >> 6], value >> 4 & 3
        if not access:
            self._latch(counter)
            return
        mode = value >> 1 & 7
        counter.mode, counter.access = mode & 3 if mode > 5 else mode, access
        counter.running, counter.low, counter.high_next = False, None, False
        counter.latched.clear()

    def _latch(self, counter: Counter) -> None:
        if not counter.latched:
            value = counter.value(self.now_ns())
            both = [value & 0xFF, value >> 8]
            counter.latched = {LOW: both[:1], HIGH: both[1:]}.get(counter.access, both)

    def _read_back(self, value: int) -> None:
        for number, counter in enumerate(self.counters):
            if not value >> number + 1 & 1:
                continue
            if not value & 1 << 5:
                self._latch(counter)
            if not value & 1 << 4:
                out = counter.output(self.now_ns()) << 7 | (not counter.running) << 6
                counter.latched.insert(0, out | counter.access << 4 | counter.mode << 1)

    def _write_count(self, counter: Counter, value: int) -> None:
        if counter.access == BOTH and counter.low is None:
            counter.low = value
            return
        count = value << 8 if counter.access == HIGH else value
        if counter.access == BOTH:
            count, counter.low = value << 8 | (counter.low or 0), None
        counter.count = count or 0x1_0000
        counter.start, counter.running = self.now_ns(), True


class GatePort:
    """Port 0x61: counter 2's gate (bit 0) and output (bit 5), and a bit that blinks (4)."""

    base, size, name = GATE_PORT, 1, "port 0x61"

    def __init__(self, pit: Pit) -> None:
        self.pit, self.speaker = pit, 0

    def read(self, offset: int, size: int) -> int:
        """A load."""
        now, counter = self.pit.now_ns(), self.pit.counters[2]
        blink = now // 15_000 & 1  # the refresh of the memory of 1984
        return counter.gate | self.speaker << 1 | blink << 4 | counter.output(now) << 5

    def write(self, offset: int, size: int, value: int) -> None:
        """A store; a gate that rises starts the count again."""
        counter = self.pit.counters[2]
        if value & 1 and not counter.gate:
            counter.start = self.pit.now_ns()
        counter.gate, self.speaker = bool(value & 1), value >> 1 & 1
