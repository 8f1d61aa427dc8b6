# SPDX-License-Identifier: GPL-2.0-only
"""A guest driver in Python: plays the guest's side of virtio-mmio and split rings.

It sees what a guest sees and no more: a window of registers (`read`, `write`), and plain memory.
So one test drives a device without a processor, and one benchmark measures the device alone.

    driver = RingDriver(window, memory)
    driver.start()                              # the standard's sequence, up to DRIVER_OK
    head = driver.queues[0].submit(chain)       # chain: [(gpa, length, device may write), ...]
    driver.kick(0)
    driver.queues[0].reap()                     # [(head, used length), ...]

Hostile tests break every rule here through the same methods: `write_desc`, `make_available`, and
the registers are not guarded.
"""

from __future__ import annotations

import struct
from typing import Protocol

from miniqemu.hw import virtio_mmio as mmio
from miniqemu.hw import virtio_status as status
from miniqemu.hw.virtio import F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1
from miniqemu.hw.virtqueue import DESC, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE
from miniqemu.machine.memory import GuestMemory

NO_INTERRUPT = 1
Buffer = tuple[int, int, bool]  # guest physical address, length, device may write


class Window(Protocol):
    """The registers."""

    def read(self, offset: int, size: int) -> int: ...
    def write(self, offset: int, size: int, value: int) -> None: ...


class Pages:
    """Hands out guest memory, and never takes it back."""

    def __init__(self, base: int) -> None:
        self.next = base

    def take(self, length: int, alignment: int = 16) -> int:
        gpa = -(-self.next // alignment) * alignment
        self.next = gpa + length
        return gpa


class DriverQueue:
    """The driver's side of one split ring."""

    def __init__(self, memory: GuestMemory, pages: Pages, num: int, features: int) -> None:
        self.memory = memory
        self.num = num
        self.event_idx = bool(features & F_EVENT_IDX)
        self.desc = pages.take(16 * num, 16)
        self.avail = pages.take(6 + 2 * num, 2)
        self.used = pages.take(6 + 8 * num, 4)
        self.tables = [pages.take(16 * 64) for _ in range(num)]  # for indirect descriptors
        for ring, length in ((self.avail, 6 + 2 * num), (self.used, 6 + 8 * num)):
            memory.write(ring, bytes(length))
        self._avail = memory.view(self.avail, 6 + 2 * num).cast("H")
        self._used = memory.view(self.used, 6 + 8 * num).cast("H")
        self.free = list(range(num - 1, -1, -1))
        self.chains: dict[int, list[int]] = {}
        self.avail_idx = self.last_used = 0

    def close(self) -> None:
        """Lets go of guest memory."""
        self._avail.release()
        self._used.release()

    def write_desc(
        self, number: int, gpa: int, length: int, flags: int, following: int = 0, table: int = 0
    ) -> None:
        """Writes one descriptor, of the table at `table` or of the queue's own."""
        self.memory.write(
            (table or self.desc) + 16 * number, DESC.pack(gpa, length, flags, following)
        )

    def write_chain(self, chain: list[Buffer]) -> int:
        """Writes a chain into free descriptors; returns its head."""
        numbers = [self.free.pop() for _ in chain]
        for position, (gpa, length, writable) in enumerate(chain):
            last = position == len(chain) - 1
            flags = (DESC_F_WRITE if writable else 0) | (0 if last else DESC_F_NEXT)
            following = 0 if last else numbers[position + 1]
            self.write_desc(numbers[position], gpa, length, flags, following)
        self.chains[numbers[0]] = numbers
        return numbers[0]

    def write_indirect(self, chain: list[Buffer]) -> int:
        """Writes a chain into a table of its own; returns the head that refers to it."""
        head = self.free.pop()
        table = self.tables[head]
        for position, (gpa, length, writable) in enumerate(chain):
            last = position == len(chain) - 1
            flags = (DESC_F_WRITE if writable else 0) | (0 if last else DESC_F_NEXT)
            self.write_desc(position, gpa, length, flags, position + 1, table)
        self.write_desc(head, table, 16 * len(chain), DESC_F_INDIRECT)
        self.chains[head] = [head]
        return head

    def make_available(self, head: int) -> None:
        """Puts a head into the available ring and publishes it."""
        self._avail[2 + self.avail_idx % self.num] = head
        self.avail_idx = (self.avail_idx + 1) & 0xFFFF
        self._avail[1] = self.avail_idx

    def set_avail_idx(self, value: int) -> None:
        """Publishes any index, true or not."""
        self.avail_idx = value & 0xFFFF
        self._avail[1] = self.avail_idx

    def submit(self, chain: list[Buffer], *, indirect: bool = False) -> int:
        """Writes a chain and makes it available; returns its head."""
        head = self.write_indirect(chain) if indirect else self.write_chain(chain)
        self.make_available(head)
        return head

    @property
    def used_idx(self) -> int:
        """The device's index."""
        return self._used[1]

    @property
    def wants_no_kick(self) -> bool:
        """Whether the device asked not to be rung (without EVENT_IDX)."""
        return bool(self._used[0] & 1)

    @property
    def avail_event(self) -> int:
        """The index at which the device wants to be rung (with EVENT_IDX)."""
        return self._used[2 + 4 * self.num]

    def must_kick(self, old: int) -> bool:
        """Whether what was added since `old` needs a doorbell."""
        if not self.event_idx:
            return not self.wants_no_kick
        return ((self.avail_idx - self.avail_event - 1) & 0xFFFF) < (
            (self.avail_idx - old) & 0xFFFF
        )

    def suppress_interrupts(self, suppress: bool = True) -> None:
        """Sets or clears VRING_AVAIL_F_NO_INTERRUPT."""
        self._avail[0] = NO_INTERRUPT if suppress else 0

    def set_used_event(self, index: int) -> None:
        """Asks for an interrupt when the used index passes this one."""
        self._avail[2 + self.num] = index & 0xFFFF

    def reap(self) -> list[tuple[int, int]]:
        """Takes what the device has given back: head and length of each."""
        done = []
        while self.last_used != self._used[1]:
            entry = self.used + 4 + 8 * (self.last_used % self.num)
            head, length = struct.unpack("<II", self.memory.read(entry, 8))
            done.append((head, length))
            self.free.extend(self.chains.pop(head, []))
            self.last_used = (self.last_used + 1) & 0xFFFF
        return done


class RingDriver:
    """The driver of one device."""

    def __init__(self, window: Window, memory: GuestMemory, base: int = 0x10000) -> None:
        self.window = window
        self.memory = memory
        self.pages = Pages(base)
        self.queues: list[DriverQueue] = []
        self.features = 0

    def reg(self, offset: int) -> int:
        """Reads a register."""
        return self.window.read(offset, 4)

    def set_reg(self, offset: int, value: int) -> None:
        """Writes a register."""
        self.window.write(offset, 4, value)

    @property
    def status(self) -> int:
        """The status register."""
        return self.reg(mmio.STATUS)

    def add_status(self, bits: int) -> int:
        """Sets bits in the status register; returns what it shows then."""
        self.set_reg(mmio.STATUS, self.status | bits)
        return self.status

    def offered(self) -> int:
        """The device's features."""
        value = 0
        for sel in (0, 1):
            self.set_reg(mmio.DEVICE_FEATURES_SEL, sel)
            value |= self.reg(mmio.DEVICE_FEATURES) << (32 * sel)
        return value

    def accept(self, features: int) -> None:
        """Writes the driver's features."""
        for sel in (0, 1):
            self.set_reg(mmio.DRIVER_FEATURES_SEL, sel)
            self.set_reg(mmio.DRIVER_FEATURES, (features >> (32 * sel)) & 0xFFFF_FFFF)
        self.features = features

    def negotiate(self, features: int | None = None) -> int:
        """Resets the device and goes up to FEATURES_OK; `None` takes all that is offered."""
        self.close()
        self.set_reg(mmio.STATUS, 0)
        self.add_status(status.ACKNOWLEDGE)
        self.add_status(status.DRIVER)
        offered = self.offered()
        self.accept(offered if features is None else features | F_VERSION_1)
        return self.add_status(status.FEATURES_OK)

    def set_up_queue(self, index: int, num: int) -> DriverQueue:
        """Makes the rings of one queue and tells the device where they are."""
        queue = DriverQueue(self.memory, self.pages, num, self.features)
        self.place_queue(index, num, queue.desc, queue.avail, queue.used)
        self.queues.append(queue)
        return queue

    def place_queue(self, index: int, num: int, desc: int, avail: int, used: int) -> int:
        """Writes a queue's registers, whatever they are; returns QueueReady."""
        self.set_reg(mmio.QUEUE_SEL, index)
        self.set_reg(mmio.QUEUE_NUM, num)
        for low, value in (
            (mmio.QUEUE_DESC_LOW, desc),
            (mmio.QUEUE_DRIVER_LOW, avail),
            (mmio.QUEUE_DEVICE_LOW, used),
        ):
            self.set_reg(low, value & 0xFFFF_FFFF)
            self.set_reg(low + 4, value >> 32)
        self.set_reg(mmio.QUEUE_READY, 1)
        return self.reg(mmio.QUEUE_READY)

    def start(self, features: int | None = None, num: int = 8, queues: int = 1) -> DriverQueue:
        """The whole sequence (3.1.1); returns queue 0."""
        assert self.negotiate(features) & status.FEATURES_OK, "the device refused the features"
        for index in range(queues):
            self.set_up_queue(index, num)
        self.add_status(status.DRIVER_OK)
        return self.queues[0]

    def kick(self, index: int = 0) -> None:
        """Rings the doorbell."""
        self.set_reg(mmio.QUEUE_NOTIFY, index)

    def acknowledge(self) -> int:
        """Reads the interrupt status and acknowledges it, as a handler does."""
        bits = self.reg(mmio.INTERRUPT_STATUS)
        self.set_reg(mmio.INTERRUPT_ACK, bits)
        return bits

    @property
    def indirect(self) -> bool:
        """Whether indirect descriptors were negotiated."""
        return bool(self.features & F_INDIRECT_DESC)

    def close(self) -> None:
        """Forgets all queues."""
        for queue in self.queues:
            queue.close()
        self.queues.clear()
