# SPDX-License-Identifier: GPL-2.0-only
"""Guest memory, and who answers at which address (QEMU's memory.c and physmem.c).

Two address spaces, as x86 has them: physical memory (RAM and memory-mapped registers) and
I/O ports. RAM never comes through here while the guest runs: the accelerator maps it, and
devices take views of it. What comes here is an access that hit no RAM.

Rules:
R1  `GuestMemory` may be used from any thread; it is fixed once the machine runs.
R2  Regions are added before the first vCPU runs, or under the big lock; they never overlap.
R3  Dispatch is under the big lock. An access that no region takes reads as all ones.
R4  Guest addresses and lengths are lies until checked: a view lies in one RAM region or is
    refused. Whoever keeps a view keeps the RAM alive; `close` says so when it finds one.
"""

from __future__ import annotations

import mmap
import os

from block.lean import bisect_right
from miniqemu.machine import debug

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from block.aio.notifier import EventNotifier

    Ioeventfd = tuple[int, int | None, EventNotifier]  # size (0: any), datamatch, notifier
else:
    Protocol = object

PAGE = 4096
RAM_NAME = "miniqemu-ram"
ALL_ONES = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFF_FFFF, 8: 0xFFFF_FFFF_FFFF_FFFF}
MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


class GuestMemoryError(Exception):
    """A guest address range that is not wholly inside one RAM region."""

    def __init__(self, gpa: int, length: int) -> None:
        super().__init__(f"guest memory: {length} bytes at 0x{gpa:x} are not all RAM")
        self.gpa, self.length = gpa, length


class RamRegion:
    """A piece of RAM: where the guest sees it, and the mapping behind it.

    The mapping is a memfd, so that `/proc/PID/smaps` tells which pages are the guest's; on a
    system that has none it has no name.
    """

    __slots__ = ("base", "end", "map", "size", "view")

    def __init__(self, base: int, size: int) -> None:
        self.base, self.size, self.end = base, size, base + size
        self.map = _named_mapping(size) if hasattr(os, "memfd_create") else mmap.mmap(-1, size)
        self.view = memoryview(self.map)

    def close(self) -> None:
        """Unmaps it; BufferError when a view of it is still alive (R4)."""
        self.view.release()
        self.map.close()


def _named_mapping(size: int) -> mmap.mmap:
    fd = os.memfd_create(RAM_NAME)
    try:
        os.ftruncate(fd, size)
        return mmap.mmap(fd, size, flags=mmap.MAP_SHARED | MAP_NORESERVE)
    finally:
        os.close(fd)


class GuestMemory:
    """The guest's RAM, in one or more regions (memory_region_init_ram)."""

    __slots__ = ("_table", "regions")

    def __init__(self, layout: list[tuple[int, int]]) -> None:
        """`layout`: (guest physical address, size in bytes) of each region, page-aligned."""
        self.regions = [RamRegion(base, size) for base, size in layout]
        self._table = [(region.base, region.end, region.view) for region in self.regions]

    @property
    def size(self) -> int:
        """Bytes of RAM in all regions."""
        return sum(region.size for region in self.regions)

    def view(self, gpa: int, length: int) -> memoryview:
        """A window on guest memory, without a copy (address_space_map); any thread."""
        stop = gpa + length
        for base, end, ram in self._table:
            if base <= gpa <= stop <= end:
                return ram[gpa - base : stop - base]
        raise GuestMemoryError(gpa, length)

    def read(self, gpa: int, length: int) -> bytes:
        """A copy of guest memory (address_space_read)."""
        return bytes(self.view(gpa, length))

    def write(self, gpa: int, data: bytes | bytearray | memoryview) -> None:
        """Copies into guest memory (address_space_write)."""
        self.view(gpa, len(data))[:] = data

    def close(self) -> None:
        """Gives the RAM back. A view that is still alive is a leak: BufferError (R4)."""
        self._table.clear()
        for region in self.regions:
            region.close()
        self.regions.clear()


class IoRegion(Protocol):
    """A device's registers (MemoryRegionOps): `offset` counts from `base`, `size` is 1..8."""

    base: int
    size: int
    name: str

    def read(self, offset: int, size: int) -> int:
        """The value of `size` bytes at `offset`."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Stores `size` bytes at `offset`."""


class IoeventfdBinder(Protocol):
    """An accelerator that can turn a guest's write into a notification by itself."""

    has_ioeventfd: bool  # whether it ever does

    def add_ioeventfd(
        self, addr: int, size: int, notifier: EventNotifier, datamatch: int | None, pio: bool
    ) -> bool:
        """True when the kernel does it from now on; False: match it on dispatch."""

    def del_ioeventfd(
        self, addr: int, size: int, notifier: EventNotifier, datamatch: int | None, pio: bool
    ) -> None:
        """Ends what add_ioeventfd began."""


class IoTable:
    """The regions of one kind (memory or ports), found by bisection."""

    __slots__ = ("bases", "kind", "regions")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.bases: list[int] = []
        self.regions: list[IoRegion] = []

    def add(self, region: IoRegion) -> None:
        """Puts a region in its place; an overlap is a mistake of the board (R2)."""
        at = bisect_right(self.bases, region.base)
        before = self.regions[at - 1] if at else None
        after = self.regions[at] if at < len(self.regions) else None
        if before and before.base + before.size > region.base:
            raise ValueError(f"{self.kind}: {region.name} overlaps {before.name}")
        if after and region.base + region.size > after.base:
            raise ValueError(f"{self.kind}: {region.name} overlaps {after.name}")
        self.bases.insert(at, region.base)
        self.regions.insert(at, region)

    def remove(self, region: IoRegion) -> None:
        """Takes a region out again."""
        at = self.regions.index(region)
        del self.bases[at], self.regions[at]

    def find(self, addr: int, size: int) -> IoRegion | None:
        """The region that holds all `size` bytes at `addr`, if one does."""
        at = bisect_right(self.bases, addr) - 1
        if at >= 0:
            region = self.regions[at]
            if addr + size <= region.base + region.size:
                return region
        return None

    def read(self, addr: int, size: int) -> int:
        """Asks the region at `addr`; all ones where there is none (R3)."""
        region = self.find(addr, size)
        if region is None:
            if debug.enabled:
                debug.unassigned(self.kind, "read", addr, size)
            return ALL_ONES[size]
        return region.read(addr - region.base, size) & ALL_ONES[size]

    def write(self, addr: int, size: int, value: int) -> None:
        """Hands a store to the region at `addr`; dropped where there is none (R3)."""
        region = self.find(addr, size)
        if region is not None:
            region.write(addr - region.base, size, value)
        elif debug.enabled:
            debug.unassigned(self.kind, "write", addr, size, value)


class AddressSpace:
    """RAM, memory-mapped registers and I/O ports of one machine (QEMU's AddressSpace)."""

    def __init__(self, ram: GuestMemory, binder: IoeventfdBinder | None = None) -> None:
        self.ram = ram
        self.binder = binder
        self.has_ioeventfd = binder is None or binder.has_ioeventfd
        self.mmio, self.pio = IoTable("memory"), IoTable("I/O port")
        self.add_mmio, self.add_pio = self.mmio.add, self.pio.add
        self.remove_mmio, self.remove_pio = self.mmio.remove, self.pio.remove
        self.mmio_read, self.pio_read = self.mmio.read, self.pio.read
        self._ioeventfds: dict[tuple[bool, int], list[Ioeventfd]] = {}

    def mmio_write(self, addr: int, size: int, value: int) -> None:
        """A store to memory that is no RAM: a doorbell, or a device's register."""
        if not (self._ioeventfds and self._ring(False, addr, size, value)):
            self.mmio.write(addr, size, value)

    def pio_write(self, addr: int, size: int, value: int) -> None:
        """An `out` instruction: a doorbell, or a device's register."""
        if not (self._ioeventfds and self._ring(True, addr, size, value)):
            self.pio.write(addr, size, value)

    def add_ioeventfd(
        self,
        addr: int,
        size: int,
        notifier: EventNotifier,
        *,
        datamatch: int | None = None,
        pio: bool = False,
    ) -> None:
        """A store of `size` bytes (of `datamatch`, if given) at `addr` sets the notifier
        instead of reaching the device (memory_region_add_eventfd). Size 0 is any size.
        """
        binder = self.binder
        if binder is None or not binder.add_ioeventfd(addr, size, notifier, datamatch, pio):
            self._ioeventfds.setdefault((pio, addr), []).append((size, datamatch, notifier))

    def del_ioeventfd(
        self,
        addr: int,
        size: int,
        notifier: EventNotifier,
        *,
        datamatch: int | None = None,
        pio: bool = False,
    ) -> None:
        """Ends what add_ioeventfd began; same arguments (memory_region_del_eventfd)."""
        entries = self._ioeventfds.get((pio, addr), [])
        entry = (size, datamatch, notifier)
        if entry in entries:
            entries.remove(entry)
            if not entries:
                del self._ioeventfds[pio, addr]
        elif self.binder is not None:
            self.binder.del_ioeventfd(addr, size, notifier, datamatch, pio)

    def _ring(self, pio: bool, addr: int, size: int, value: int) -> bool:
        for wanted, datamatch, notifier in self._ioeventfds.get((pio, addr), ()):
            if wanted in (0, size) and datamatch in (None, value):
                notifier.set()
                return True
        return False
