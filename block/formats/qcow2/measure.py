# SPDX-License-Identifier: GPL-2.0-only
"""How large a new image would be (qcow2_measure).

R1  `fully_allocated` is the size with all clusters in use. `required` leaves out the clusters that
    the source has no data for, but not their tables: it may be a little too much, never too small.
R2  With a backing file nobody knows what the new image would share with it: all counts.
Called in the main thread; blocks.
"""

from __future__ import annotations

from block.core import flags as f
from block.core.options import invalid
from block.core.status import co_block_status_above
from block.core.wait import run_sync
from block.formats.qcow2.create import Plan
from block.formats.qcow2.layout import ENTRY_SIZE, MAX_L1_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.node import BlockDriverState


def measure(options: dict[str, object], in_bs: BlockDriverState | None) -> dict[str, int]:
    """BlockMeasureInfo, for a copy of `in_bs`, or for an empty image of options['size']."""
    preallocation = options.get("preallocation") or "off"
    plan = Plan({**options, "preallocation": "off"})
    cluster_size = 1 << plan.cluster_bits
    size = plan.size if in_bs is None else in_bs.getlength()
    size = _round_up(size, cluster_size)
    entry = 2 * ENTRY_SIZE if plan.extended_l2 else ENTRY_SIZE
    if size > (MAX_L1_SIZE // ENTRY_SIZE) * (cluster_size // entry) * cluster_size:
        raise invalid("The image size is too large (try using a larger cluster size)")
    data = 0
    if preallocation in ("falloc", "full") or (in_bs is not None and plan.backing_file):
        data = size
    elif in_bs is not None:
        data = run_sync(in_bs.aio_context, lambda: _co_data_bytes(in_bs, cluster_size))
    whole = full_size(size, cluster_size, plan.refcount_order, entry)
    whole += _round_up(plan.encryption.header_length, cluster_size)
    info = {"required": whole - size + data, "fully-allocated": whole}
    if plan.version >= 3 and in_bs is not None:
        _add_bitmaps(info, in_bs, cluster_size)
    return info


def _add_bitmaps(info: dict[str, int], in_bs: BlockDriverState, cluster_size: int) -> None:
    """What `convert --bitmaps` would need besides, where both images can keep them."""
    assert in_bs.drv is not None
    if in_bs.drv.supports_persistent_dirty_bitmap(in_bs):
        from block.formats.qcow2 import bitmaps

        info["bitmaps"] = bitmaps.measure(in_bs, cluster_size)


def full_size(size: int, cluster_size: int, refcount_order: int, l2_entry: int) -> int:
    """An image's size with all clusters in use, metadata included (qcow2_calc_prealloc_size)."""
    l2_tables = -(-size // cluster_size // (cluster_size // l2_entry))
    l1_table = _round_up(l2_tables * ENTRY_SIZE, cluster_size)
    clusters = 1 + l2_tables + (l1_table + size) // cluster_size
    return (clusters + refcount_clusters(clusters, cluster_size, refcount_order)) * cluster_size


def refcount_clusters(clusters: int, cluster_size: int, refcount_order: int) -> int:
    """How many clusters count all clusters, themselves too (qcow2_refcount_metadata_size)."""
    counts_per_block = cluster_size * 8 >> refcount_order
    blocks = table = 0
    while True:
        before = blocks + table
        blocks = -(-(clusters + before) // counts_per_block)
        table = -(-blocks // (cluster_size // ENTRY_SIZE))
        if blocks + table == before:
            return before


async def _co_data_bytes(bs: BlockDriverState, cluster_size: int) -> int:
    """How many bytes of whole clusters hold data that are no zeroes."""
    placed = f.BDRV_BLOCK_DATA | f.BDRV_BLOCK_ALLOCATED
    length, offset, total = bs.getlength(), 0, 0
    while offset < length:
        status, nbytes, _, _ = await co_block_status_above(bs, None, True, offset, length - offset)
        if not status & f.BDRV_BLOCK_ZERO and status & placed == placed:
            nbytes = _round_up(offset + nbytes, cluster_size) - offset
            total += offset % cluster_size + nbytes
        offset += nbytes
    return total


def _round_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit
