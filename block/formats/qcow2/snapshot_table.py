# SPDX-License-Identifier: GPL-2.0-only
"""The snapshot table: reading it without believing it, and writing it (block/qcow2-snapshot.c).

    header: how many, and where   ->   | entry | entry | entry |     each at a multiple of 8 bytes

    an entry    where its L1 table is, and how long; when it was made; how long the texts are
                extra data: size of the VM state (64 bits), length of the disk, icount, unknown
                the ID, the name

R1  How many there are, how much extra data an entry has, and the length of the table are capped
    as QEMU caps them. What a repair may cut off, it cuts off; else the table is refused. An entry
    that begins in the file is kept, even if its name lies behind the end: the guest's data need
    only its L1 table.
R2  Extra data that are not understood are kept.
R3  A new table is written to a new place, and is on the disk with its refcounts before the header
    points to it: by one write of 12 bytes. Then the old one is freed.
Who may call it: coroutines that hold the image's lock; `read_table` also while it is opened.
"""

from __future__ import annotations

import errno
import os
import struct

from block.core import flags as f
from block.core.error import BlockError, failed
from block.core.snapshot import NO_ICOUNT, SnapshotInfo
from block.formats.qcow2.alloc import alloc_clusters
from block.formats.qcow2.corrupt import write_checked
from block.formats.qcow2.free import free_clusters
from block.formats.qcow2.layout import (
    ENTRY_SIZE,
    MAX_L1_SIZE,
    MAX_SNAPSHOTS,
    SNAPSHOTS_AT,
)
from block.formats.qcow2.ranges import Ranges
from block.formats.qcow2.state import refuse
from block.formats.qcow2.switch import switch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.formats.qcow2.state import Qcow2State

HEAD = struct.Struct(">QIHHIIQII")
"""l1_table_offset, l1_size, id_str_size, name_size, date_sec, date_nsec, vm_clock_nsec,
vm_state_size, extra_data_size."""
EXTRA = struct.Struct(">QQQ")
"""vm_state_size_large, disk_size, icount."""
POINTER = struct.Struct(">IQ")
"""nb_snapshots, snapshots_offset: bytes 60 to 71 of the header."""
ENOUGH_EXTRA = 16
"""What version 3 wants of every entry: the first two."""
MAX_EXTRA = 1024
MAX_SIZE = 1024 * MAX_SNAPSHOTS
REPAIR = "qemu-img check -r all"


class Snapshot:
    """One entry (QCowSnapshot); ID and name as bytes, `unknown` what follows known extra data."""

    __slots__ = (
        "date_nsec",
        "date_sec",
        "disk_size",
        "extra_size",
        "icount",
        "id",
        "l1_offset",
        "l1_size",
        "name",
        "unknown",
        "vm_clock_nsec",
        "vm_state_size",
    )

    def __init__(self) -> None:
        self.id = self.name = self.unknown = b""
        self.l1_offset = self.l1_size = 0
        self.date_sec = self.date_nsec = self.vm_clock_nsec = 0
        self.vm_state_size = self.disk_size = 0
        self.icount = NO_ICOUNT
        self.extra_size = EXTRA.size

    @classmethod
    def of(cls, info: SnapshotInfo) -> Snapshot:
        """A new one, which has no tables yet."""
        self = cls()
        self.id, self.name = os.fsencode(info.id), os.fsencode(info.name)
        self.date_sec, self.date_nsec = info.date_sec, info.date_nsec
        self.vm_clock_nsec, self.icount = info.vm_clock_nsec, info.icount
        self.vm_state_size = info.vm_state_size
        return self

    def info(self) -> SnapshotInfo:
        """What the world may know of it."""
        return SnapshotInfo(
            os.fsdecode(self.name),
            os.fsdecode(self.id),
            vm_state_size=self.vm_state_size,
            date_sec=self.date_sec,
            date_nsec=self.date_nsec,
            vm_clock_nsec=self.vm_clock_nsec,
            icount=self.icount,
        )

    def is_complete(self) -> bool:
        """Whether the entry has the extra data that version 3 wants."""
        return self.extra_size >= ENOUGH_EXTRA

    def build(self) -> bytes:
        """The entry as it goes to the disk.

        A VM state that 32 bits cannot measure is, for old programs, no VM state at all.
        """
        small = self.vm_state_size if self.vm_state_size < 1 << 32 else 0
        extra = EXTRA.pack(self.vm_state_size, self.disk_size, self.icount) + self.unknown
        head = HEAD.pack(
            self.l1_offset, self.l1_size, len(self.id), len(self.name), self.date_sec,
            self.date_nsec, self.vm_clock_nsec, small, len(extra),
        )  # fmt: skip
        return head + extra + self.id + self.name


class Cut:
    """What a repair has cut off while it read a table (R1), and what is to be said of it."""

    def __init__(self) -> None:
        self.snapshots = 0  # how many were left out
        self.entries = 0  # how many had too much extra data, or not all their bytes in the file
        self.extra_bytes = 0
        self.lines: list[str] = []


# -- reading


class Ended(BlockError):
    """The file ends before the table does."""


class _Reader:
    """The bytes of the table one after the other; `at` is how many have been passed, `end` how many
    the file has. The last cluster may be short."""

    PIECE = 65536

    def __init__(self, s: Qcow2State) -> None:
        self._s = s
        self._piece = b""
        self._start = 0
        self.at = 0
        self.end = (s.clusters(s.file_length()) << s.cluster_bits) - s.snapshots_offset

    async def take(self, nbytes: int, padded: bool = False) -> bytes:
        """The next bytes. Where the file has ended they are zeroes, if `padded`; else it raises."""
        begin, self.at = self.at, self.at + nbytes
        if begin < self._start or self.at > self._start + len(self._piece):
            await self._load(begin, nbytes, padded)
        return self._piece[begin - self._start : self.at - self._start]

    async def _load(self, begin: int, nbytes: int, padded: bool) -> None:
        s = self._s
        there = min(max(nbytes, self.PIECE), self.end - begin)
        if there < nbytes and not padded:
            message = "Snapshot table lies beyond the end of the file"
            raise Ended(errno.EINVAL, message, s.bs.node_name, "qcow2")
        piece = bytearray(max(nbytes, there))
        try:
            await s.file.co_preadv(s.snapshots_offset + begin, len(piece), [memoryview(piece)])
        except OSError as error:
            what = "Failed to read snapshot table"
            raise failed(what, error, s.bs.node_name, "qcow2") from error
        self._start, self._piece = begin, bytes(piece)


async def read_table(s: Qcow2State, cut: Cut | None = None) -> None:
    """Reads the table; sets s.snapshots and s.snapshots_size (qcow2_do_read_snapshots).

    Raises BlockError. With `cut`, what is too much is left out instead; s.nb_snapshots is how
    many there are then.
    """
    found: list[Snapshot] = []
    snapshot: Snapshot | None
    reader = _Reader(s)
    size = 0
    for number in range(s.nb_snapshots):
        reader.at += -reader.at % 8
        try:
            snapshot = await _read_entry(s, reader, number, cut)
        except Ended:
            if cut is None:
                raise
            snapshot = None
        kept = reader.at - (cut.extra_bytes if cut is not None else 0)
        if snapshot is None or kept > MAX_SIZE or reader.at > f.INT_MAX:
            _overhang(s, s.nb_snapshots - number, cut)
            break
        found.append(snapshot)
        size = min(reader.at, reader.end)
    s.snapshots_size, s.nb_snapshots = size, len(found)
    _take_over(s, found)


def _take_over(s: Qcow2State, snapshots: list[Snapshot]) -> None:
    s.snapshots = snapshots
    s.suspects = None
    places = ((snap.l1_offset, snap.l1_offset + ENTRY_SIZE * snap.l1_size) for snap in snapshots)
    s.inactive_l1 = Ranges(places)


def _overhang(s: Qcow2State, rest: int, cut: Cut | None) -> None:
    if cut is None:
        hint = f"You can force-remove all {rest} overhanging snapshots with {REPAIR}"
        raise refuse(s, "Snapshot table is too big", errno.EFBIG, hint)
    cut.lines.append(f"Discarding {rest} overhanging snapshots (snapshot table is too big)")
    cut.snapshots += rest


async def _read_entry(s: Qcow2State, reader: _Reader, number: int, cut: Cut | None) -> Snapshot:
    self = Snapshot()
    fields = HEAD.unpack(await reader.take(HEAD.size))
    self.l1_offset, self.l1_size, id_size, name_size = fields[:4]
    self.date_sec, self.date_nsec, self.vm_clock_nsec, self.vm_state_size, extra_size = fields[4:]
    self.extra_size = min(extra_size, MAX_EXTRA)
    _check_extra(s, extra_size, number, cut)
    repairs = cut is not None
    extra = await reader.take(self.extra_size, repairs)
    reader.at += extra_size - self.extra_size
    self.id = _text(await reader.take(id_size, repairs))
    self.name = _text(await reader.take(name_size, repairs))
    if cut is not None and reader.at > reader.end and extra_size <= MAX_EXTRA:
        cut.lines.append(f"Repairing snapshot table entry {number} beyond the end of the file")
        cut.entries += 1
    large, disk_size, icount = EXTRA.unpack(extra[: EXTRA.size].ljust(EXTRA.size, b"\0"))
    self.unknown = extra[EXTRA.size :]
    if extra_size >= 8:
        self.vm_state_size = large
    self.disk_size = disk_size if self.is_complete() else s.bs.total_sectors << f.SECTOR_BITS
    self.icount = icount if extra_size >= EXTRA.size else NO_ICOUNT
    return self


def _check_extra(s: Qcow2State, extra_size: int, number: int, cut: Cut | None) -> None:
    if extra_size <= MAX_EXTRA:
        return
    if cut is None:
        hint = f"You can force-remove this extra metadata with {REPAIR}"
        message = f"Too much extra metadata in snapshot table entry {number}"
        raise refuse(s, message, errno.EFBIG, hint)
    cut.lines.append(
        f"Discarding too much extra metadata in snapshot table entry {number} "
        f"({extra_size} > {MAX_EXTRA})"
    )
    cut.entries += 1
    cut.extra_bytes += extra_size - MAX_EXTRA


def _text(data: bytes) -> bytes:
    """As C sees it: what follows a zero byte is not there."""
    return data.split(b"\0", 1)[0]


def check_l1(s: Qcow2State, snapshot: Snapshot) -> None:
    """Raises where a snapshot's L1 table cannot be (qcow2_validate_table)."""
    nbytes = snapshot.l1_size * ENTRY_SIZE
    if nbytes > MAX_L1_SIZE:
        raise refuse(s, "Snapshot L1 table too large", errno.EFBIG)
    if snapshot.l1_offset & s.cluster_mask or snapshot.l1_offset > f.INT64_MAX - nbytes:
        raise refuse(s, "Snapshot L1 table offset invalid")
    if nbytes and snapshot.l1_offset >= s.file_length():
        raise refuse(s, "Snapshot L1 table lies beyond the end of the file")


# -- writing


def build_table(s: Qcow2State, snapshots: list[Snapshot]) -> memoryview:
    """A table with these snapshots, as it goes to the disk."""
    data = bytearray()
    for snapshot in snapshots:
        data += bytes(-len(data) % 8) + snapshot.build()
    if len(data) > MAX_SIZE:
        raise refuse(s, "Snapshot table is too big", errno.EFBIG)
    return memoryview(data)


async def write_new(s: Qcow2State, data: memoryview, what: str) -> int:
    """Writes a table to clusters of its own, and makes both durable; returns its place.

    A table without entries takes none, and is at 0.
    """
    if not data:
        return 0
    offset = await alloc_clusters(s, s.clusters(len(data)), what)
    try:
        await write_checked(s, offset, data)
        await s.refcount_cache.flush()
    except OSError:
        await free_clusters(s, offset, len(data))
        raise
    return offset


async def switch_table(s: Qcow2State, snapshots: list[Snapshot], offset: int) -> None:
    """Lets the header point to the table with these snapshots, and frees the old one (R3)."""
    pointer = memoryview(POINTER.pack(len(snapshots), offset))
    await switch(s, SNAPSHOTS_AT, pointer)
    old_offset, old_size = s.snapshots_offset, s.snapshots_size
    s.nb_snapshots, s.snapshots_offset = len(snapshots), offset
    s.snapshots_size = len(build_table(s, snapshots))
    _take_over(s, snapshots)
    await free_clusters(s, old_offset, old_size)


async def rewrite_table(s: Qcow2State) -> None:
    """Writes the same snapshots anew, each with all extra data (qcow2_write_snapshots)."""
    place = await write_new(s, build_table(s, s.snapshots), "snapshot table")
    await switch_table(s, s.snapshots, place)
    for snapshot in s.snapshots:
        snapshot.extra_size = EXTRA.size + len(snapshot.unknown)
