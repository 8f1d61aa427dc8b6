# SPDX-License-Identifier: GPL-2.0-only
"""Discard (bdrv_co_pdiscard).

R1  Discard is advice: a node that was opened without discard=unmap, or whose driver has
    no discard, succeeds and does nothing.
R2  Devices that collect discards want the unaligned ends too, but most ignore a request
    that is not aligned: so the range is cut at bl.pdiscard_alignment.
Who may call it: BdrvChild, in the node's context.
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core import io
from block.core.error import BlockError, no_medium
from block.core.limits import min_non_zero
from block.core.serialise import DISCARD, TrackedRequest
from block.core.zero import pieces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.edge import BdrvChild


async def co_pdiscard(child: BdrvChild, offset: int, nbytes: int) -> None:
    """Tells that a range is not needed any more (bdrv_co_pdiscard)."""
    bs = child.bs
    if bs.drv is None:
        raise no_medium(bs.node_name)
    if offset < 0 or nbytes < 0 or nbytes > f.INT64_MAX - offset:
        raise BlockError(errno.EIO, f"Discard at offset {offset}", bs.node_name, offset=offset)
    if not bs.open_flags & f.BDRV_O_UNMAP or "co_pdiscard" not in bs.drv.hooks:
        return
    req = TrackedRequest(bs, offset, nbytes, DISCARD)
    try:
        await io.write_prepare(child, req, offset, nbytes, 0)
        try:
            await _discard_pieces(child, offset, nbytes)
        finally:
            io.write_finish(req, offset, nbytes, True)
    finally:
        req.end()


async def _discard_pieces(child: BdrvChild, offset: int, nbytes: int) -> None:
    bs = child.bs
    align = max(bs.bl.pdiscard_alignment, bs.bl.request_alignment)
    largest = min_non_zero(bs.bl.max_pdiscard, f.INT64_MAX)
    for start, size in pieces(offset, nbytes, align, largest):
        for at, part in pieces(start, size, bs.bl.request_alignment, f.INT64_MAX):
            try:
                assert bs.drv is not None
                await bs.drv.co_pdiscard(bs, at, part)
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise
