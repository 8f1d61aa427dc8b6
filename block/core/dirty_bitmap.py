# SPDX-License-Identifier: GPL-2.0-only
"""Dirty bitmaps: which pieces of a node were written since somebody began to count
(block/dirty-bitmap.c).

    write, zeroes, discard --> io.set_dirty    --> bitmap.note_write, of each bitmap of the node
    backup, mirror         --> next_dirty_area --> copy --> reset

R1  A bitmap belongs to one node and lives in `bs.dirty_bitmaps`, newest first. Those with a name
    are a person's, and go with the image. Those without are a job's, which releases them.
R2  Bitmaps belong to the thread that is at home in the node's context, as the node does. They have
    no lock: the main thread takes the context (`with bs.aio_context`) before it touches one of a
    node that lives elsewhere. A tree moves drained, so nothing is registered and nothing moves.
R3  A write is noted when it is through, even if it failed: half of it may be on the disk. Until
    then whoever copies must not trust the bit (jobs wait for what is in flight).
R4  Who grows a node makes its bitmaps longer; what comes new is clear (as in QEMU).
R5  What is read-only blocks writes to its node, with EPERM: they could not be noted. It is told
    of each before, and refuses; so nobody else pays for that.
R6  `check` names what stands in the way of a person's wish; jobs, which own what they use, need
    not ask.

    a person sees   busy   disabled   successor   inconsistent
    active          no     no         no          no             notes the guest's writes
    disabled        no     yes        no          no             kept as it is
    frozen          yes    yes        yes         no             a job reads it; the successor notes
    locked          yes    -          no          no             an export or a job reads it
    inconsistent    no     yes        no          yes            was not saved; can only be removed

What persistent bitmaps are on the disk is the driver's matter (block/formats/qcow2/bitmaps.py).

What once went wrong: a backup that failed gave up the bits of its frozen bitmap, and the next
incremental one left them out. Hence `reclaim` merges what the successor has seen into what was
frozen, and only success gives that up (`abdicate`). And bits were saved while a write was on its
way; it came too late to be noted, and the file said that nothing was written there (`store`).
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core import graph
from block.core.error import BlockError
from block.core.hbitmap import HBitmap
from block.core.wait import run_sync

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from block.core.node import BlockDriverState
    from block.core.serialise import TrackedRequest

MAX_NAME = 1023

# What may stand in the way (BDRV_BITMAP_*).
BUSY, READONLY, INCONSISTENT = 1, 2, 4
DEFAULT = BUSY | READONLY | INCONSISTENT
ALLOW_READONLY = BUSY | INCONSISTENT


class BdrvDirtyBitmap:
    """One bitmap of a node (BdrvDirtyBitmap); offsets and lengths in bytes.

    Made by `create`. A bit stands for `granularity` bytes, a power of two, 512 at least.
    """

    __slots__ = (
        "_readonly", "bitmap", "bs", "busy", "disabled", "inconsistent", "name", "persistent",
        "successor",
    )  # fmt: skip

    def __init__(self, bs: BlockDriverState, granularity: int, name: str | None) -> None:
        self.bs = bs
        self.name = name
        self.bitmap = HBitmap(bs.getlength(), granularity.bit_length() - 1)
        self.busy = False  # somebody works with it
        self.disabled = False  # notes no writes
        self._readonly = False
        self.persistent = False  # is saved in the image
        self.inconsistent = False  # was not saved when it should have been
        self.successor: BdrvDirtyBitmap | None = None

    def __repr__(self) -> str:
        return f"<BdrvDirtyBitmap {self.name or '(anonymous)'} of {self.bs!r}, {self.status}>"

    # -- what it is

    @property
    def granularity(self) -> int:
        """How many bytes a bit stands for (bdrv_dirty_bitmap_granularity)."""
        return 1 << self.bitmap.granularity

    @property
    def size(self) -> int:
        """How long a disk it is for (bdrv_dirty_bitmap_size)."""
        return self.bitmap.size

    @property
    def count(self) -> int:
        """How many bytes the bits that are set stand for (bdrv_get_dirty_count)."""
        return self.bitmap.count << self.bitmap.granularity

    @property
    def readonly(self) -> bool:
        """Whether neither it nor its node may change (bdrv_dirty_bitmap_readonly, R5)."""
        return self._readonly

    @readonly.setter
    def readonly(self, value: bool) -> None:
        if value and not self._readonly:
            self.bs.before_write_notifiers.append(self._refuse)
        elif self._readonly and not value:
            self.bs.before_write_notifiers.remove(self._refuse)
        self._readonly = value

    async def _refuse(self, request: TrackedRequest) -> None:
        raise BlockError(errno.EPERM, "", self.bs.node_name, offset=request.offset)

    @property
    def recording(self) -> bool:
        """Whether writes are noted, here or by the successor (bdrv_dirty_bitmap_recording)."""
        return not self.disabled or (self.successor is not None and not self.successor.disabled)

    @property
    def status(self) -> str:
        """What a person sees: the table above (bdrv_dirty_bitmap_status)."""
        if self.inconsistent:
            return "inconsistent"
        if self.successor is not None:
            return "frozen"
        if self.busy:
            return "locked"
        return "disabled" if self.disabled else "active"

    def check(self, what: int = DEFAULT) -> None:
        """Raises BlockError where something of `what` stands in the way (R6,
        bdrv_dirty_bitmap_check)."""
        if what & BUSY and self.busy:
            how = "is currently in use by another operation and cannot be used"
        elif what & READONLY and self.readonly:
            how = "is readonly and cannot be modified"
        elif what & INCONSISTENT and self.inconsistent:
            how = "is inconsistent and cannot be used"
        else:
            return
        message = f"Bitmap '{self.name}' {how}"
        hint = ""
        if self.inconsistent and not self.busy:
            hint = "Try block-dirty-bitmap-remove to delete this bitmap from disk"
        raise BlockError(errno.EINVAL, message, self.bs.node_name, hint=hint)

    # -- bits

    def note_write(self, offset: int, nbytes: int) -> None:
        """The node was written; for the request path (io.set_dirty)."""
        if not self.disabled:
            assert not self.readonly, "R5: a write that should have been refused"
            # A discard may reach over the end; so may a write that failed to grow the node.
            self.bitmap.set(offset, min(nbytes, self.bitmap.size - offset))

    def set(self, offset: int, nbytes: int) -> None:
        """Marks a range as dirty (bdrv_set_dirty_bitmap)."""
        self._about_to_change()
        self.bitmap.set(offset, nbytes)

    def reset(self, offset: int, nbytes: int) -> None:
        """Marks whole pieces as clean (bdrv_reset_dirty_bitmap)."""
        self._about_to_change()
        self.bitmap.reset(offset, nbytes)

    def clear(self) -> HBitmap:
        """Marks all as clean (bdrv_clear_dirty_bitmap); returns what there was, for `restore`."""
        self._about_to_change()
        before = self.bitmap
        self.bitmap = HBitmap(before.size, before.granularity)
        return before

    def merge(self, other: BdrvDirtyBitmap) -> HBitmap:
        """Adds what is dirty in another one (bdrv_merge_dirty_bitmap); returns what there was.

        Raises BlockError where one is not fit for use or the sizes differ. Nodes in two contexts:
        main thread only, which holds both.
        """
        self.check()
        other.check(ALLOW_READONLY)
        if other.size != self.size:
            raise BlockError(
                errno.EINVAL,
                f"Bitmaps are of different sizes (destination size is {self.size}, "
                f"source size is {other.size}) and can't be merged",
                self.bs.node_name,
            )
        self._about_to_change()
        before = self.bitmap.copy()
        self.bitmap.merge(other.bitmap)
        return before

    def restore(self, before: HBitmap) -> None:
        """Takes back `clear` or `merge` (bdrv_restore_dirty_bitmap)."""
        self._about_to_change()
        self.bitmap = before

    def _about_to_change(self) -> None:
        assert self.bs.aio_context.is_home(), f"R2: {self.bs.aio_context.stranger()}"
        assert not self.readonly, "a bitmap that is read-only"
        assert not self.inconsistent, "a bitmap that was not saved"

    def get(self, offset: int) -> bool:
        """Whether the piece at an offset is dirty (bdrv_dirty_bitmap_get)."""
        return self.bitmap.get(offset)

    def next_dirty(self, start: int = 0, end: int | None = None) -> int | None:
        """The first dirty offset from `start` on, before `end` (bdrv_dirty_bitmap_next_dirty)."""
        return self.bitmap.next_dirty(start, end)

    def next_zero(self, start: int = 0, end: int | None = None) -> int | None:
        """The first clean offset from `start` on, before `end` (bdrv_dirty_bitmap_next_zero)."""
        return self.bitmap.next_zero(start, end)

    def next_dirty_area(
        self, start: int = 0, end: int | None = None, most: int | None = None
    ) -> tuple[int, int] | None:
        """The next dirty (offset, bytes), `most` at most (bdrv_dirty_bitmap_next_dirty_area)."""
        return self.bitmap.next_dirty_area(start, end, most)

    def areas(self) -> Iterator[tuple[int, int]]:
        """All dirty (offset, bytes); bits may be reset meanwhile (bdrv_dirty_iter_next)."""
        return self.bitmap.areas()

    def truncate(self, nbytes: int) -> None:
        """The node has another length (bdrv_dirty_bitmap_truncate, R4)."""
        self.bitmap.truncate(nbytes)

    # -- a job works with it

    def create_successor(self) -> None:
        """Freezes it: from now on an anonymous one notes the writes in its place
        (bdrv_dirty_bitmap_create_successor). Raises BlockError where it is in use."""
        self.check(BUSY)
        successor = create(self.bs, self.granularity)
        successor.disabled = self.disabled
        self.disabled = True
        self.successor = successor
        self.busy = True

    def abdicate(self) -> BdrvDirtyBitmap:
        """The work is done: the successor takes its name and place, and is returned
        (bdrv_dirty_bitmap_abdicate)."""
        successor = self._successor("Cannot relinquish control if there's no successor present")
        successor.name, self.name = self.name, None
        successor.persistent, self.persistent = self.persistent, False
        self.successor = None
        self.busy = False
        self.release()
        return successor

    def reclaim(self) -> None:
        """The work failed: what the successor has noted is added, and it goes
        (bdrv_reclaim_dirty_bitmap)."""
        successor = self._successor("Cannot reclaim a successor when none is present")
        self.bitmap.merge(successor.bitmap)
        self.disabled = successor.disabled
        self.successor = None
        self.busy = False
        successor.release()

    def _successor(self, complaint: str) -> BdrvDirtyBitmap:
        if self.successor is None:
            raise BlockError(errno.EINVAL, complaint, self.bs.node_name)
        return self.successor

    def set_inconsistent(self) -> None:
        """The image says that it was not saved (bdrv_dirty_bitmap_set_inconsistent)."""
        assert self.persistent, "only what is saved can be saved wrongly"
        self.inconsistent = True
        self.disabled = True

    def release(self) -> None:
        """Takes it off the node (bdrv_release_dirty_bitmap); what is saved stays saved."""
        assert not self.busy, f"{self!r} is in use"
        assert self.successor is None, f"{self!r} has a successor"
        self.readonly = False
        self.bs.dirty_bitmaps.remove(self)


# -- of a node


def create(bs: BlockDriverState, granularity: int, name: str | None = None) -> BdrvDirtyBitmap:
    """Makes a bitmap that notes writes from now on (bdrv_create_dirty_bitmap).

    Raises BlockError where the name is taken or too long.
    """
    assert bs.aio_context.is_home(), f"R2: {bs.aio_context.stranger()}"
    assert granularity >= f.SECTOR_SIZE, "a bit for less than a sector"
    assert not granularity & (granularity - 1), "no power of two"
    if name is not None:
        if find(bs, name) is not None:
            raise BlockError(errno.EEXIST, f"Bitmap already exists: {name}", bs.node_name)
        if name_length(name) > MAX_NAME:
            raise BlockError(errno.EINVAL, f"Bitmap name too long: {name}", bs.node_name)
    bitmap = BdrvDirtyBitmap(bs, granularity, name)
    bs.dirty_bitmaps.insert(0, bitmap)
    return bitmap


def name_length(name: str) -> int:
    """How many bytes a name has on the disk."""
    return len(name.encode(errors="surrogateescape"))


def find(bs: BlockDriverState, name: str) -> BdrvDirtyBitmap | None:
    """The bitmap of that name (bdrv_find_dirty_bitmap)."""
    return next((bitmap for bitmap in bs.dirty_bitmaps if bitmap.name == name), None)


def default_granularity(bs: BlockDriverState) -> int:
    """A cluster of the image, within 4 KiB and 64 KiB (bdrv_get_default_bitmap_granularity)."""
    info = bs.get_info()
    cluster_size = info.cluster_size if info is not None else 0
    return min(65536, max(4096, cluster_size or 65536))


def query(bs: BlockDriverState) -> list[dict[str, object]]:
    """What there is, for a person (bdrv_query_dirty_bitmaps): BlockDirtyInfo of QEMU's schema."""
    found = []
    for bitmap in bs.dirty_bitmaps:
        info: dict[str, object] = {} if bitmap.name is None else {"name": bitmap.name}
        info.update(
            {
                "count": bitmap.count,
                "granularity": bitmap.granularity,
                "recording": bitmap.recording,
                "busy": bitmap.busy,
                "persistent": bitmap.persistent,
            }
        )
        if bitmap.inconsistent:
            info["inconsistent"] = True
        found.append(info)
    return found


# -- what is saved in the image; main thread


def supports_persistent(bs: BlockDriverState) -> bool:
    """Whether the image can keep bitmaps at all (bdrv_supports_persistent_dirty_bitmap)."""
    return bs.drv is not None and bs.drv.supports_persistent_dirty_bitmap(bs)


def check_can_store(bs: BlockDriverState, name: str, granularity: int) -> None:
    """Raises BlockError unless the image can keep a new bitmap like that
    (bdrv_can_store_new_dirty_bitmap)."""
    who = graph.device_or_node_name(bs)
    what = f"Can't store persistent bitmaps to {who}: "
    if bs.drv is None:
        raise BlockError(errno.ENOMEDIUM, f"{what}No medium found", bs.node_name)
    if "check_can_store_bitmap" not in bs.drv.hooks:
        raise BlockError(errno.ENOTSUP, f"{what}Operation not supported", bs.node_name)
    bs.drv.check_can_store_bitmap(bs, name, granularity)


def remove_persistent(bs: BlockDriverState, name: str) -> None:
    """Removes what the image keeps under a name; nothing is no error
    (bdrv_remove_persistent_dirty_bitmap). What is in memory stays."""
    drv = bs.drv
    if drv is not None and "co_remove_persistent_dirty_bitmap" in drv.hooks:
        run_sync(bs.aio_context, lambda: drv.co_remove_persistent_dirty_bitmap(bs, name))


def store(bs: BlockDriverState) -> None:
    """Saves what is persistent now, and makes it read-only: whoever closes the image afterwards
    has heard of all that can fail. Raises BlockError. A write on its way is noted before (R3)."""
    drv = bs.drv
    if drv is not None and "co_store_dirty_bitmaps" in drv.hooks:
        bs.drained_begin()
        try:
            run_sync(bs.aio_context, lambda: drv.co_store_dirty_bitmaps(bs))
        finally:
            bs.drained_end()
