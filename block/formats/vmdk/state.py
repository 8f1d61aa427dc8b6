# SPDX-License-Identifier: GPL-2.0-only
"""What an open image knows (BDRVVmdkState), and its CID.

Every disk has a CID, a number that changes with its contents: once for each time it is opened
and written to. An overlay remembers its backing file's. Where the two differ somebody has written
to the backing file, and what the overlay holds does not fit it any more.

R1  `lock` guards all tables and what is allocated. It is held while a new grain is written, not
    while grains that are there are read and written.
R2  The CID changes after the first write is through, before its requester hears of that.
R3  The backing file's CID is looked at before anything is read from there, once.
Who may call it: coroutines in the node's context.
"""

from __future__ import annotations

import errno
import os

from block.aio.co_lock import CoMutex
from block.core.error import BlockError
from block.core.filename import refresh_filename
from block.formats.vmdk import descriptor
from block.formats.vmdk.layout import DESCRIPTOR_SECTORS, SECTOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.edge import BdrvChild
    from block.core.node import BlockDriverState
    from block.formats.vmdk.extent import Extent

DESCRIPTOR_SIZE = DESCRIPTOR_SECTORS * SECTOR


class VmdkState:
    """The state of one node; `ends` are the extents' ends, for bisect."""

    __slots__ = (
        "bs", "cid", "cid_checked", "cid_updated", "create_type", "desc_place", "ends", "extents",
        "file", "lock", "parent_cid",
    )  # fmt: skip

    def __init__(self, bs: BlockDriverState, file: BdrvChild) -> None:
        self.bs = bs
        self.file = file
        self.lock = CoMutex()
        self.extents: list[Extent] = []
        self.ends: list[int] = []
        self.create_type = ""
        self.desc_place = 0
        self.cid = 0
        self.parent_cid = descriptor.NO_PARENT
        self.cid_checked = False
        self.cid_updated = False

    def add(self, extent: Extent, kind: str) -> None:
        """Puts an extent behind the others."""
        extent.kind = kind
        extent.start = self.ends[-1] if self.ends else 0
        self.extents.append(extent)
        self.ends.append(extent.end)

    def own_children(self) -> list[BdrvChild]:
        """The extents that are files of their own: all but `file`."""
        return [extent.file for extent in self.extents if extent.file is not self.file]

    def check_parent(self) -> None:
        """Raises unless the backing file is what it was (vmdk_is_cid_valid, R3)."""
        backing = self.bs.backing
        if self.cid_checked or backing is None:
            return
        drv = backing.bs.drv
        cid = backing.bs.opaque.cid if drv is not None and drv.format_name == "vmdk" else None
        if cid != self.parent_cid:
            found = "no vmdk image" if cid is None else f"CID {cid:08x}"
            message = (
                f"vmdk: backing file '{backing.bs.filename}' is {found}, "
                f"descriptor.parentCID is {self.parent_cid:08x}"
            )
            raise BlockError(errno.EINVAL, message, self.bs.node_name, "vmdk")
        self.cid_checked = True

    def specific_info(self) -> dict[str, object]:
        """ImageInfoSpecificVmdk of QEMU's schema, in the schema's order."""
        return {
            "create-type": self.create_type,
            "cid": self.cid,
            "parent-cid": self.parent_cid,
            "extents": [_extent_info(extent) for extent in self.extents],
        }

    async def update_cid(self) -> None:
        """Gives the disk a new CID, the first time (vmdk_write_cid, R2)."""
        if self.cid_updated:
            return
        async with self.lock:
            if not self.cid_updated:
                await self._write_cid(new_cid())
                self.cid_updated = True

    async def _write_cid(self, cid: int) -> None:
        size = min(DESCRIPTOR_SIZE, self.file.bs.getlength() - self.desc_place)
        old = bytearray(size)
        await self.file.co_preadv(self.desc_place, size, [memoryview(old)])
        before = descriptor.text_of(bytes(old))
        after = descriptor.with_cid(before, cid).ljust(len(before), b"\0")
        if len(after) > DESCRIPTOR_SIZE:
            raise BlockError(errno.ENOSPC, "vmdk: no room for a new CID in the descriptor")
        await self.file.co_pwritev(self.desc_place, len(after), [memoryview(after)])
        await self.file.co_flush()
        self.cid = cid


def _extent_info(extent: Extent) -> dict[str, object]:
    """An ImageInfo (vmdk_get_extent_info)."""
    refresh_filename(extent.file.bs)
    info: dict[str, object] = {"filename": extent.file.bs.filename, "format": extent.kind}
    info["virtual-size"] = extent.length
    if not extent.flat:
        info["cluster-size"] = extent.grain
    if extent.compressed:
        info["compressed"] = True
    return info


def new_cid() -> int:
    """A number that no other image has, probably, and that does not mean: no parent."""
    return int.from_bytes(os.urandom(4), "little") & 0xFFFFFFFE or 1
