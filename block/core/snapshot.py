# SPDX-License-Identifier: GPL-2.0-only
"""Snapshots within an image (block/snapshot.c): what a format keeps of a disk as it once was.

    create      keep what the disk holds now
    goto        let the disk be again what it was then
    delete      forget it
    list        what there is
    load_tmp    read it through this node, which is read-only and will be closed soon

R1  A node whose driver has none hands the question on to the one child that holds all its data
    (`holder`): raw over qcow2 has the snapshots of the qcow2.
R2  Whatever changes an image waits until nothing is on its way to it, and keeps it so.
R3  A snapshot has an ID, which the format gives it, and a name, which may be anybody's: the first
    one found is meant. QEMU cuts both where its C arrays end.
Who may call it: the main thread; all of it blocks.
"""

from __future__ import annotations

import errno
import os

from block.core import flags as f
from block.core import graph
from block.core.error import BlockError, no_medium

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.core.driver import BlockDriver
    from block.core.node import BlockDriverState

NO_ICOUNT = (1 << 64) - 1
"""The icount of a machine that did not count its instructions."""
MAX_ID = 127
MAX_NAME = 255
OWN = f.BDRV_CHILD_DATA | f.BDRV_CHILD_METADATA | f.BDRV_CHILD_FILTERED
"""The roles of children that hold what is the node's own; a backing file has none of that."""


class SnapshotInfo:
    """What is known of a snapshot (QEMUSnapshotInfo).

    vm_state_size   bytes that the machine's state takes behind the disk; 0: there is none
    date_sec/nsec   when it was made, since 1970
    vm_clock_nsec   how long the machine had been running
    icount          how many instructions it had executed, or NO_ICOUNT
    """

    __slots__ = ("date_nsec", "date_sec", "icount", "id", "name", "vm_clock_nsec", "vm_state_size")

    def __init__(
        self,
        name: str = "",
        snapshot_id: str = "",
        *,
        vm_state_size: int = 0,
        date_sec: int = 0,
        date_nsec: int = 0,
        vm_clock_nsec: int = 0,
        icount: int = NO_ICOUNT,
    ) -> None:
        self.id = cut_text(snapshot_id, MAX_ID)
        self.name = cut_text(name, MAX_NAME)
        self.vm_state_size = vm_state_size
        self.date_sec = date_sec
        self.date_nsec = date_nsec
        self.vm_clock_nsec = vm_clock_nsec
        self.icount = icount


def cut_text(text: str, most: int) -> str:
    """A text of at most so many bytes (pstrcpy, R3)."""
    return os.fsdecode(os.fsencode(text)[:most])


# -- who has them


def _fallback(bs: BlockDriverState) -> BlockDriverState | None:
    """The child that holds all of a node's data, or None (bdrv_snapshot_fallback)."""
    child = bs.file
    if child is None and bs.drv is not None and bs.drv.is_filter:
        child = bs.backing
    if child is None or any(other.role & OWN and other is not child for other in bs.children):
        return None
    return child.bs


def holder(bs: BlockDriverState, hook: str) -> BlockDriverState | None:
    """The node, from here down, whose driver has that hook; None: there is none (R1)."""
    node: BlockDriverState | None = bs
    while node is not None:
        if node.drv is None:
            raise no_medium(node.node_name)
        if hook in node.drv.hooks:
            return node
        node = _fallback(node)
    return None


def _holder_or_refuse(bs: BlockDriverState, hook: str, message: str) -> BlockDriverState:
    node = holder(bs, hook)
    if node is None:
        raise BlockError(errno.ENOTSUP, message, bs.node_name)
    return node


def _change(node: BlockDriverState, work: Callable[[BlockDriver], None]) -> None:
    """Lets the driver change a writable image, and holds the node still meanwhile (R2)."""
    if node.read_only:
        raise BlockError(errno.EACCES, "Image is read-only", node.node_name)
    assert node.drv is not None
    node.drained_begin()
    try:
        work(node.drv)
    finally:
        node.drained_end()


# -- what can be done


def create(bs: BlockDriverState, info: SnapshotInfo) -> None:
    """Makes a snapshot (bdrv_snapshot_create); the format fills in `info.id`."""
    message = "Block driver does not support snapshots"
    node = _holder_or_refuse(bs, "snapshot_create", message)
    _change(node, lambda drv: drv.snapshot_create(node, info))


def goto(bs: BlockDriverState, id_or_name: str) -> None:
    """Lets the disk be what it was in a snapshot (bdrv_snapshot_goto).

    What it holds now is gone then. Its length becomes that of the snapshot. Raises EBUSY where
    dirty bitmaps would have to know what changes so.
    """
    message = "Block driver does not support snapshots"
    node = _holder_or_refuse(bs, "snapshot_goto", message)
    if bs.dirty_bitmaps or node.dirty_bitmaps:
        raise BlockError(errno.EBUSY, "Device has active dirty bitmaps", node.node_name)
    try:
        _change(node, lambda drv: drv.snapshot_goto(node, id_or_name))
    except BlockError as error:
        number = error.errno or errno.EIO
        message = f"Failed to load snapshot: {os.strerror(number)}"
        raise BlockError(number, message, node.node_name) from error


def delete(bs: BlockDriverState, snapshot_id: str | None, name: str | None) -> None:
    """Forgets the first snapshot with that ID, or name, or both (bdrv_snapshot_delete)."""
    _check_wanted(bs, snapshot_id, name)
    node = _holder_or_refuse(bs, "snapshot_delete", _unsupported(bs, "snapshot deletion"))
    _change(node, lambda drv: drv.snapshot_delete(node, snapshot_id, name))


def snapshots_of(bs: BlockDriverState) -> list[SnapshotInfo]:
    """All snapshots, the oldest first (bdrv_snapshot_list). Raises ENOTSUP where none can be."""
    message = f"Device '{graph.device_name(bs)}' does not support internal snapshots"
    node = _holder_or_refuse(bs, "snapshot_list", message)
    assert node.drv is not None
    return node.drv.snapshot_list(node)


def find(bs: BlockDriverState, name: str) -> SnapshotInfo | None:
    """The first snapshot of that name; None also where there can be none (bdrv_snapshot_find)."""
    try:
        return next((info for info in snapshots_of(bs) if info.name == name), None)
    except BlockError:
        return None


def load_tmp(bs: BlockDriverState, snapshot_id: str | None, name: str | None) -> None:
    """Lets a read-only node read a snapshot until it is closed (bdrv_snapshot_load_tmp)."""
    _check_wanted(bs, snapshot_id, name)
    if not bs.read_only:
        raise BlockError(errno.EINVAL, "Device is not readonly", bs.node_name)
    assert bs.drv is not None
    if "snapshot_load_tmp" not in bs.drv.hooks:
        loading = _unsupported(bs, "temporarily loading internal snapshots", "")
        raise BlockError(errno.ENOTSUP, loading, bs.node_name)
    bs.drv.snapshot_load_tmp(bs, snapshot_id, name)


def load_tmp_by_id_or_name(bs: BlockDriverState, id_or_name: str) -> None:
    """As load_tmp; what is no ID may be a name (bdrv_snapshot_load_tmp_by_id_or_name)."""
    try:
        load_tmp(bs, id_or_name, None)
    except BlockError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL):
            raise
        load_tmp(bs, None, id_or_name)


def _check_wanted(bs: BlockDriverState, snapshot_id: str | None, name: str | None) -> None:
    if bs.drv is None:
        message = f"Device '{graph.device_name(bs)}' has no medium"
        raise BlockError(errno.ENOMEDIUM, message, bs.node_name)
    if snapshot_id is None and name is None:
        raise BlockError(errno.EINVAL, "snapshot_id and name are both NULL", bs.node_name)


def _unsupported(bs: BlockDriverState, what: str, kind: str = "internal ") -> str:
    assert bs.drv is not None
    device = graph.device_name(bs)
    return (
        f"Block format '{bs.drv.format_name}' used by device '{device}' does not support "
        f"{kind}{what}"
    )
