# SPDX-License-Identifier: GPL-2.0-only
"""Where the data of an image is: its extents, down the backing chain (img_map of qemu-img.c).

R1  Extents are asked of the tree, never found by reading; what a hole costs does not depend on
    its length. Neighbours that say the same are one extent.
R2  All runs in one coroutine, which hands each extent to `found` as soon as it is whole: an
    image with a million of them needs no memory for that.
Called in the main thread.
"""

from __future__ import annotations

from block.core import flags as f
from block.core.filename import refresh_filename
from block.core.status import co_block_status, co_block_statuses, skip_filters
from block.core.wait import run_sync

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.core.node import BlockDriverState


class MapEntry:
    """An extent (MapEntry of QEMU's schema); start, length and offset in bytes.

    `depth` counts layers from the top, `offset` is None where there is no place, and
    `filename` is '' where no file has it. `present`: a layer of the chain decides.
    """

    __slots__ = ("data", "depth", "filename", "length", "offset", "present", "start", "zero")

    def __init__(self, start: int, length: int, status: int, depth: int) -> None:
        self.start = start
        self.length = length
        self.data = bool(status & f.BDRV_BLOCK_DATA)
        self.zero = bool(status & f.BDRV_BLOCK_ZERO)
        self.present = bool(status & f.BDRV_BLOCK_ALLOCATED)
        self.depth = depth
        self.offset: int | None = None
        self.filename = ""

    def is_continued_by(self, other: MapEntry) -> bool:
        """Whether the next extent says the same, and goes on where this one ends
        (entry_mergeable)."""
        if self.offset is None or other.offset is None:
            if self.offset is not other.offset:
                return False
        elif self.offset + self.length != other.offset:
            return False
        return (
            self.zero == other.zero
            and self.data == other.data
            and self.present == other.present
            and self.depth == other.depth
            and self.filename == other.filename
        )


def walk_map(
    bs: BlockDriverState,
    start: int,
    end: int,
    found: Callable[[MapEntry, MapEntry | None], None],
) -> None:
    """Calls found(extent, the next one or None) for each extent of a range. Raises BlockError.

    Between two calls the extents may be changed: `found` may simplify the next one.
    """
    run_sync(bs.aio_context, lambda: co_walk_map(bs, start, end, found))


async def co_walk_map(
    bs: BlockDriverState,
    start: int,
    end: int,
    found: Callable[[MapEntry, MapEntry | None], None],
) -> None:
    """As walk_map, in a coroutine."""
    current: MapEntry | None = None
    while start < end:
        for entry in await _entries_at(bs, start, end - start):
            start += entry.length
            if current is not None:
                if current.is_continued_by(entry):
                    current.length += entry.length
                    continue
                found(current, entry)
            current = entry
    # There is always a last one, be it empty: so QEMU prints it for an empty range.
    found(current if current is not None else MapEntry(start, 0, 0, 0), None)


async def _entries_at(bs: BlockDriverState, offset: int, nbytes: int) -> list[MapEntry]:
    """One extent, or many in a row where the top layer tells of them at once and decides."""
    top = skip_filters(bs)
    entries: list[MapEntry] = []
    for status, size, where, file in await co_block_statuses(top, offset, nbytes):
        if not status & (f.BDRV_BLOCK_ZERO | f.BDRV_BLOCK_DATA) and top.backing is not None:
            # The others are asked for again, when the layers below have told of this one.
            return entries or [await _entry_at(bs, offset, size)]
        entries.append(_entry(offset, size, status, 0, where, file))
        offset += size
    return entries


def _entry(
    offset: int, nbytes: int, status: int, depth: int, where: int, file: BlockDriverState | None
) -> MapEntry:
    if not status & (f.BDRV_BLOCK_ZERO | f.BDRV_BLOCK_DATA):
        status = 0
    entry = MapEntry(offset, nbytes, status, depth)
    if status & f.BDRV_BLOCK_OFFSET_VALID:
        entry.offset = where
        if file is not None:
            if not file.filename:
                refresh_filename(file)
            entry.filename = file.filename
    return entry


async def _entry_at(bs: BlockDriverState, offset: int, nbytes: int) -> MapEntry:
    """Asks layer after layer until one decides (get_block_status)."""
    depth = 0
    node = skip_filters(bs)
    while True:
        status, nbytes, where, file = await co_block_status(node, True, offset, nbytes)
        assert nbytes, "an empty extent"
        decided = status & (f.BDRV_BLOCK_ZERO | f.BDRV_BLOCK_DATA)
        if decided or node.backing is None:
            return _entry(offset, nbytes, status, depth, where, file)
        node = skip_filters(node.backing.bs)
        depth += 1
