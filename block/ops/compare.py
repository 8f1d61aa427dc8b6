# SPDX-License-Identifier: GPL-2.0-only
"""Whether two images hold the same (img_compare of qemu-img.c).

R1  What both images know to read as zeroes is not read; nor is what both have not. A range that
    only one of them has must hold zeroes there.
R2  Where one image is longer, the rest must be zeroes. `strict`: lengths and extents must be
    the same, too.
R3  Data are compared in pieces of 2 MiB at most; both images are read at once. A difference is
    told by its sector, as QEMU looks at nothing smaller.
Called in the main thread.
"""

from __future__ import annotations

import os

from block.aio.co_parallel import co_parallel
from block.core import flags as f
from block.core.align import blockalign
from block.core.error import errno_of
from block.core.iov import iov_difference, iov_is_zero
from block.core.status import co_block_status_above
from block.core.wait import run_sync

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.core.backend import BlockBackend

BUFFER_SIZE = 2 << 20
SECTOR = f.SECTOR_SIZE


class CompareFailed(Exception):
    """An image could not be read; `which` is 0 or 1, `errno` positive.

    `offset` is None where it could not be told what is allocated.
    """

    def __init__(self, which: int, offset: int | None, error: OSError) -> None:
        self.which = which
        self.offset = offset
        self.errno = errno_of(error)
        super().__init__(os.strerror(self.errno))


class Difference:
    """The first difference: `kind` is 'size', 'status' or 'content', `offset` in bytes."""

    __slots__ = ("kind", "offset")

    def __init__(self, kind: str, offset: int) -> None:
        self.kind = kind
        self.offset = offset


class Comparison:
    """Two images side by side; both stay open, and are the caller's."""

    def __init__(
        self,
        first: BlockBackend,
        second: BlockBackend,
        strict: bool = False,
        progress: Callable[[float], None] | None = None,
        on_sizes_differ: Callable[[], None] | None = None,
    ) -> None:
        """`progress` hears of percents; `on_sizes_differ` that there is a rest (R2)."""
        self.blks = (first, second)
        self.lengths = (first.length, second.length)
        self.strict = strict
        self.progress = progress
        self.on_sizes_differ = on_sizes_differ
        self.buffers = (blockalign(BUFFER_SIZE), blockalign(BUFFER_SIZE))

    def run(self) -> Difference | None:
        """Compares; returns the first difference, or None. Raises CompareFailed."""
        return run_sync(self.blks[0].aio_context, self.co_run)

    async def co_run(self) -> Difference | None:
        """As run, in a coroutine."""
        shorter, longer = min(self.lengths), max(self.lengths)
        if self.strict and shorter != longer:
            return Difference("size", 0)
        offset = 0
        while offset < shorter:
            nbytes, difference = await self._compare_at(offset)
            if difference is not None:
                return difference
            offset = self._advance(offset, nbytes, longer)
        if shorter == longer:
            return None
        if self.on_sizes_differ is not None:
            self.on_sizes_differ()
        which = self.lengths.index(longer)
        while offset < longer:
            nbytes, difference = await self._check_rest(which, offset)
            if difference is not None:
                return difference
            offset = self._advance(offset, nbytes, longer)
        return None

    def _advance(self, offset: int, nbytes: int, total: int) -> int:
        offset += nbytes
        if self.progress is not None:
            self.progress(100 * offset / total)
        return offset

    async def _status(self, which: int, offset: int) -> tuple[int, int]:
        bs = self.blks[which].bs
        assert bs is not None
        try:
            status, nbytes, _, _ = await co_block_status_above(
                bs, None, True, offset, self.lengths[which] - offset
            )
        except OSError as error:
            raise CompareFailed(which, None, error) from error
        return status, nbytes

    async def _compare_at(self, offset: int) -> tuple[int, Difference | None]:
        """Compares from an offset on; returns for how many bytes that was, and what differs."""
        first, first_bytes = await self._status(0, offset)
        second, second_bytes = await self._status(1, offset)
        nbytes = min(first_bytes, second_bytes)
        if self.strict and first != second:
            return nbytes, Difference("status", offset)
        if first & second & f.BDRV_BLOCK_ZERO:
            return nbytes, None
        if not (first | second) & f.BDRV_BLOCK_ALLOCATED:
            return nbytes, None
        nbytes = min(nbytes, BUFFER_SIZE)
        if first & second & f.BDRV_BLOCK_ALLOCATED:
            return nbytes, await self._compare_data(offset, nbytes)
        which = 0 if first & f.BDRV_BLOCK_ALLOCATED else 1
        return nbytes, await self._check_zeroes(which, offset, nbytes)

    async def _compare_data(self, offset: int, nbytes: int) -> Difference | None:
        first, second = ([buffer[:nbytes]] for buffer in self.buffers)
        failures = await co_parallel(
            self.blks[0].co_preadv(offset, nbytes, first),
            self.blks[1].co_preadv(offset, nbytes, second),
        )
        for which, error in enumerate(failures):
            if error is not None:
                raise CompareFailed(which, offset, error)
        where = iov_difference(first, second)
        if where < 0:
            return None
        return Difference("content", offset + where // SECTOR * SECTOR)

    async def _check_rest(self, which: int, offset: int) -> tuple[int, Difference | None]:
        """Looks for data in the part that only one image has (R2)."""
        status, nbytes = await self._status(which, offset)
        if not status & f.BDRV_BLOCK_ALLOCATED or status & f.BDRV_BLOCK_ZERO:
            return nbytes, None
        nbytes = min(nbytes, BUFFER_SIZE)
        return nbytes, await self._check_zeroes(which, offset, nbytes)

    async def _check_zeroes(self, which: int, offset: int, nbytes: int) -> Difference | None:
        """Reads a range, and looks for a byte that is not zero (check_empty_sectors)."""
        view = self.buffers[0][:nbytes]
        try:
            await self.blks[which].co_preadv(offset, nbytes, [view])
        except OSError as error:
            raise CompareFailed(which, offset, error) from error
        if iov_is_zero([view]):
            return None
        zeroes = nbytes - len(bytes(view).lstrip(b"\0"))
        return Difference("content", offset + zeroes // SECTOR * SECTOR)
