# SPDX-License-Identifier: GPL-2.0-only
"""What is done when an image contradicts itself (qcow2_signal_corruption).

R1  A writable image is marked corrupt in its header, so that nobody opens it for writing before
    it is repaired; from then on the node reads and writes nothing (`give_up`). What the caches
    hold is dropped: it may be wrong; so no flush succeeds any more, if there was something. An
    image opened read-only is only complained about.
R2  Before anything is written, its place is compared with the places of metadata that are known
    without reading the disk (overlap-check=cached): the header, the L1 table, L2 tables,
    the refcount table, refcount blocks, the snapshot table, the L1 tables of snapshots. Their L2
    tables can only be known by reading those (overlap-check=all).
Who may call it: coroutines that hold the image's lock.
"""

from __future__ import annotations

import errno

from block.core import event, graph
from block.core.error import BlockError
from block.core.permissions import is_writable
from block.core.report import to_stderr
from block.formats.qcow2.dirty import write_incompatible
from block.formats.qcow2.layout import AUTOCLEAR_BITMAPS, ENTRY_SIZE, INCOMPAT_CORRUPT
from block.formats.qcow2.state import refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from block.formats.qcow2.state import Qcow2State

OL_HEADER, OL_ACTIVE_L1, OL_ACTIVE_L2, OL_REFTABLE, OL_REFBLOCK = (1 << bit for bit in range(5))
OL_SNAPSHOT_TABLE, OL_INACTIVE_L1, OL_INACTIVE_L2 = (1 << bit for bit in range(5, 8))
OL_BITMAP_DIRECTORY = 1 << 8
OL_NAMES = {
    OL_HEADER: "qcow2_header",
    OL_ACTIVE_L1: "active L1 table",
    OL_ACTIVE_L2: "active L2 table",
    OL_REFTABLE: "refcount table",
    OL_REFBLOCK: "refcount block",
    OL_SNAPSHOT_TABLE: "snapshot table",
    OL_INACTIVE_L1: "inactive L1 table",
    OL_INACTIVE_L2: "inactive L2 table",
    OL_BITMAP_DIRECTORY: "bitmap directory",
}
OL_CONSTANT = OL_HEADER | OL_ACTIVE_L1 | OL_REFTABLE | OL_SNAPSHOT_TABLE | OL_BITMAP_DIRECTORY
OL_CACHED = OL_CONSTANT | OL_ACTIVE_L2 | OL_REFBLOCK | OL_INACTIVE_L1
OL_ALL = OL_CACHED | OL_INACTIVE_L2
TEMPLATES = {"none": 0, "constant": OL_CONSTANT, "cached": OL_CACHED, "all": OL_ALL}


def error(s: Qcow2State, message: str) -> BlockError:
    """An EIO of this node."""
    return refuse(s, f"qcow2: {message}", errno.EIO)


def check_usable(s: Qcow2State) -> None:
    """Raises where the image has been given up before (R1)."""
    if s.broken:
        raise error(s, s.broken)


def check_nothing_lost(s: Qcow2State) -> None:
    """Raises where changes were dropped of which somebody has heard that they are done (R1)."""
    if s.lost_changes:
        raise error(s, s.broken)


def give_up(s: Qcow2State, why: str) -> None:
    """From now on nothing is read or written any more (R1)."""
    s.broken = why
    s.lost_changes = s.l2_cache.dirty  # refcounts can be counted anew
    s.l2_cache.drop_all()
    s.refcount_cache.drop_all()


async def signal_corruption(s: Qcow2State, message: str, fatal: bool = True) -> BlockError:
    """Says what is wrong, marks the image, and returns the error to raise."""
    fatal = fatal and is_writable(s.bs)
    if not s.corruption_told or (fatal and not s.broken):
        what = "Marking image as corrupt" if fatal else "Image is corrupt"
        which = "" if fatal else "non-fatal "
        to_stderr(
            f"qcow2: {what}: {message}; further {which}corruption events will be suppressed\n"
        )
        _tell(s, message, fatal)
        s.corruption_told = True
    if fatal and not s.broken:
        await _mark_corrupt(s)
    return error(s, message)


def _tell(s: Qcow2State, message: str, fatal: bool) -> None:
    if event.subscribers:
        device, node = graph.device_name(s.bs), s.bs.node_name
        data = {"device": device, "node-name": node, "msg": message, "fatal": fatal}
        event.emit("BLOCK_IMAGE_CORRUPTED", data)


async def _mark_corrupt(s: Qcow2State) -> None:
    """Sets the bit on the disk; a failure of that changes nothing any more."""
    give_up(s, "Image is corrupt")
    s.incompatible_features |= INCOMPAT_CORRUPT
    if s.version < 3:
        return
    try:
        await write_incompatible(s, s.incompatible_features)
    except OSError:
        return


def overlap(s: Qcow2State, offset: int, nbytes: int, ignore: int = 0) -> int:
    """Which metadata a write would hit, OL_*; 0: none (qcow2_check_metadata_overlap).

    All but L2 tables of snapshots.
    """
    checks = s.overlap_checks & ~ignore
    end = offset + nbytes
    if checks & OL_HEADER and offset < s.cluster_size:
        return OL_HEADER
    l1_end = s.l1_offset + ENTRY_SIZE * len(s.l1_table)
    if checks & OL_ACTIVE_L1 and offset < l1_end and s.l1_offset < end:
        return OL_ACTIVE_L1
    reftable_end = s.reftable_offset + ENTRY_SIZE * len(s.reftable)
    if checks & OL_REFTABLE and offset < reftable_end and s.reftable_offset < end:
        return OL_REFTABLE
    table_end = s.snapshots_offset + s.snapshots_size
    if checks & OL_SNAPSHOT_TABLE and offset < table_end and s.snapshots_offset < end:
        return OL_SNAPSHOT_TABLE
    if s.nb_bitmaps and checks & OL_BITMAP_DIRECTORY and _hits_directory(s, offset, end):
        return OL_BITMAP_DIRECTORY
    if checks & OL_INACTIVE_L1 and s.inactive_l1.touch(offset, end):
        return OL_INACTIVE_L1
    for kind, places in ((OL_ACTIVE_L2, s.l2_clusters), (OL_REFBLOCK, s.refblock_clusters)):
        if checks & kind:
            known = places()
            for cluster in range(s.start_of_cluster(offset), end, s.cluster_size):
                if cluster in known:
                    return kind
    return 0


def _hits_directory(s: Qcow2State, offset: int, end: int) -> bool:
    """Whether a write would hit the bitmap directory, while the image says that it is right."""
    place = s.bitmap_directory_offset
    believed = s.autoclear_features & AUTOCLEAR_BITMAPS
    return bool(believed and offset < place + s.bitmap_directory_size and place < end)


def safe_beside_snapshots(s: Qcow2State, host: int) -> bool:
    """Whether a data cluster is certainly no table of a snapshot: a quick yes, as far as memory
    tells."""
    if s.overlap_checks & OL_INACTIVE_L2:
        return False
    return not s.inactive_l1.touch(host, host + s.cluster_size)


async def check_overlap(s: Qcow2State, offset: int, nbytes: int, ignore: int = 0) -> None:
    """Raises, and marks the image, where a write would hit metadata (R2)."""
    hit = overlap(s, offset, nbytes, ignore)
    if not hit and s.snapshots and s.overlap_checks & ~ignore & OL_INACTIVE_L2:
        from block.formats.qcow2.snapshots import hits_inactive_l2

        hit = OL_INACTIVE_L2 * await hits_inactive_l2(s, offset, nbytes)
    if hit:
        raise await signal_corruption(
            s, f"Preventing invalid write on metadata (overlaps with {OL_NAMES[hit]})"
        )


async def write_checked(s: Qcow2State, offset: int, data: ReadableBuffer, ignore: int = 0) -> None:
    """Writes metadata, unless that would hit other metadata (R2); `ignore`: OL_* of its own."""
    view = memoryview(data)
    await check_overlap(s, offset, len(view), ignore)
    await s.file.co_pwritev(offset, len(view), [view])
