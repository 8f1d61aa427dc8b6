# SPDX-License-Identifier: GPL-2.0-only
"""The check of an image: does each entry name a grain that is there (vmdk_co_check)?

R1  Nothing is repaired: the format has no second opinion about where a grain is. (The redundant
    tables repeat the first ones, mistakes too.)
R2  A grain that begins behind the end of its file is a corruption, so is a table. All are
    counted; the first is told, and the check fails, as in QEMU.
Who may call it: a coroutine in the node's context.
"""

from __future__ import annotations

import errno

from block.core.error import BlockError
from block.formats.vmdk.layout import SECTOR
from block.formats.vmdk.tables import table_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from block.core.check import BdrvCheckResult
    from block.formats.vmdk.extent import Extent
    from block.formats.vmdk.state import VmdkState
    from block.formats.vmdk.tables import GrainTable


async def co_check(s: VmdkState, result: BdrvCheckResult, fix: int) -> None:
    """Walks all tables of all extents. Raises ENOTSUP where something is to be repaired."""
    if fix:
        raise BlockError(errno.ENOTSUP, "vmdk images cannot be repaired", s.bs.node_name, "vmdk")
    told: list[str] = []
    for extent in s.extents:
        for position in range(0, 0 if extent.flat else extent.length, extent.table_span):
            async with s.lock:
                told += await _check_table(extent, position)
    result.corruptions += len(told)
    if told:
        result.say(f"ERROR: {told[0]}")
        raise BlockError(errno.EINVAL, "", s.bs.node_name, "vmdk")


async def _check_table(extent: Extent, position: int) -> list[str]:
    """What is wrong with the table for an offset in the extent."""
    sector = (extent.start + position) // SECTOR
    try:
        table = await table_at(extent, position)
    except BlockError as error:
        return [f"could not get cluster_offset for sector {sector}: {error}"]
    if table is None:
        return []
    return [
        f"cluster offset for sector {sector + index * extent.grain_sectors} points after EOF"
        for index in _beyond_the_end(extent, table, position)
    ]


def _beyond_the_end(extent: Extent, table: GrainTable, position: int) -> Iterator[int]:
    end = extent.file.bs.getlength()
    if max(table.cells) * SECTOR < end:
        return
    count = -(-(min(extent.table_end(position), extent.length) - position) // extent.grain)
    for index, entry in enumerate(table.cells[:count]):
        if extent.holds_data(entry) and entry * SECTOR >= end:
            yield index
