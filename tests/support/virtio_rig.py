# SPDX-License-Identifier: GPL-2.0-only
"""A virtio-blk device on a bench: real memory, registers and loop, but no processor.

`ParkingBlk` stands in for a BlockBackend: its disk is a bytearray, and a test may hold its requests
back (`park`) or let them fail (`fail_next`). `Rig` puts a device on it, or on a real backend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from block.aio.context import AioContext
from block.aio.notifier import EventNotifier
from block.aio.world import the_world
from block.core.backend import BlockBackend
from miniqemu.hw import virtio_blk_layout as layout
from miniqemu.hw.virtio_blk import VirtioBlk
from miniqemu.hw.virtio_blk_conf import VirtioBlkConf
from miniqemu.hw.virtio_mmio import SIZE, VirtioMmioTransport
from miniqemu.machine.biglock import BigLock
from miniqemu.machine.irq import IrqLine
from miniqemu.machine.memory import AddressSpace, GuestMemory
from tests.support.ring_driver import Buffer, DriverQueue, RingDriver

BASE = 0xFEB0_0E00
RAM = 8 << 20
Callback = Callable[[int], None]
Iov = list[memoryview]


class ParkingBlk(BlockBackend):
    """A BlockBackend over a bytearray; requests can be held back."""

    read_only = False
    max_iov, max_transfer = 1024, 0x7FFF_FE00

    def __init__(self, ctx: AioContext, size: int = 1 << 20) -> None:
        super().__init__()
        self.ctx = ctx
        self.disk = bytearray(size)
        self.park = False
        self.parked: list[Callable[[], None]] = []
        self.fail_next: list[int] = []  # errnos for the next requests
        self.calls: list[tuple[str, int, int]] = []  # name, offset, bytes
        self.iovs: list[Iov] = []

    @property
    def aio_context(self) -> AioContext:
        return self.ctx

    @property
    def length(self) -> int:
        return len(self.disk)

    def _start(
        self, name: str, offset: int, size: int, work: Callable[[], None], cb: Callback
    ) -> None:
        self.calls.append((name, offset, size))
        error = self.fail_next.pop(0) if self.fail_next else 0

        def finish() -> None:
            if not error:
                work()
            cb(-error)

        self.parked.append(finish)
        if not self.park:
            self.release()

    def release(self, count: int | None = None) -> None:
        """Lets parked requests complete, in the next pass of the loop."""
        wanted = len(self.parked) if count is None else count
        for _ in range(wanted):
            self.aio_context.bh_schedule_oneshot(self.parked.pop(0))

    def aio_preadv(self, offset: int, iov: Iov, cb: Callback, flags: int = 0) -> None:
        def work() -> None:
            at = offset
            for view in iov:
                view[:] = self.disk[at : at + len(view)]
                at += len(view)

        self.iovs.append(iov)
        self._start("read", offset, sum(map(len, iov)), work, cb)

    def aio_pwritev(self, offset: int, iov: Iov, cb: Callback, flags: int = 0) -> None:
        def work() -> None:
            data = b"".join(iov)
            self.disk[offset : offset + len(data)] = data

        self.iovs.append(iov)
        self._start("write", offset, sum(map(len, iov)), work, cb)

    def aio_flush(self, cb: Callback) -> None:
        self._start("flush", 0, 0, lambda: None, cb)

    def aio_pdiscard(self, offset: int, size: int, cb: Callback) -> None:
        self._start("discard", offset, size, lambda: None, cb)

    def aio_pwrite_zeroes(self, offset: int, size: int, cb: Callback, flags: int = 0) -> None:
        def work() -> None:
            self.disk[offset : offset + size] = bytes(size)

        self._start(f"zeroes flags={flags:#x}", offset, size, work, cb)

    def drain(self) -> None:
        """Waits for everything, parked requests included: they complete now."""
        self.release()
        while self.aio_context.poll(False):
            pass


class IrqCounter:
    """An interrupt controller that counts edges."""

    def __init__(self) -> None:
        self.level = False
        self.wire_edges = 0
        self.irqfd: EventNotifier | None = None
        self.pulses = 0

    def set_irq(self, gsi: int, level: bool) -> None:
        self.wire_edges += level and not self.level
        self.level = level

    def add_irqfd(self, gsi: int, notifier: EventNotifier) -> None:
        self.irqfd = notifier

    def del_irqfd(self, gsi: int, notifier: EventNotifier) -> None:
        self.pulses += notifier.test_and_clear()
        self.irqfd = None

    @property
    def edges(self) -> int:
        """Interrupts so far; pulses that were not looked at between count as one."""
        if self.irqfd is not None:
            self.pulses += self.irqfd.test_and_clear()
        return self.wire_edges + self.pulses


class _Window:
    """The device's registers, as the processor reaches them: through the address space."""

    def __init__(self, space: AddressSpace, base: int) -> None:
        self._space = space
        self._base = base

    def read(self, offset: int, size: int) -> int:
        return self._space.mmio_read(self._base + offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        self._space.mmio_write(self._base + offset, size, value)


class Rig:
    """A device, the memory and the interrupt line around it, and a driver."""

    def __init__(
        self,
        blk: object = None,
        *,
        ctx: AioContext | None = None,
        memory: GuestMemory | None = None,
        beside: Rig | None = None,
        **conf: object,
    ) -> None:
        """`beside`: another device of the same machine, in whose next slot this one sits."""
        self.ctx = ctx or the_world().main_context
        self.blk = blk(self.ctx) if isinstance(blk, type) else blk or ParkingBlk(self.ctx)
        try:
            self.device = VirtioBlk(VirtioBlkConf(self.blk, **conf))  # type: ignore[arg-type]  # properties of the device
        except BaseException:
            self._close_blk()
            raise
        self.beside = beside
        self.memory = beside.memory if beside else memory or GuestMemory([(0, RAM)])
        self.space = beside.space if beside else AddressSpace(self.memory)
        self.base = beside.base + SIZE if beside else BASE
        self.irqs = IrqCounter()
        self.big_lock = beside.big_lock if beside else BigLock()
        irq = IrqLine(12, self.irqs)
        self.transport = VirtioMmioTransport(
            self.base, irq, self.space, self.ctx, self.big_lock, self.device
        )
        self.reports: list[str] = []
        self.transport.report = self.reports.append
        self.vm_stops: list[str] = []
        self.device.request_vm_stop = self.vm_stops.append
        self.space.add_mmio(self.transport)
        self.driver = RingDriver(_Window(self.space, self.base), self.memory)
        self.size = SIZE

    def close(self) -> None:
        """Ends all; BufferError if a view of guest memory is left (a leak)."""
        self.driver.close()
        self.transport.close()
        self._close_blk()
        if self.beside is None:
            self.memory.close()

    def _close_blk(self) -> None:
        if isinstance(self.blk, ParkingBlk):
            self.blk.iovs.clear()
            self.blk.unref()

    def run(self) -> None:
        """Lets the main loop do everything there is to do."""
        while self.ctx.poll(False):
            pass

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Lets the main loop wait until something is so (pytest's timeout ends it)."""
        while not condition():
            self.ctx.poll(False)

    # -- Requests --------------------------------------------------------------------------

    def chain(
        self, kind: int, sector: int = 0, *, out: bytes = b"", into: int = 0, cut: int = 0
    ) -> list[Buffer]:
        """Writes header and data to memory; returns the buffers of a request.

        `cut` > 0 splits header, data and status into pieces of at most that many bytes.
        """
        driver = self.driver
        readable = layout.REQUEST_HEADER.pack(kind, 0, sector) + out
        if cut:
            out_at = driver.pages.take(len(readable))
            driver.memory.write(out_at, readable)
            into_at = driver.pages.take(into + 1)
            return [
                *_pieces(out_at, len(readable), cut, False),
                *_pieces(into_at, into + 1, cut, True),
            ]
        header = driver.pages.take(16)
        driver.memory.write(header, readable[:16])
        chain: list[Buffer] = [(header, 16, False)]
        if out:
            data = driver.pages.take(len(out), 512)
            driver.memory.write(data, out)
            chain.append((data, len(out), False))
        if into:
            chain.append((driver.pages.take(into, 512), into, True))
        status = driver.pages.take(1)
        driver.memory.write(status, b"\xff")
        return [*chain, (status, 1, True)]

    def status_of(self, chain: list[Buffer]) -> int:
        """The status byte of a chain: the last byte of it."""
        gpa, length, _ = chain[-1]
        return self.memory.read(gpa + length - 1, 1)[0]

    def data_of(self, chain: list[Buffer]) -> bytes:
        """What the device wrote before the status byte."""
        return b"".join(self.memory.read(gpa, n) for gpa, n, writable in chain if writable)[:-1]

    def request(
        self,
        kind: int,
        sector: int = 0,
        *,
        out: bytes = b"",
        into: int = 0,
        cut: int = 0,
        indirect: bool = False,
        queue: int = 0,
    ) -> SimpleNamespace:
        """One whole request: submit, ring, wait, reap."""
        chain = self.chain(kind, sector, out=out, into=into, cut=cut)
        ring: DriverQueue = self.driver.queues[queue]
        head = ring.submit(chain, indirect=indirect)
        self.driver.kick(queue)
        self.run()
        return SimpleNamespace(
            head=head,
            used=ring.reap(),
            status=self.status_of(chain),
            data=self.data_of(chain),
        )


def _pieces(gpa: int, length: int, cut: int, writable: bool) -> list[Buffer]:
    return [(gpa + at, min(cut, length - at), writable) for at in range(0, length, cut)]


def disk(bench: Rig) -> ParkingBlk:
    """The stand-in that a bench's device is on."""
    assert isinstance(bench.blk, ParkingBlk)
    return bench.blk


@contextmanager
def rig(blk: object = None, **conf: object) -> Iterator[Rig]:
    """A rig that is closed in the end, with nothing left behind."""
    bench = Rig(blk, **conf)
    try:
        yield bench
    finally:
        bench.close()
