# SPDX-License-Identifier: GPL-2.0-only
"""What a person does with dirty bitmaps (block/monitor/bitmap-qmp-cmds.c).

R1  A wish that cannot be is refused by name, and nothing has changed.
R2  What is persistent is saved when the image is closed; `remove` takes it out of the file at once.
Called in the main thread, which takes the node's context.
"""

from __future__ import annotations

import errno

from block.core import dirty_bitmap
from block.core.error import BlockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.dirty_bitmap import BdrvDirtyBitmap
    from block.core.node import BlockDriverState


def lookup(bs: BlockDriverState, name: str) -> BdrvDirtyBitmap:
    """The bitmap of that name, or BlockError (block_dirty_bitmap_lookup)."""
    bitmap = dirty_bitmap.find(bs, name)
    if bitmap is None:
        raise BlockError(errno.ENOENT, f"Dirty bitmap '{name}' not found", bs.node_name)
    return bitmap


def add(
    bs: BlockDriverState,
    name: str,
    granularity: int | None = None,
    *,
    persistent: bool = False,
    disabled: bool = False,
) -> BdrvDirtyBitmap:
    """Makes a bitmap with a name (block-dirty-bitmap-add); by default for clusters."""
    with bs.aio_context:
        if not name:
            raise BlockError(errno.EINVAL, "Bitmap name cannot be empty", bs.node_name)
        if granularity is None:
            granularity = dirty_bitmap.default_granularity(bs)
        elif granularity < 512 or granularity & (granularity - 1):
            message = "Granularity must be power of 2 and at least 512"
            raise BlockError(errno.EINVAL, message, bs.node_name)
        if persistent:
            dirty_bitmap.check_can_store(bs, name, granularity)
        bitmap = dirty_bitmap.create(bs, granularity, name)
        bitmap.disabled = disabled
        bitmap.persistent = persistent
        return bitmap


def remove(bs: BlockDriverState, name: str) -> None:
    """Removes one from the node, and from the image (block-dirty-bitmap-remove)."""
    with bs.aio_context:
        bitmap = lookup(bs, name)
        bitmap.check(dirty_bitmap.BUSY | dirty_bitmap.READONLY)
        if bitmap.persistent:
            dirty_bitmap.remove_persistent(bs, name)
        bitmap.release()


def clear(bs: BlockDriverState, name: str) -> None:
    """Begins anew: nothing is dirty (block-dirty-bitmap-clear)."""
    with bs.aio_context:
        bitmap = lookup(bs, name)
        bitmap.check()
        bitmap.clear()


def enable(bs: BlockDriverState, name: str, on: bool = True) -> None:
    """Lets it note writes, or not (block-dirty-bitmap-enable, -disable)."""
    with bs.aio_context:
        bitmap = lookup(bs, name)
        bitmap.check(dirty_bitmap.ALLOW_READONLY)
        bitmap.disabled = not on


def merge(bs: BlockDriverState, name: str, source: BlockDriverState, source_name: str) -> None:
    """Adds what is dirty in a bitmap of this or another node (block-dirty-bitmap-merge)."""
    with bs.aio_context, source.aio_context:
        target = lookup(bs, name)
        target.merge(lookup(source, source_name))
