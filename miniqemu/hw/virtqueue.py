# SPDX-License-Identifier: GPL-2.0-only
"""Split virtqueues, the device's side (virtio 1.2, section 2.7; QEMU's hw/virtio/virtio.c).

A queue is three areas of guest memory. The driver writes descriptors and the available ring;
the device writes the used ring. Both poll each other's index while the other runs:

    descriptor table   num * {u64 addr, u32 len, u16 flags, u16 next}
    available ring     u16 flags, u16 idx, u16 ring[num], u16 used_event
    used ring          u16 flags, u16 idx, {u32 id, u32 len} ring[num], u16 avail_event

Rules:
R1  Nothing in guest memory is believed: each index, length and address is checked before use,
    and read once. What is wrong ends in `device.error()`, which asks for a reset. No exception
    leaves `pop`.
R2  The areas are resolved once, by `enable`, and are views of guest memory from then on.
R3  What the driver polls is written by one 16- or 32-bit store through a cast memoryview.
    `struct.pack_into` zeroes a field before it writes it, and a driver on another processor
    sees that: of 2,000 requests 1,955 were lost so.
R4  A store that the driver must see before our next load (the event index before the re-read
    of the available index; the used index before the check of its flags) needs a full fence.
    A lock's acquire and release is one; `_fence` has no other purpose.
R5  `enable` and `disable` belong to the main thread while the device is stopped; everything
    else belongs to the thread of the context that serves the device.

Discussion: of a chain's descriptors most lie in one table, in order, so they are read one
by one with `unpack_from`; the fast path makes no object but the two lists it returns.
"""

from __future__ import annotations

import sys

from block.lean import Struct
from miniqemu.machine.memory import GuestMemory, GuestMemoryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from block.aio.notifier import EventNotifier
    from block.aio.world import Lock
else:
    Protocol = object

MAX_SIZE = 1024  # of a queue, and of the descriptors in one chain (VIRTQUEUE_MAX_SIZE)

DESC = Struct("<QIHH")
DESC_F_NEXT = 1
DESC_F_WRITE = 2
DESC_F_INDIRECT = 4
AVAIL_F_NO_INTERRUPT = 1
USED_F_NO_NOTIFY = 1

F_INDIRECT_DESC = 1 << 28
F_EVENT_IDX = 1 << 29

# Chain: the head's number, what the device may read, what it may write.
Chain = tuple[int, list[memoryview], list[memoryview]]

assert sys.byteorder == "little", "the casts of the rings assume a little-endian host"


class BrokenRing(Exception):
    """The driver put something into a queue that the standard forbids."""


class QueueOwner(Protocol):
    """What a queue needs of its device."""

    def error(self, message: str) -> None:
        """Something the device cannot recover from: ask for a reset (virtio_error)."""


class VirtQueue:
    """One queue of a device (struct VirtQueue)."""

    __slots__ = (
        "_avail", "_desc", "_device", "_event_idx", "_fence", "_in_flight", "_indirect",
        "_mask", "_shadow_avail", "_signalled", "_used", "_used_ring", "_view",
        "avail_addr", "desc_addr", "host_notifier", "in_use", "index", "last_avail", "max_size",
        "notify_pending", "num", "polled", "ready", "used_addr", "used_idx",
    )  # fmt: skip

    _avail: memoryview  # u16: flags, idx, ring, used_event
    _used: memoryview  # u16: flags, idx, ..., avail_event
    _used_ring: memoryview  # u32: flags and idx, then id and len by turns
    _desc: memoryview

    def __init__(self, device: QueueOwner, index: int, max_size: int, fence: Lock) -> None:
        self._device = device
        self._fence = fence
        self.index = index
        self.max_size = max_size
        self.host_notifier: EventNotifier | None = None  # the doorbell, while there is one
        self.reset()

    def reset(self) -> None:
        """The state after a device reset; lets go of guest memory."""
        self.disable()
        self.num = self.max_size
        self.desc_addr = self.avail_addr = self.used_addr = 0

    def disable(self) -> None:
        """QueueReady 0: forgets the rings and how far they were used."""
        self.ready = False
        nothing = memoryview(b"")
        self._desc = self._avail = self._used = self._used_ring = nothing
        self._in_flight = bytearray()
        self.in_use = self.last_avail = self.used_idx = self._shadow_avail = 0
        self.polled = False  # somebody looks at the ring: the driver need not ring
        self._signalled = -1  # nothing signalled yet: the first completion always is
        self.notify_pending = False

    # -- Set-up ----------------------------------------------------------------------------

    def enable(self, memory: GuestMemory, features: int) -> None:
        """QueueReady 1: checks the driver's numbers and resolves the rings (R2).

        `features`: as negotiated. Raises BrokenRing when a ring cannot be there.
        """
        num = self.num
        if not 0 < num <= self.max_size or num & (num - 1):
            raise BrokenRing(f"queue {self.index}: size {num} is no power of 2 up to the maximum")
        self._event_idx = bool(features & F_EVENT_IDX)
        self._indirect = bool(features & F_INDIRECT_DESC)
        event = 2 if self._event_idx else 0
        self._desc = self._area(memory, "descriptor table", self.desc_addr, 16 * num, 16)
        avail = self._area(memory, "available ring", self.avail_addr, 4 + 2 * num + event, 2)
        used = self._area(memory, "used ring", self.used_addr, 4 + 8 * num + event, 4)
        self._avail, self._used = avail.cast("H"), used.cast("H")
        self._used_ring = used[: 4 + 8 * num].cast("I")
        self._view = memory.view
        self._mask = num - 1
        self._in_flight = bytearray(num)
        self.ready = True

    def _area(
        self, memory: GuestMemory, what: str, gpa: int, length: int, alignment: int
    ) -> memoryview:
        if gpa % alignment:
            raise BrokenRing(f"queue {self.index}: {what} at 0x{gpa:x} is not {alignment}-aligned")
        try:
            return memory.view(gpa, length)
        except GuestMemoryError as error:
            raise BrokenRing(f"queue {self.index}: {what}: {error}") from None

    # -- From the driver -------------------------------------------------------------------

    def pop(self) -> Chain | None:
        """The next chain that the driver made available, or None (virtqueue_pop).

        None as well when the ring turns out to be broken; the device has then been told.
        """
        last = self.last_avail
        if last == self._shadow_avail and not self._refresh():
            return None
        head = self._avail[2 + (last & self._mask)]
        try:
            if head > self._mask:
                raise BrokenRing(f"head {head} is outside the descriptor table")
            if self._in_flight[head]:
                raise BrokenRing(f"head {head} was made available twice")
            out: list[memoryview] = []
            into: list[memoryview] = []
            self._walk(head, out, into)
        except (BrokenRing, GuestMemoryError) as error:
            self._device.error(f"queue {self.index}: {error}")
            return None
        self._in_flight[head] = 1
        self.in_use += 1
        self.last_avail = (last + 1) & 0xFFFF
        return head, out, into

    def _refresh(self) -> bool:
        """Re-reads the available index; False when nothing is new (virtqueue_num_heads)."""
        index = self._avail[1]
        fresh = (index - self.last_avail) & 0xFFFF
        if not fresh:
            return False
        with self._fence:  # on weakly ordered hosts the ring's entries are read after it
            pass
        if fresh > self._mask + 1 - self.in_use:
            self._device.error(
                f"queue {self.index}: available index jumped from {self.last_avail} to {index}"
            )
            return False
        self._shadow_avail = index
        return True

    def _walk(self, index: int, out: list[memoryview], into: list[memoryview]) -> None:
        """Collects a chain's buffers (virtqueue_split_pop's loop)."""
        table, limit, left = self._desc, self._mask, self._mask + 1
        view, unpack = self._view, DESC.unpack_from
        while True:
            addr, length, flags, following = unpack(table, index << 4)
            if not flags & DESC_F_INDIRECT:
                if not length:
                    raise BrokenRing("descriptor of length 0")
                if flags & DESC_F_WRITE:
                    into.append(view(addr, length))
                elif into:
                    raise BrokenRing("device-readable descriptor after a device-writable one")
                else:
                    out.append(view(addr, length))
                if not flags & DESC_F_NEXT:
                    return
            else:
                table = self._indirect_table(table, addr, length, flags)
                limit, left, following = (length >> 4) - 1, MAX_SIZE - len(out) - len(into) + 1, 0
            if following > limit:
                raise BrokenRing(f"next descriptor {following} is outside the table")
            left -= 1
            if not left:
                raise BrokenRing("descriptors form a loop or too long a chain")
            index = following

    def _indirect_table(self, table: memoryview, addr: int, length: int, flags: int) -> memoryview:
        """The table that an indirect descriptor refers to (2.7.5.3); WRITE is ignored there."""
        if not self._indirect:
            raise BrokenRing("indirect descriptor, but INDIRECT_DESC was not negotiated")
        if table is not self._desc:
            raise BrokenRing("indirect descriptor in an indirect table")
        if flags & DESC_F_NEXT:
            raise BrokenRing("indirect descriptor that goes on to a next one")
        if not length or length % DESC.size:
            raise BrokenRing(f"indirect table of {length} bytes")
        return self._view(addr, length)

    # -- To the driver ---------------------------------------------------------------------

    def push(self, head: int, length: int) -> None:
        """Gives a chain back, `length` bytes written into it (virtqueue_push).

        The interrupt is another matter: see `needs_interrupt`.
        """
        index = self.used_idx
        slot = 1 + ((index & self._mask) << 1)
        ring = self._used_ring
        ring[slot] = head
        ring[slot + 1] = length
        self._in_flight[head] = 0
        self.in_use -= 1
        self.used_idx = index = (index + 1) & 0xFFFF
        with self._fence:  # R4: the entry before the index, also on weakly ordered hosts
            self._used[1] = index

    def detach(self, head: int) -> None:
        """Forgets a chain that will never be given back (virtqueue_detach_element)."""
        self._in_flight[head] = 0
        self.in_use -= 1

    def disable_notification(self) -> None:
        """Asks the driver not to ring while the queue is being emptied."""
        if not self._event_idx:
            self._used[0] = USED_F_NO_NOTIFY
        # With EVENT_IDX an avail_event that lags behind has the same effect.

    def enable_notification(self) -> bool:
        """Asks for a ring again; False when the driver added something meanwhile (R4).

        While somebody looks at the ring nothing is asked for.
        """
        if self.polled:
            pass
        elif self._event_idx:
            self._used[4 * self._mask + 6] = self.last_avail
        else:
            self._used[0] = 0
        with self._fence:
            pass
        return self._avail[1] == self.last_avail

    def pending(self) -> bool:
        """Whether the driver has added something (virtio_queue_empty)."""
        return self._avail[1] != self.last_avail

    def begin_polling(self) -> None:
        """The ring is looked at: the driver need not ring (virtio_queue_set_notification)."""
        self.polled = True
        self.disable_notification()
        if self._event_idx:  # asked for was a ring at the very next one
            self._used[4 * self._mask + 6] = (self.last_avail - 1) & 0xFFFF

    def end_polling(self) -> bool:
        """The driver must ring again; False when it added something meanwhile."""
        self.polled = False
        return self.enable_notification()

    def waited_for(self) -> bool:
        """Whether the driver wants to hear of the very next buffer: it sleeps, or is about to."""
        if self._event_idx:
            return self._avail[self._mask + 3] == self.used_idx
        return not self._avail[0] & AVAIL_F_NO_INTERRUPT

    def needs_interrupt(self) -> bool:
        """Whether the driver wants to hear of what was pushed (virtio_should_notify)."""
        with self._fence:
            pass
        if not self._event_idx:
            return not self._avail[0] & AVAIL_F_NO_INTERRUPT
        old, new = self._signalled, self.used_idx
        self._signalled = new
        if old < 0:
            return True
        used_event = self._avail[self._mask + 3]
        return ((new - used_event - 1) & 0xFFFF) < ((new - old) & 0xFFFF)
