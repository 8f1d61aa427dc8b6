# SPDX-License-Identifier: GPL-2.0-only
"""Fuzz target: a guest that does anything at all to a virtio-blk device.

The input is a program for a bad guest. An instruction has 12 bytes:

    u8 what   u8 a   u16 b   u64 c        (little-endian; OPERATIONS says what they mean)

The device is the real one: transport, rings, virtio-blk, BlockBackend, over a disk in memory.
After each program must hold:

R1  No exception left the device, and its loop has come to rest.
R2  Nothing was stored into descriptors, the available ring, or buffers that the device may only
    read: it gets read-only views of them here.
R3  A reset brings back everything: status 0, nothing in flight, no handler left in the loop.
R4  After the reset a good request is answered.
R5  The device in the next slot has heard of nothing.
R6  A chain that was taken is given back once before it is taken again.
"""

from __future__ import annotations

import errno
import gc
import struct
from collections.abc import Callable

from miniqemu.hw import virtio_mmio as mmio
from miniqemu.hw.virtio_blk_layout import REQUEST_HEADER, S_OK, SEGMENT, T_IN
from miniqemu.hw.virtqueue import DESC, Chain, VirtQueue
from miniqemu.machine.memory import GuestMemory
from tests.support.drivers import Disk, FastReleasingRam, backend_on, ram_node
from tests.support.virtio_rig import Rig

INSTRUCTION = struct.Struct("<BBHQ")
LONGEST = 64 * INSTRUCTION.size  # bytes of a program; a longer one finds nothing more
RAM = 64 << 10
ELSEWHERE = 1 << 20  # a second piece of RAM, for the neighbour and the good request
SECTORS = 64
PATIENCE = 3000  # passes of the loop; a program of 64 instructions needs a few dozen
QUEUES, NUM = 2, 8
REGISTERS = (
    mmio.STATUS, mmio.QUEUE_SEL, mmio.QUEUE_NUM, mmio.QUEUE_READY, mmio.QUEUE_NOTIFY,
    mmio.DRIVER_FEATURES, mmio.DRIVER_FEATURES_SEL, mmio.INTERRUPT_ACK, *mmio.QUEUE_ADDRESSES,
)  # fmt: skip
# What an instruction's first byte means: a method of Target each. New ones go to the end.
OPERATIONS = (
    "write_register", "write_any", "read_any", "start", "descriptor", "header", "segment",
    "available", "available_index", "kick", "poll", "poke", "disk_parks", "disk_fails",
    "stop_or_go", "ring_flags",
)  # fmt: skip


class WatchedQueue(VirtQueue):
    """A queue that gets no view through which it could break R2, and that watches R6."""

    __slots__ = ("taken",)

    def enable(self, memory: GuestMemory, features: int) -> None:
        super().enable(memory, features)
        self._desc, self._avail = self._desc.toreadonly(), self._avail.toreadonly()
        self.taken: set[int] = set()

    def pop(self) -> Chain | None:
        chain = super().pop()
        if chain is None:
            return None
        head, out, into = chain
        assert head not in self.taken, "R6: taken twice"
        self.taken.add(head)
        return head, [view.toreadonly() for view in out], into

    def push(self, head: int, length: int) -> None:
        self.taken.remove(head)
        super().push(head, length)

    def detach(self, head: int) -> None:
        self.taken.remove(head)
        super().detach(head)


class Target:
    """The machine, made once and used for all programs."""

    def __init__(self) -> None:
        self.disk, self.spare = (Disk(512 * SECTORS) for _ in range(2))
        memory = GuestMemory([(0, RAM), (ELSEWHERE, RAM)])
        self.rig = rig = Rig(
            backend_on(ram_node(self.disk, "", FastReleasingRam)), memory=memory, num_queues=QUEUES
        )
        device = rig.device
        device.queues = [
            WatchedQueue(device, queue.index, queue.max_size, queue._fence)
            for queue in device.queues
        ]
        rig.driver.pages.next = ELSEWHERE
        self.neighbour = Rig(backend_on(ram_node(self.spare, "", FastReleasingRam)), beside=rig)
        self.neighbour.driver.pages.next = ELSEWHERE + RAM // 2
        self.neighbour.driver.start()
        self.surroundings = self._surroundings()
        self.nothing = bytes(RAM)
        self.operations: list[Callable[[int, int, int], None]] = [
            getattr(self, name) for name in OPERATIONS
        ]

    def close(self) -> None:
        """Gives the disks and the guest's memory back, whatever a program has left."""
        self.disk.release()
        self.rest()
        self.rig.transport.reset()
        gc.collect()  # an exception's frames hold views of the memory
        for rig in (self.neighbour, self.rig):
            rig.close()
            rig.device.blk.unref()

    def __call__(self, data: bytes) -> None:
        """Runs one program; raises what it finds wrong."""
        self.rig.memory.write(0, self.nothing)
        for at in range(0, min(len(data), LONGEST) - INSTRUCTION.size + 1, INSTRUCTION.size):
            what, a, b, c = INSTRUCTION.unpack_from(data, at)
            self.operations[what % len(self.operations)](a, b, c)
        self.check()

    # -- What the guest can do (OPERATIONS) ------------------------------------------------

    def write_register(self, a: int, b: int, c: int) -> None:
        """A register of the list, any value."""
        self.rig.driver.set_reg(REGISTERS[a % len(REGISTERS)], c & 0xFFFF_FFFF)

    def write_any(self, a: int, b: int, c: int) -> None:
        """Any place of the window, at any width."""
        self.rig.driver.window.write(b % mmio.SIZE, 1 << a % 4, c)

    def read_any(self, a: int, b: int, c: int) -> None:
        """The same, as a load."""
        self.rig.driver.window.read(b % mmio.SIZE, 1 << a % 4)

    def start(self, a: int, b: int, c: int) -> None:
        """The whole sequence of a good driver, so that not every program has to find it.

        `a`: features to leave out. The rings of queue q are at 0x1000 * (q + 1).
        """
        driver = self.rig.driver
        driver.set_reg(mmio.STATUS, 0)
        for value in (1, 3):
            driver.set_reg(mmio.STATUS, value)
        driver.accept(driver.offered() & ~((a & 3) << 28 | (a >> 2) << 9))
        driver.set_reg(mmio.STATUS, 0xB)
        for queue in range(QUEUES):
            base = 0x1000 * (queue + 1)
            driver.place_queue(queue, NUM, base, base + 0x400, base + 0x800)
        driver.set_reg(mmio.STATUS, 0xF)

    def place(self, a: int, c: int) -> int:
        """An address: mostly in RAM, for a negative `a` any that can be written down."""
        return c if a & 0x80 else c % (RAM + 64)

    def store(self, gpa: int, data: bytes) -> None:
        """Writes RAM, where there is some."""
        data = data[: max(0, RAM - gpa)]
        if data:
            self.rig.memory.write(gpa, data)

    def descriptor(self, a: int, b: int, c: int) -> None:
        """`a`: place of the table and the descriptor in it; `b`: flags, next, kind of length."""
        number, table = a & 7, (0x1000, 0x2000, 0x3000, 0x3080)[a >> 3 & 3]
        lengths = (16, 1, 512, 4096, 0, 0xFFFF_FFFF, 32, 15)
        length = lengths[b >> 3 & 7] if b & 0x8000 else c >> 32 & 0xFFFF_FFFF
        addr = self.place(a, c if a & 0x80 else c & 0xFFFF_FFFF)
        self.store(table + 16 * number, DESC.pack(addr, length, b & 7, b >> 6 & 15))

    def header(self, a: int, b: int, c: int) -> None:
        """A request's header at 0x4000."""
        self.store(0x4000 + 16 * (a & 7), REQUEST_HEADER.pack(b & 0x800F, 0, c))

    def segment(self, a: int, b: int, c: int) -> None:
        """A range of a discard or of zeroes at 0x4100."""
        self.store(0x4100 + 16 * (a & 7), SEGMENT.pack(c, b >> 2, b & 3))

    def available(self, a: int, b: int, c: int) -> None:
        """Adds a head to the available ring of a queue."""
        base = 0x1400 + 0x1000 * (a & 1)
        index = int.from_bytes(self.rig.memory.read(base + 2, 2), "little")
        self.store(base + 4 + 2 * (index % NUM), (b & 0x80FF).to_bytes(2, "little"))
        self.store(base + 2, (index + 1 & 0xFFFF).to_bytes(2, "little"))

    def available_index(self, a: int, b: int, c: int) -> None:
        """Any index."""
        self.store(0x1402 + 0x1000 * (a & 1), b.to_bytes(2, "little"))

    def ring_flags(self, a: int, b: int, c: int) -> None:
        """Flags and used_event of the available ring."""
        base = 0x1400 + 0x1000 * (a & 1)
        self.store(base, b.to_bytes(2, "little"))
        self.store(base + 4 + 2 * NUM, (c & 0xFFFF).to_bytes(2, "little"))

    def kick(self, a: int, b: int, c: int) -> None:
        """A doorbell, and time to answer it."""
        self.rig.driver.kick(a % (QUEUES + 1))
        self.rest()

    def poll(self, a: int, b: int, c: int) -> None:
        """Some passes of the main loop."""
        for _ in range(a & 3):
            self.rig.ctx.poll(False)

    def poke(self, a: int, b: int, c: int) -> None:
        """Eight bytes of memory."""
        self.store(b, c.to_bytes(8, "little"))

    def disk_parks(self, a: int, b: int, c: int) -> None:
        """The disk holds its answers back, or gives them."""
        if a & 1:
            self.disk.parked = True
        else:
            self.disk.release()

    def disk_fails(self, a: int, b: int, c: int) -> None:
        """The disk's calls fail from now on (or no longer), by a policy."""
        blk = self.rig.device.blk
        blk.on_read_error = blk.on_write_error = ("report", "ignore", "enospc", "stop")[a & 3]
        number = (errno.EIO, errno.ENOSPC)[a >> 2 & 1]
        names = ("preadv", "pwritev", "flush")[: b & 3]
        self.disk.errors = {name: OSError(number, "fuzz") for name in names}

    def stop_or_go(self, a: int, b: int, c: int) -> None:
        """The person stops the machine, or lets it go on."""
        self.rig.transport.vm_state_changed(bool(a & 1))

    # -- What must hold --------------------------------------------------------------------

    def rest(self) -> None:
        """R1: the loop comes to rest."""
        for _ in range(PATIENCE):
            if not self.rig.ctx.poll(False):
                return
        raise AssertionError("R1: the loop does not come to rest")

    def check(self) -> None:
        """The rules, and back to the beginning."""
        rig, disk = self.rig, self.disk
        disk.release()
        disk.errors = {}
        self.rest()
        rig.transport.vm_state_changed(True)
        rig.transport.reset()
        device = rig.device
        assert device.status_register == device.isr == device.features == 0, "R3: status"
        assert not device.blk.in_flight, "R3: in flight"
        assert not device.stopped, "R3: stopped requests"
        assert not any(queue.in_use or queue.ready for queue in device.queues), "R3: queues"
        self.rest()
        assert not rig.ctx.registrations(device), "R3: handlers"
        rig.driver.pages.next = ELSEWHERE
        rig.driver.start()
        answer = rig.request(T_IN, into=512)
        assert answer.status == S_OK, "R4: status"
        assert answer.used == [(answer.head, 513)], "R4: used ring"
        assert len(disk.data) == 512 * SECTORS, "the disk has another size"
        disk.log.clear()
        rig.reports.clear()
        rig.vm_stops.clear()
        rig.transport.reset()
        assert self._surroundings() == self.surroundings, "R5"

    def _surroundings(self) -> tuple[object, ...]:
        device = self.neighbour.device
        return (
            device.status_register, device.features, device.isr, device.queues[0].used_idx,
            self.neighbour.irqs.edges, len(self.neighbour.reports), self.spare.log[:],
        )  # fmt: skip
