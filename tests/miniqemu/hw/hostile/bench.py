# SPDX-License-Identifier: GPL-2.0-only
"""A disk that a bad guest may maltreat, and what must not change meanwhile.

One machine: RAM with a hole in it, the disk under attack, and beside it a second disk that has
nothing to do with the matter. The driver's stores go through `Shadow`, which remembers what guest
memory holds if the device keeps to the rules; afterwards each byte is compared.

    with bench("IOThread") as machine:
        machine.driver.start()
        machine.remember()          # from here on the neighbour and both disks stand still
        ... the guest's misdeed ...
        machine.settle()            # until the device has done what it will do
        machine.check_untouched()

What the device may write: the used rings, and buffers that a descriptor marks writable.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from block.aio.iothread import IOThread
from miniqemu.hw.virtio_blk_layout import S_OK, T_IN
from miniqemu.hw.virtio_status import State
from miniqemu.hw.virtqueue import DESC, DESC_F_WRITE
from miniqemu.machine.memory import GuestMemory
from tests.support.drivers import Disk, FastReleasingRam, backend_on, ram_node
from tests.support.ring_driver import Buffer, DriverQueue
from tests.support.virtio_rig import Rig

LOW = 1 << 20  # bytes of RAM at 0; then comes a hole
HIGH = 2 << 20  # where RAM goes on
HIGH_SIZE = 64 << 10
RAM_END = HIGH + HIGH_SIZE
DATA = 0x8_0000  # somewhere in RAM, away from rings and requests
NEIGHBOUR = 0xC_0000  # the second driver's rings and buffers
SECTORS = 128  # of each disk
FILLING = b"\xa5" * (512 * SECTORS)
WAYS = ("main loop", "IOThread", "vCPU")
QUIET_ROUNDS = 3


class Shadow:
    """Guest memory as the driver sees it; remembers what it put there."""

    def __init__(self, memory: GuestMemory) -> None:
        self.memory = memory
        self.read = memory.read
        self.expected = {region.base: bytearray(region.size) for region in memory.regions}
        self.writable: list[Buffer] = []  # the device may write there

    def write(self, gpa: int, data: bytes | bytearray | memoryview) -> None:
        """A store of the driver; 16 bytes may be a descriptor."""
        self.memory.write(gpa, data)
        for base, copy in self.expected.items():
            if base <= gpa < base + len(copy):
                copy[gpa - base : gpa - base + len(data)] = data
        if len(data) == DESC.size:
            addr, length, flags, _ = DESC.unpack(data)
            if flags & DESC_F_WRITE:
                self.writable.append((addr, length, True))

    def view(self, gpa: int, length: int) -> memoryview:
        """A ring, which both sides write."""
        self.writable.append((gpa, length, True))
        return self.memory.view(gpa, length)

    def changed(self) -> list[int]:
        """Addresses (the first of each region) whose byte is not what it should be.

        Memory is looked at once: an IOThread that ends looking at its rings asks for doorbells
        again whenever it likes, and that is a store into the used ring.
        """
        wrong = []
        for region in self.memory.regions:
            copy, found = self.expected[region.base], bytes(region.view)
            for gpa, length, _ in self.writable:
                start, stop = max(gpa, region.base), min(gpa + length, region.end)
                if start < stop:
                    at = slice(start - region.base, stop - region.base)
                    copy[at] = found[at]
            if copy != found:
                pairs = enumerate(zip(copy, found, strict=True))
                wrong.append(region.base + next(n for n, (old, new) in pairs if old != new))
        return wrong


class Bench(Rig):
    """The machine; `way` says who serves the disk under attack."""

    def __init__(self, way: str, **conf: object) -> None:
        self.exceptions: list[BaseException] = []
        self._hook, threading.excepthook = threading.excepthook, self._note
        self.iothread = IOThread("hostile") if way == "IOThread" else None
        self.disk, self.spare = self._disk(), self._disk()
        self.backend = backend_on(ram_node(self.disk, "", FastReleasingRam))
        spare = backend_on(ram_node(self.spare, "", FastReleasingRam))
        memory = GuestMemory([(0, LOW), (HIGH, HIGH_SIZE)])
        conf = {"num_queues": 2, **conf}
        super().__init__(
            self.backend,
            memory=memory,
            iothread=self.iothread,
            ioeventfd=way != "vCPU",
            **conf,
        )
        self.neighbour = Rig(spare, beside=self, num_queues=2)
        self.neighbour.driver.pages.next = NEIGHBOUR
        self.shadow = Shadow(memory)
        self.driver.memory = self.neighbour.driver.memory = self.shadow  # type: ignore[assignment]  # it has what they use
        self.neighbour.driver.start()

    @staticmethod
    def _disk() -> Disk:
        disk = Disk(len(FILLING))
        disk.data[:] = FILLING
        return disk

    def _note(self, args: threading.ExceptHookArgs) -> None:
        assert args.exc_value is not None
        self.exceptions.append(args.exc_value)

    def close(self) -> None:
        self.disk.parked = False
        self.neighbour.close()
        super().close()
        for blk in (self.backend, self.neighbour.blk):
            blk.close()  # type: ignore[attr-defined]  # as they were made here
        if self.iothread is not None:
            self.iothread.close()
        threading.excepthook = self._hook

    @property
    def ring(self) -> DriverQueue:
        """The driver's queue 0."""
        return self.driver.queues[0]

    # -- What the guest does ---------------------------------------------------------------

    def store(self, gpa: int, data: bytes) -> int:
        """Writes guest memory as the driver; returns the address."""
        self.shadow.write(gpa, data)
        return gpa

    def kick(self, queue: int = 0) -> None:
        """Rings, and waits until the device has nothing more to do."""
        self.driver.kick(queue)
        self.settle()

    def let_go(self) -> None:
        """Lets the disk answer what it held back."""
        self.disk.parked = False
        self.backend.aio_context.bh_schedule_oneshot(self.disk.release)
        self.settle()

    # -- What the device does --------------------------------------------------------------

    def settle(self) -> None:
        """Waits until the device has done everything that it can do."""
        quiet = 0
        while quiet < QUIET_ROUNDS:
            self.run()
            quiet = 0 if self._busy() else quiet + 1

    def _busy(self) -> bool:
        """Whether a doorbell waits, or a request that the disk does not hold back."""
        if self.iothread is not None:
            seen = threading.Event()
            self.iothread.ctx.bh_schedule_oneshot(seen.set)
            seen.wait()
        queues = self.device.queues
        doorbells = [queue.host_notifier for queue in queues if queue.host_notifier is not None]
        if select.select([notifier.fileno() for notifier in doorbells], [], [], 0)[0]:
            return True
        return any(queue.in_use or queue.notify_pending for queue in queues) and not (
            self.disk.parked or self.device.stopped
        )

    # -- What must not change --------------------------------------------------------------

    def remember(self) -> None:
        """From here on the neighbour and the disks stand still."""
        self.settle()
        self.disk.log.clear()
        self._before = self._surroundings()

    def _surroundings(self) -> tuple[object, ...]:
        device = self.neighbour.device
        queue = device.queues[0]
        return (
            device.status_register,
            device.features,
            device.isr,
            bytes(device.config),
            (queue.desc_addr, queue.last_avail, queue.used_idx),
            self.neighbour.irqs.edges,
            self.neighbour.reports[:],
            bytes(self.spare.data),
            self.spare.asked("try_preadv", "preadv", "pwritev"),
        )

    def check_untouched(self, writes: bool = False) -> None:
        """No exception, no store where none may be, no word to the neighbour, the disk as it was.

        `writes`: the case is allowed to write to the disk.
        """
        assert not self.exceptions
        assert [hex(gpa) for gpa in self.shadow.changed()] == []
        assert self._surroundings() == self._before
        if not writes:
            assert self.disk.data == FILLING
            assert not self.disk.asked("pwritev")

    def can_go_on(self) -> bool:
        """Whether the driver's queue 0 is in use as it was set up."""
        queue = self.device.queues[0]
        running = self.driver.status == State.RUNNING.value and queue.ready
        return running and queue.used_addr == self.ring.used

    def check_alive(self) -> None:
        """Both disks answer a good request."""
        for one in (self, self.neighbour):
            ring = one.driver.queues[0]
            ring.free, ring.last_used = list(range(ring.num)), ring.used_idx
            chain = one.chain(T_IN, into=512)
            ring.submit(chain)
            one.driver.kick()
            self.settle()
            assert one.status_of(chain) == S_OK
            assert one.data_of(chain) == FILLING[:512]
            assert ring.reap()


@contextmanager
def bench(way: str, **conf: object) -> Iterator[Bench]:
    """A machine that is closed in the end, with nothing left behind (BufferError otherwise)."""
    machine = Bench(way, **conf)
    try:
        yield machine
    finally:
        machine.close()
