# SPDX-License-Identifier: GPL-2.0-only
"""`convert --bitmaps`: the persistent bitmaps of the source, in the new image
(convert_check_bitmaps, convert_copy_bitmaps)."""

from __future__ import annotations

from block.core import dirty_bitmap
from block.core.error import BlockError
from block.core.report import warn_report
from block.ops import bitmap as ops

from .errors import Failure, because

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.dirty_bitmap import BdrvDirtyBitmap
    from block.core.node import BlockDriverState


def check_source(source: BlockDriverState, skip_broken: bool) -> None:
    """Refuses a source whose bitmaps cannot be copied, before anything is made."""
    if not dirty_bitmap.supports_persistent(source):
        raise Failure("Source lacks bitmap support")
    for bitmap in source.dirty_bitmaps:
        if bitmap.persistent and bitmap.inconsistent and not skip_broken:
            raise Failure(
                f"Cannot copy inconsistent bitmap '{bitmap.name}'",
                hint="Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it",
            )


def check_target(target: BlockDriverState) -> None:
    """Refuses a target that keeps none."""
    if not dirty_bitmap.supports_persistent(target):
        assert target.drv is not None
        raise Failure(f"Format driver '{target.drv.format_name}' does not support bitmaps")


def copy_bitmaps(source: BlockDriverState, target: BlockDriverState) -> None:
    """Copies all that are consistent, and saves them; what cannot be is told (Failure)."""
    for bitmap in source.dirty_bitmaps:
        if not bitmap.persistent:
            continue
        if bitmap.inconsistent:
            warn_report(f"Skipping inconsistent bitmap '{bitmap.name}'")
            continue
        _copy(bitmap, target)
    dirty_bitmap.store(target)


def _copy(bitmap: BdrvDirtyBitmap, target: BlockDriverState) -> None:
    name = bitmap.name
    assert name is not None, "what is persistent has a name"
    try:
        ops.add(target, name, bitmap.granularity, persistent=True, disabled=bitmap.disabled)
    except BlockError as error:
        raise because(error, f"Failed to create bitmap {name}: ") from error
    try:
        ops.merge(target, name, bitmap.bs, name)
    except BlockError as error:
        ops.remove(target, name)
        raise because(error, f"Failed to populate bitmap {name}: ") from error
