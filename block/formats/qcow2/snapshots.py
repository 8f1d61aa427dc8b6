# SPDX-License-Identifier: GPL-2.0-only
"""Snapshots within the image: create, goto, delete, load_tmp (block/qcow2-snapshot.c).

    create   a copy of the L1 table; refcounts up; flags; then the table that names it
    goto     refcounts of the snapshot up; a copy of its L1 table; then one write to the header
             makes the disk the other one; refcounts of the old one down; flags
    delete   the table without it; then refcounts down; flags

R1  Each change is one write to the header. Before it, refcounts are too high at worst, and
    after it again: a crash leaves leaks, which `check -r leaks` finds, flags included.
R2  An L1 table that is copied is copied without the flag COPIED. Who finds it after a crash
    writes to no cluster, and to no L2 table, that a snapshot has, too.
R3  What fails before that write has changed nothing: refcounts are counted back. If the write
    itself fails, nobody knows which table holds: then all stays counted.
R4  The VM state lies behind the end of the disk, where only its own requests reach. It belongs to
    the disk until a snapshot has taken it.
R5  What fails behind that write leaks clusters, and a person is told. It is no failure of the
    command: who hears that the disk did not go back must have the disk as it was.
Who may call it: the main thread, while nobody else uses the node (block/core/snapshot.py).

What once went wrong: in QEMU goto first makes the disk as long as the snapshot, and then writes
over the L1 table in place, flags and all. A crash in between leaves a disk of neither kind, and
one behind it an L2 table that both may write to.
"""

from __future__ import annotations

import errno
import os
from array import array

from block.core import debug
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import BlockError, failed
from block.core.iov import iov_memset_zero, iov_slice
from block.core.report import warn_report
from block.core.wait import run_sync
from block.formats.qcow2 import read, shared, write
from block.formats.qcow2.cache import from_disk, to_disk
from block.formats.qcow2.cluster import grow_l1_table
from block.formats.qcow2.corrupt import OL_ACTIVE_L1, check_usable, write_checked
from block.formats.qcow2.dirty import flush_caches
from block.formats.qcow2.free import free_clusters
from block.formats.qcow2.layout import (
    DISK_PLACE,
    ENTRY_SIZE,
    MAX_L1_SIZE,
    MAX_SNAPSHOTS,
    OFFSET_MASK,
    SIZE_AT,
)
from block.formats.qcow2.options import follow_size
from block.formats.qcow2.snapshot_table import (
    Snapshot,
    build_table,
    check_l1,
    rewrite_table,
    switch_table,
    write_new,
)
from block.formats.qcow2.state import refuse
from block.formats.qcow2.switch import switch
from block.formats.qcow2.zero import discard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from block.core.iov import Iov
    from block.core.node import BlockDriverState
    from block.core.snapshot import SnapshotInfo
    from block.formats.qcow2.state import Qcow2State


def _run(s: Qcow2State, work: Callable[[], Awaitable[None]]) -> None:
    """Does the work of one command with the lock, beginning with nothing in the caches."""

    async def locked() -> None:
        async with s.lock:
            check_usable(s)
            assert not s.allocations, "a write is on its way"
            await flush_caches(s)
            await work()

    run_sync(s.bs.aio_context, locked)


def _check_possible(s: Qcow2State) -> None:
    """Raises where the guest's data are counted by nobody, so nothing can be shared."""
    if s.external:
        raise refuse(s, "", errno.ENOTSUP)


def find(s: Qcow2State, snapshot_id: str | None, name: str | None) -> Snapshot | None:
    """The first snapshot with that ID, or name, or both (find_snapshot_by_id_and_name)."""
    wanted_id = None if snapshot_id is None else os.fsencode(snapshot_id)
    wanted_name = None if name is None else os.fsencode(name)
    for snapshot in s.snapshots:
        if wanted_id in (None, snapshot.id) and wanted_name in (None, snapshot.name):
            return snapshot
    return None


async def read_l1(s: Qcow2State, snapshot: Snapshot) -> array[int]:
    """The L1 table of a snapshot."""
    check_l1(s, snapshot)
    data = bytearray(snapshot.l1_size * ENTRY_SIZE)
    if data:
        await s.file.co_preadv(snapshot.l1_offset, len(data), [memoryview(data)])
    return from_disk("Q", data)


def without_flags(l1_table: array[int]) -> array[int]:
    """A copy that says of nothing that it may be written to (R2)."""
    return array("Q", map(OFFSET_MASK.__and__, l1_table))


async def hits_inactive_l2(s: Qcow2State, offset: int, nbytes: int) -> bool:
    """Whether a write would hit an L2 table of a snapshot; reads all their L1 tables."""
    for snapshot in s.snapshots:
        for entry in await read_l1(s, snapshot):
            place = entry & OFFSET_MASK
            if place and place < offset + nbytes and offset < place + s.cluster_size:
                return True
    return False


async def update_flags(s: Qcow2State) -> None:
    """Lets the flags of the disk follow from refcounts, and makes all durable."""
    table = s.l1_table[:]
    if await shared.set_flags(s, table):
        await write_checked(s, s.l1_offset, to_disk(table), OL_ACTIVE_L1)
        s.l1_table = table
    await s.file.co_flush()


# -- create


def create(s: Qcow2State, info: SnapshotInfo) -> None:
    """Makes a snapshot of the disk as it is (qcow2_snapshot_create)."""
    _check_possible(s)
    if len(s.snapshots) >= MAX_SNAPSHOTS:
        raise refuse(s, f"There are {MAX_SNAPSHOTS} snapshots already", errno.EFBIG)
    info.id = str(1 + max((_number(snapshot.id) for snapshot in s.snapshots), default=0))
    new = Snapshot.of(info)
    new.disk_size = s.bs.total_sectors << f.SECTOR_BITS
    _run(s, lambda: _create(s, new))


def _number(snapshot_id: bytes) -> int:
    """The number that an ID begins with (strtoul)."""
    digits = snapshot_id.lstrip()
    length = len(digits) - len(digits.lstrip(b"0123456789"))
    return int(digits[:length] or b"0")


async def _create(s: Qcow2State, new: Snapshot) -> None:
    data = to_disk(without_flags(s.l1_table))
    new.l1_size = len(s.l1_table)
    new.l1_offset = await write_new(s, data, "L1 table")
    snapshots = [*s.snapshots, new]
    try:
        await shared.count(s, s.l1_table, 1)
        try:
            await update_flags(s)
            place = await write_new(s, build_table(s, snapshots), "snapshot table")
        except OSError:
            await _uncount(s, s.l1_table)
            raise
    except OSError:
        await free_clusters(s, new.l1_offset, len(data))
        raise
    await switch_table(s, snapshots, place)
    await _drop_vm_state(s, new.vm_state_size)


async def _uncount(s: Qcow2State, l1_table: array[int]) -> None:
    """Counts back (R3). If that fails, too, clusters are leaked."""
    try:
        await shared.count(s, l1_table, -1)
        await update_flags(s)
    except OSError:
        return


async def _drop_vm_state(s: Qcow2State, nbytes: int) -> None:
    """The snapshot has it now (R4); on the disk it would only be copied by the next one."""
    start = s.vm_state_offset()
    end = min(start + nbytes, len(s.l1_table) << s.l1_shift)
    if start < end:
        try:
            await discard(s, start, end + -end % s.cluster_size - start)
        except OSError:
            return


# -- goto


def goto(bs: BlockDriverState, id_or_name: str) -> None:
    """Lets the disk be what it was in a snapshot (qcow2_snapshot_goto)."""
    s: Qcow2State = bs.opaque
    _check_possible(s)
    snapshot = find(s, id_or_name, None) or find(s, None, id_or_name)
    if snapshot is None:
        raise refuse(s, "", errno.ENOENT)
    before = bs.total_sectors
    resizer = None
    try:
        check_l1(s, snapshot)
        if snapshot.disk_size != before << f.SECTOR_BITS:
            resizer = _resizer(s, snapshot)
        _run(s, lambda: _goto(s, snapshot))
    finally:
        if resizer is not None:
            resizer.unref()
    if bs.total_sectors != before:
        bs.parents_resized()


def _resizer(s: Qcow2State, snapshot: Snapshot) -> BlockBackend:
    """Asks all who use the node whether it may have another length."""
    size = snapshot.disk_size
    if s.version < 3:
        raise refuse(s, "Can't resize a v2 image which has snapshots", errno.ENOTSUP)
    if size % f.SECTOR_SIZE:
        message = f"The new size must be a multiple of {f.SECTOR_SIZE}"
        raise refuse(s, message)
    if size > f.MAX_LENGTH or s.l1_entries(size) * ENTRY_SIZE > MAX_L1_SIZE:
        raise refuse(s, f"Image size {size} is too large", errno.EFBIG)
    resizer = BlockBackend(f.BLK_PERM_RESIZE)
    try:
        resizer.insert_bs(s.bs)
    except BlockError as error:
        resizer.unref()
        raise refuse(s, str(error), errno.ENOTSUP) from error
    return resizer


async def _goto(s: Qcow2State, snapshot: Snapshot) -> None:
    table = without_flags(await read_l1(s, snapshot))
    entries = max(len(table), s.l1_entries(snapshot.disk_size))
    await shared.count(s, table, 1)
    table.extend([0] * (entries - len(table)))
    try:
        place = await write_new(s, to_disk(table), "L1 table")
    except OSError:
        await _uncount(s, table)
        raise
    await _switch_disk(s, table, place, snapshot.disk_size)


async def _switch_disk(s: Qcow2State, table: array[int], place: int, size: int) -> None:
    """One write makes the disk another one (R1); then what only the old one had is freed."""
    head = bytearray(DISK_PLACE.size)
    await s.file.co_preadv(SIZE_AT, len(head), [memoryview(head)])
    fields = DISK_PLACE.parse(head)
    fields.update({"size": size, "l1_size": len(table), "l1_table_offset": place})
    await switch(s, SIZE_AT, memoryview(DISK_PLACE.build(fields.values())))
    old_table, old_place = s.l1_table, s.l1_offset
    s.l1_table, s.l1_offset = table, place
    s.l2_places = s.suspects = None
    s.bs.total_sectors = size >> f.SECTOR_BITS
    follow_size(s, size)
    await _let_go(s, old_table, old_place)


async def _let_go(s: Qcow2State, l1_table: array[int], l1_offset: int) -> None:
    """Nothing in the header leads to that L1 table any more: frees what nobody else needs (R5)."""
    try:
        await shared.count(s, l1_table, -1)
        await free_clusters(s, l1_offset, len(l1_table) * ENTRY_SIZE)
        await update_flags(s)
    except OSError as error:
        if s.broken:
            raise
        warn_report(f"qcow2: not all that nobody needs any more is freed: {error}")


# -- delete


def delete(s: Qcow2State, snapshot_id: str | None, name: str | None) -> None:
    """Forgets a snapshot (qcow2_snapshot_delete)."""
    _check_possible(s)
    snapshot = find(s, snapshot_id, name)
    if snapshot is None:
        raise refuse(s, "Can't find the snapshot", errno.ENOENT)
    check_l1(s, snapshot)
    _run(s, lambda: _delete(s, snapshot))


async def _delete(s: Qcow2State, snapshot: Snapshot) -> None:
    table = await read_l1(s, snapshot)
    others = [other for other in s.snapshots if other is not snapshot]
    try:
        place = await write_new(s, build_table(s, others), "snapshot table")
    except OSError as error:
        what = "Failed to remove snapshot from snapshot list"
        raise failed(what, error, s.bs.node_name, "qcow2") from error
    await switch_table(s, others, place)
    await _let_go(s, table, snapshot.l1_offset)


def rewrite(s: Qcow2State) -> None:
    """Writes the same table anew, with all that version 3 wants of it (qcow2_write_snapshots)."""
    _run(s, lambda: rewrite_table(s))


# -- load_tmp


def load_tmp(s: Qcow2State, snapshot_id: str | None, name: str | None) -> None:
    """Reads a snapshot through this node from now on (qcow2_snapshot_load_tmp).

    The disk stays as long as it is: what the snapshot has no table for reads as if it had never
    been written.
    """
    snapshot = find(s, snapshot_id, name)
    if snapshot is None:
        raise refuse(s, "Can't find snapshot", errno.ENOENT)
    table = run_sync(s.bs.aio_context, lambda: read_l1(s, snapshot))
    missing = s.l1_entries(s.bs.total_sectors << f.SECTOR_BITS) - len(table)
    table.extend([0] * missing)
    s.l1_table, s.l1_offset = table, snapshot.l1_offset
    s.l2_places = s.suspects = None


# -- the VM state


async def co_save_vmstate(s: Qcow2State, offset: int, nbytes: int, qiov: Iov) -> None:
    """Writes behind the end of the disk (qcow2_save_vmstate, R4)."""
    if s.file.bs.debugged:
        await debug.debug_event(s.file.bs, debug.VMSTATE_SAVE)
    offset += s.vm_state_offset()
    async with s.lock:
        needed = s.l1_entries(offset + nbytes)
        if needed > len(s.l1_table):
            await grow_l1_table(s, _larger(len(s.l1_table), needed))
    await write.co_pwritev(s, offset, nbytes, qiov)


def _larger(entries: int, needed: int) -> int:
    """A length for the L1 table: half as many again, until it is enough (qcow2_grow_l1_table)."""
    entries = max(entries, 1)
    while entries < needed:
        entries = -(-entries * 3 // 2)
    return entries


async def co_load_vmstate(bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> None:
    """Reads behind the end of the disk (qcow2_load_vmstate); zeroes where nothing was saved."""
    s: Qcow2State = bs.opaque
    if s.file.bs.debugged:
        await debug.debug_event(s.file.bs, debug.VMSTATE_LOAD)
    offset += s.vm_state_offset()
    there = min(nbytes, max(0, (len(s.l1_table) << s.l1_shift) - offset))
    if there:
        await read.co_preadv(bs, offset, there, iov_slice(qiov, 0, there))
    if there < nbytes:
        iov_memset_zero(iov_slice(qiov, there, nbytes - there))
