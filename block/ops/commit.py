# SPDX-License-Identifier: GPL-2.0-only
"""Writing what an image holds into the image below it (img_commit of qemu-img.c).

R1  Layers are opened each by itself, without their backing files: what a layer holds is what is
    written. The lowest goes first, so that in the end the base reads as the top did.
R2  A base that is too short grows first. A layer that is shorter than the next one above reads as
    zeroes behind its end, so there the base gets zeroes.
R3  Nothing that the top shows is changed on the way: where the base is written, a layer above it
    has the data. Who breaks off the work and begins again loses nothing.
Called in the main thread; blocks.

QEMU does this with a job in one tree; the result is the same.
"""

from __future__ import annotations

from block.core import flags as f
from block.core.align import blockalign
from block.core.status import co_block_status
from block.core.wait import run_sync
from block.lean import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.core.backend import BlockBackend

BUFFER_SIZE = 2 << 20


class Commit:
    """The work: `layers` from the lowest to the top, and the base below them."""

    def __init__(
        self,
        layers: list[BlockBackend],
        base: BlockBackend,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        self.layers = layers
        self.base = base
        self.progress = progress
        self.total = sum(layer.length for layer in layers)
        self.done = 0
        self.buffer = blockalign(BUFFER_SIZE)

    def run(self) -> None:
        """Commits all layers and flushes the base. Raises BlockError."""
        if self.layers[-1].length > self.base.length:
            self.base.truncate(self.layers[-1].length)
        for index, layer in enumerate(self.layers):
            if index:
                self._zero_behind(self.layers[index - 1].length, layer.length)
            run_sync(self.base.aio_context, partial(self._co_commit, layer))
        self.base.flush()

    def _zero_behind(self, length: int, above: int) -> None:
        """What a layer does not reach reads as zeroes in the one above (R2)."""
        end = min(self.base.length, above)
        if length < end:
            self.base.pwrite_zeroes(length, end - length, f.REQ_MAY_UNMAP)

    async def _co_commit(self, layer: BlockBackend) -> None:
        bs = layer.bs
        assert bs is not None
        length, offset = min(layer.length, self.base.length), 0
        while offset < length:
            status, nbytes, _, _ = await co_block_status(bs, True, offset, length - offset)
            if status & f.BDRV_BLOCK_ALLOCATED:
                nbytes = min(nbytes, BUFFER_SIZE)
                await self._copy(layer, offset, nbytes, bool(status & f.BDRV_BLOCK_ZERO))
            offset += nbytes
            if self.progress is not None:
                self.progress(100 * (self.done + offset) / self.total)
        self.done += layer.length

    async def _copy(self, layer: BlockBackend, offset: int, nbytes: int, is_zero: bool) -> None:
        if is_zero:
            await self.base.co_pwrite_zeroes(offset, nbytes, f.REQ_MAY_UNMAP)
            return
        view = self.buffer[:nbytes]
        await layer.co_preadv(offset, nbytes, [view])
        await self.base.co_pwritev(offset, nbytes, [view])
