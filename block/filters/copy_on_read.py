# SPDX-License-Identifier: GPL-2.0-only
"""copy-on-read: what a read had to fetch from below stays in the image (block/copy-on-read.c).

The filter only says so: it hands reads to its child with REQ_COPY_ON_READ, and the core does
the rest there (block/core/copy_on_read.py).

Option: bottom, the name of a node in the chain below. Then only what lies in the layers above
it, or in it, is copied; what lies deeper is read, and stays there.

R1  Copying changes no content, so the filter takes WRITE_UNCHANGED on its child whatever its
    parents do; they may be mere readers.
R2  The bottom node lives as long as the filter, and stays below it: the filter holds a reference,
    and freezes the edges down to there.
Who may call it: block.core.
"""

from __future__ import annotations

from block.core import flags as f
from block.core import graph, io, status
from block.core.filter import FilterDriver, filtered
from block.core.frozen import freeze_backing_chain, unfreeze_backing_chain
from block.core.iov import iov_memset_zero, iov_slice
from block.core.options import Option, invalid, take_options
from block.core.status import filter_or_cow_bs, skip_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable

    from block.core.edge import BdrvChild
    from block.core.iov import Iov
    from block.core.node import BlockDriverState

_PASSED_ON = f.BLK_PERM_CONSISTENT_READ | f.BLK_PERM_WRITE | f.BLK_PERM_RESIZE


class CopyOnReadState:
    """What a copy-on-read node knows: down to where it copies from; None: all the way."""

    __slots__ = ("bottom",)

    def __init__(self, bottom: BlockDriverState | None) -> None:
        self.bottom = bottom


class CopyOnReadDriver(FilterDriver):
    """The driver `copy-on-read` (bdrv_copy_on_read)."""

    format_name = "copy-on-read"
    runtime_opts = (Option("bottom", "string", "node in the chain that data is copied from, too"),)

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        name = take_options(options, self.runtime_opts)["bottom"]
        super().open(bs, options, flags)
        bs.supported_read_flags = f.REQ_PREFETCH
        bottom = None
        if name is not None:
            bottom = _find_bottom(filtered(bs).bs, name)
            freeze_backing_chain(bs, bottom)
            bottom.ref()
        bs.opaque = CopyOnReadState(bottom)

    def close(self, bs: BlockDriverState) -> None:
        bottom = bs.opaque.bottom
        if bottom is not None:
            unfreeze_backing_chain(bs, bottom)
            bottom.unref()

    def child_perm(
        self, bs: BlockDriverState, child: BdrvChild | None, role: int, perm: int, shared: int
    ) -> tuple[int, int]:
        perm &= _PASSED_ON
        if not bs.open_flags & f.BDRV_O_INACTIVE:
            perm |= f.BLK_PERM_WRITE_UNCHANGED
        return perm, shared & _PASSED_ON | f.BLK_PERM_ALL & ~_PASSED_ON

    def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        bottom = bs.opaque.bottom
        if bottom is None:
            return io.co_preadv(filtered(bs), offset, nbytes, qiov, flags | f.REQ_COPY_ON_READ)
        return _read_down_to(bottom, filtered(bs), offset, nbytes, qiov, flags)


def _find_bottom(top: BlockDriverState, name: str) -> BlockDriverState:
    bottom = graph.find_node(name)
    if bottom is None:
        raise invalid(f"Bottom node '{name}' not found")
    if bottom.drv is None:
        raise invalid(f"Bottom node '{name}' not opened")
    if bottom.drv.is_filter:
        raise invalid(f"Bottom node '{name}' is a filter")
    node: BlockDriverState | None = top
    while node is not bottom:
        if node is None:
            raise invalid(f"Bottom node '{name}' is not in the backing chain of the file")
        node = filter_or_cow_bs(node)
    return bottom


async def _read_down_to(
    bottom: BlockDriverState,
    child: BdrvChild,
    offset: int,
    nbytes: int,
    qiov: Iov,
    flags: int,
) -> None:
    """Reads piece by piece: the pieces of layers from the child's down to `bottom` are copied."""
    done = 0
    prefetch = bool(flags & f.REQ_PREFETCH)
    while done < nbytes:
        copy, size = await _needs_copy(bottom, child.bs, offset + done, nbytes - done)
        if not size:  # beyond the end
            if not prefetch:
                iov_memset_zero(qiov, done, nbytes - done)
            return
        part = [] if prefetch else iov_slice(qiov, done, size)
        if copy:
            await io.co_preadv(child, offset + done, size, part, flags | f.REQ_COPY_ON_READ)
        elif not prefetch:
            await io.co_preadv(child, offset + done, size, part, flags)
        done += size


async def _needs_copy(
    bottom: BlockDriverState, top: BlockDriverState, offset: int, nbytes: int
) -> tuple[bool, int]:
    """Says whether the next bytes lie in a layer between, and for how many that is so.

    Where that cannot be found out, copying is tried: the read will tell what is wrong.
    """
    try:
        here, size = await status.co_is_allocated(top, offset, nbytes)
    except OSError:
        here, size = False, nbytes
    holder = skip_filters(top)
    below = filter_or_cow_bs(holder)
    if here or not size or holder is bottom or below is None:
        return False, size
    try:
        return await status.co_is_allocated_above(below, bottom, True, offset, size)
    except OSError:
        return True, size
