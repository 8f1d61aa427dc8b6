# SPDX-License-Identifier: GPL-2.0-only
"""What is known of an image without reading its data (bdrv_query_image_info, block/qapi.c).

R1  An answer is an ImageInfo of QEMU's schema: a dictionary with the schema's names, in the
    schema's order (which block/qapi/qjson.py needs). What is not known is not in it.
R2  It tells of one image only. Who wants a chain opens one image after the other, without their
    backing files, as the person may have broken the chain.
Called in the main thread.
"""

from __future__ import annotations

import errno

from block.core import snapshot
from block.core.error import BlockError
from block.core.filename import node_backing_filename, refresh_filename

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.node import BlockDriverState
    from block.core.snapshot import SnapshotInfo

    ImageInfo = dict[str, object]


def query_image_info(bs: BlockDriverState) -> ImageInfo:
    """Tells of an open image (R1). Raises BlockError."""
    assert bs.drv is not None
    size = bs.getlength()
    refresh_filename(bs)
    info: ImageInfo = {"filename": bs.filename, "format": bs.drv.format_name}
    details = bs.get_info()
    if details is not None:
        info["dirty-flag"] = details.is_dirty
    taken = allocated_file_size(bs)
    if taken is not None:
        info["actual-size"] = taken
    info["virtual-size"] = size
    if details is not None and details.cluster_size:
        info["cluster-size"] = details.cluster_size
    if bs.encrypted:
        info["encrypted"] = True
    _add_backing(bs, info)
    _add_snapshots(bs, info)
    specific = bs.drv.get_specific_info(bs)
    if specific is not None:
        info["format-specific"] = specific
    return info


def _add_backing(bs: BlockDriverState, info: ImageInfo) -> None:
    if not bs.backing_file:
        return
    info["backing-filename"] = bs.backing_file
    try:
        info["full-backing-filename"] = node_backing_filename(bs)
    except BlockError:
        pass  # a relative name in an image that has no place itself
    if bs.backing_format:
        info["backing-filename-format"] = bs.backing_format


def _add_snapshots(bs: BlockDriverState, info: ImageInfo) -> None:
    """Snapshots within the image, if there are any (bdrv_query_snapshot_info_list)."""
    if snapshot.holder(bs, "snapshot_list") is None:
        return
    try:
        found = snapshot.snapshots_of(bs)
    except BlockError as error:
        if error.errno == errno.ENOTSUP:
            return
        raise
    if found:
        info["snapshots"] = [_snapshot_info(each) for each in found]


def _snapshot_info(found: SnapshotInfo) -> dict[str, object]:
    sec, nsec = divmod(found.vm_clock_nsec, 1_000_000_000)
    info: dict[str, object] = {
        "id": found.id,
        "name": found.name,
        "vm-state-size": found.vm_state_size,
        "date-sec": found.date_sec,
        "date-nsec": found.date_nsec,
        "vm-clock-sec": sec,
        "vm-clock-nsec": nsec,
    }
    if found.icount != snapshot.NO_ICOUNT:
        info["icount"] = found.icount
    return info


def allocated_file_size(bs: BlockDriverState) -> int | None:
    """How many bytes an image takes on its disk, or None (bdrv_get_allocated_file_size)."""
    drv = bs.drv
    assert drv is not None
    if "get_allocated_file_size" in drv.hooks:
        try:
            return drv.get_allocated_file_size(bs)
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return None
            raise
    if drv.protocol_name is not None:
        return None
    total = 0
    for child in bs.children:
        if child.role & snapshot.OWN:
            taken = allocated_file_size(child.bs)
            if taken is None:
                return None
            total += taken
    return total
