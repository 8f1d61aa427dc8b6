# SPDX-License-Identifier: GPL-2.0-only
"""What convert reads: images one behind the other, as one disk (ImgConvertState's `src`).

R1  An extent ends where its image ends, and not within a cluster of it, if that can be: the rest of
    the cluster would be read (or unpacked) once more for the next extent.
R2  What is not packed is read in pieces that the loop gets at once from the page cache, if they are
    there (BlockLimits.fast_read). What is packed is read as a whole: worker threads unpack its
    parts side by side.
R3  What is in memory is not read at all, but lent (RequestHooks.lend_cached), if the format says in
    which file it lies, and nothing on the way wants to see reads: no filter, no blkdebug.
R4  With `salvage` nothing that cannot be read is an error (salvage.py); `warn` hears of it.
The images are never written. Called in the main thread; the co_ in a coroutine.
"""

from __future__ import annotations

import os

from block.core import flags as f
from block.core.error import errno_of
from block.core.status import co_block_status_above, skip_filters
from block.lean import partial
from block.ops.salvage import co_salvage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.core.backend import BlockBackend
    from block.core.node import BlockDriverState
    from block.core.status import Status

SECTOR = f.SECTOR_SIZE


class ConvertFailed(Exception):
    """A request failed; `what` was being done at `offset` of the target, `errno` is positive."""

    def __init__(self, what: str, offset: int, error: OSError) -> None:
        self.what = what
        self.offset = offset
        self.errno = errno_of(error)
        super().__init__(os.strerror(self.errno))


class Source:
    """One of the images."""

    __slots__ = ("alignment", "blk", "bs", "end", "lends", "piece", "start")

    def __init__(self, blk: BlockBackend, start: int) -> None:
        assert blk.bs is not None
        self.blk = blk
        self.bs = blk.bs
        self.start = start  # in the target, as is the end
        self.end = start + blk.length
        info = self.bs.get_info()
        cluster_size = info.cluster_size if info is not None else 0
        self.alignment = max(self.bs.bl.request_alignment, cluster_size, SECTOR)
        self.piece = read_at_once(self.bs) or blk.length  # R2
        self.lends = not sees_reads(self.bs)  # R3


class Sources:
    """All of them, as one disk; its offsets are the target's."""

    def __init__(
        self,
        images: list[BlockBackend],
        salvage: bool = False,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.images: list[Source] = []
        self.total = 0  # bytes
        for blk in images:
            self.images.append(Source(blk, self.total))
            self.total = self.images[-1].end
        self.salvage = salvage
        self.warn = warn

    def at(self, offset: int) -> Source:
        """The image that has a byte."""
        return next(it for it in self.images if offset < it.end)

    async def co_status(self, offset: int, nbytes: int, above_backing: bool) -> Status:
        """What is there (BDRV_BLOCK_*), for how many bytes (R1), and where if it can be lent (R3).

        `above_backing`: what only the backing file has does not count as there. Raises
        ConvertFailed.
        """
        source = self.at(offset)
        inside = offset - source.start
        status, nbytes, place, file = await self._status(
            source, inside, min(nbytes, source.end - offset), above_backing
        )
        tail = (inside + nbytes) % source.alignment
        lent = source.lends and status & f.BDRV_BLOCK_OFFSET_VALID
        return status, nbytes - tail if nbytes > tail else nbytes, place, file if lent else None

    async def _status(
        self, source: Source, offset: int, nbytes: int, above_backing: bool
    ) -> Status:
        base = cow_bs(source.bs) if above_backing else None
        while True:
            try:
                status, found, place, file = await co_block_status_above(
                    source.bs, base, True, offset, nbytes
                )
            except OSError as error:
                if not self.salvage:
                    what = "reading block status at offset"
                    raise ConvertFailed(what, offset, error) from error
                if nbytes <= SECTOR:
                    self._warn("block status at offset", offset, error)
                    return f.BDRV_BLOCK_DATA, nbytes, 0, None  # perhaps it can be read
                nbytes = -(-nbytes // (4 * SECTOR)) * SECTOR
            else:
                return status, -(-found // SECTOR) * SECTOR, place, file

    async def co_read(self, offset: int, view: memoryview, packed: bool) -> None:
        """Fills a buffer (convert_co_read, R2). Raises ConvertFailed."""
        done = 0
        while done < len(view):
            source = self.at(offset + done)
            size = source.end - offset - done
            part = view[done : done + (size if packed else min(size, source.piece))]
            await self._read(source, offset + done - source.start, part)
            done += len(part)

    async def _read(self, source: Source, start: int, part: memoryview) -> None:
        if self.salvage:
            await co_salvage(source.blk, start, part, partial(self._warn, "offset"))
            return
        try:
            await source.blk.co_preadv(start, len(part), [part])
        except OSError as error:
            raise ConvertFailed("reading at byte", source.start + start, error) from error

    async def co_copy_range(self, offset: int, target: BlockBackend, nbytes: int) -> None:
        """Copies without reading (convert_co_copy_range). Raises OSError, perhaps after a while."""
        done = 0
        while done < nbytes:
            source = self.at(offset + done)
            size = min(nbytes - done, source.end - offset - done)
            start = offset + done - source.start
            await source.blk.co_copy_range(start, target, offset + done, size)
            done += size

    def _warn(self, what: str, offset: int, error: OSError) -> None:
        if self.warn is not None:
            reason = os.strerror(errno_of(error))
            self.warn(f"error while reading {what} {offset}: {reason}")


def read_at_once(bs: BlockDriverState) -> int:
    """The longest read that nobody below has to wait for, if all is in memory; 0: there is none."""
    longest = bs.bl.fast_read
    while bs.file is not None:
        bs = bs.file.bs
        longest = min(longest, bs.bl.fast_read)
    return longest


def sees_reads(bs: BlockDriverState) -> bool:
    """Whether a node, or one below it, does more for a read than to look up where bytes are."""
    if bs.drv is None or bs.drv.is_filter or bs.debugged or bs.copy_on_read:
        return True
    return any(sees_reads(child.bs) for child in bs.children)


def cow_bs(bs: BlockDriverState) -> BlockDriverState | None:
    """The backing file of an image, from below filters (bdrv_cow_bs)."""
    backing = skip_filters(bs).backing
    return backing.bs if backing is not None else None
