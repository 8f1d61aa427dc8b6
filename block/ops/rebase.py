# SPDX-License-Identifier: GPL-2.0-only
"""Giving an image another backing file, so that it reads the same (img_rebase of qemu-img.c).

R1  What the image does not hold itself is compared in the old and the new backing file. Where
    they differ, the old data are written into the image; behind the old one's end, zeroes.
    What both know to read as zeroes is not read.
R2  Only then the name in the header is changed. Until then the image reads as before, whenever
    the work is broken off.
R3  `unsafe` changes the name only: the user says that both hold the same.
Called in the main thread; blocks.
"""

from __future__ import annotations

from block.core import flags as f
from block.core.align import blockalign
from block.core.backend import BlockBackend
from block.core.error import failed
from block.core.filename import full_backing_filename, refresh_filename
from block.core.iov import iov_slice
from block.core.open import open_backend
from block.core.status import co_block_status_above, co_is_allocated
from block.core.wait import run_sync

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from block.core.node import BlockDriverState

BUFFER_SIZE = 2 << 20
SECTOR = f.SECTOR_SIZE


class Base:
    """A backing file, or none: then it reads as zeroes."""

    def __init__(self, blk: BlockBackend | None) -> None:
        self.blk = blk
        self.length = blk.length if blk is not None else 0
        self.buffer = blockalign(BUFFER_SIZE)

    async def co_zeroes(self, offset: int, nbytes: int) -> tuple[bool, int]:
        """Whether a range is known to read as zeroes, and for how many bytes that is so."""
        if offset >= self.length or self.blk is None or self.blk.bs is None:
            return True, nbytes
        nbytes = min(nbytes, self.length - offset)
        status, found, _, _ = await co_block_status_above(self.blk.bs, None, True, offset, nbytes)
        return bool(status & f.BDRV_BLOCK_ZERO), found

    async def co_read(self, offset: int, nbytes: int) -> memoryview:
        """Reads bytes; beyond the end there are zeroes."""
        view = self.buffer[:nbytes]
        inside = max(0, min(nbytes, self.length - offset))
        if self.blk is not None and inside:
            await self.blk.co_preadv(offset, inside, [view[:inside]])
        if inside < nbytes:
            view[inside:] = bytes(nbytes - inside)
        return view


def old_base(bs: BlockDriverState) -> BlockBackend | None:
    """A handle for the backing file that an image has now; the caller closes it."""
    if bs.backing is None:
        return None
    blk = BlockBackend(f.BLK_PERM_CONSISTENT_READ, f.BLK_PERM_ALL)
    try:
        blk.insert_bs(bs.backing.bs)
    except BaseException:
        blk.unref()
        raise
    return blk


def seen_from(bs: BlockDriverState, backing: str) -> str:
    """Where the name of a backing file points to, as seen from an image; '' for none. Raises
    BlockError where that cannot be told."""
    refresh_filename(bs)
    return full_backing_filename(bs.exact_filename or bs.filename, backing)


def new_base(path: str, fmt: str, flags: int, force_share: bool) -> BlockBackend | None:
    """Opens the backing file that an image is to have; None for ''."""
    if not path:
        return None
    options: dict[str, object] = {"driver": fmt} if fmt else {}
    if force_share:
        options["force-share"] = True
    return open_backend(path, options=options, flags=flags)


class Rebase:
    """The data part of a safe rebase (R1)."""

    def __init__(
        self,
        blk: BlockBackend,
        old: BlockBackend | None,
        new: BlockBackend | None,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        self.blk = blk
        self.old, self.new = Base(old), Base(new)
        self.progress = progress

    def run(self) -> None:
        """Copies what would change. Raises BlockError."""
        run_sync(self.blk.aio_context, self.co_run)

    async def co_run(self) -> None:
        """As run, in a coroutine."""
        bs = self.blk.bs
        assert bs is not None
        length, offset = self.blk.length, 0
        while offset < length:
            allocated, nbytes = await co_is_allocated(bs, offset, length - offset)
            if not allocated:
                nbytes = await self._keep(offset, nbytes)
            offset += nbytes
            if self.progress is not None:
                self.progress(100 * offset / length)

    async def _keep(self, offset: int, nbytes: int) -> int:
        """Makes sure that a range will read as it does now; returns how long it was."""
        zero, nbytes = await self.old.co_zeroes(offset, nbytes)
        also_zero, nbytes = await self.new.co_zeroes(offset, nbytes)
        if zero and also_zero:
            return nbytes
        nbytes = min(nbytes, BUFFER_SIZE)
        old = await self._read(self.old, offset, nbytes, "old")
        new = await self._read(self.new, offset, nbytes, "new")
        for start, size in differences(old, new):
            try:
                if offset >= self.old.length:
                    await self.blk.co_pwrite_zeroes(offset + start, size)
                else:
                    await self.blk.co_pwritev(offset + start, size, iov_slice([old], start, size))
            except OSError as error:
                raise failed("Error while writing to COW image", error) from error
        return nbytes

    async def _read(self, base: Base, offset: int, nbytes: int, which: str) -> memoryview:
        try:
            return await base.co_read(offset, nbytes)
        except OSError as error:
            raise failed(f"error while reading from {which} backing file", error) from error


def differences(old: memoryview, new: memoryview) -> Iterator[tuple[int, int]]:
    """Yields (start, bytes) of runs of sectors in which two buffers differ (compare_buffers)."""
    one, other = bytes(old), bytes(new)
    if one == other:
        return
    start = -1
    for at in range(0, len(one), SECTOR):
        if one[at : at + SECTOR] != other[at : at + SECTOR]:
            start = at if start < 0 else start
        elif start >= 0:
            yield start, at - start
            start = -1
    if start >= 0:
        yield start, len(one) - start
