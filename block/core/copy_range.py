# SPDX-License-Identifier: GPL-2.0-only
"""Copies from one node to another that never come through this process (bdrv_co_copy_range).

A request goes down twice: first through the source's nodes, each of which says where the bytes are
(co_copy_range_from), then through the target's (co_copy_range_to). At the bottom one driver has
both ends, and lets somebody else do it: the kernel, or a server.

    source   raw -> file --.
                            +--> copy_file_range
    target   raw -> file --'

R1  It is an offer. Who cannot raises ENOTSUP, and the caller reads and writes. It does so with all
    of it, since a part may have been copied. Any other error is one of the disk.
R2  On its way it is a read of the source and a write of the target, with all checks and waits of
    those. Aligned and within both, or ENOTSUP.
Who may call it: coroutines in the nodes' context, which is one.
"""

from __future__ import annotations

import errno

from block.core import io
from block.core.error import BlockError
from block.core.serialise import READ, WRITE, TrackedRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.edge import BdrvChild
    from block.core.node import BlockDriverState


class CopyRange:
    """One copy on its way: `nbytes` bytes at `offset` of `source` go to `to` of `target`.

    Both ends are edges. On its way down another edge takes an end's place, in a copy of this.
    """

    __slots__ = ("nbytes", "offset", "source", "target", "to")

    def __init__(
        self, source: BdrvChild, offset: int, target: BdrvChild, to: int, nbytes: int
    ) -> None:
        self.source = source
        self.offset = offset
        self.target = target
        self.to = to
        self.nbytes = nbytes

    def from_child(self, source: BdrvChild, offset: int) -> CopyRange:
        """The same bytes, as a child of the source has them."""
        return CopyRange(source, offset, self.target, self.to, self.nbytes)

    def to_child(self, target: BdrvChild, to: int) -> CopyRange:
        """The same bytes, as a child of the target shall have them."""
        return CopyRange(self.source, self.offset, target, to, self.nbytes)


def refuse(bs: BlockDriverState) -> BlockError:
    """The error that says: read and write instead (R1)."""
    return BlockError(errno.ENOTSUP, "No copy offloading", bs.node_name)


def _check(child: BdrvChild, offset: int, nbytes: int, hook: str) -> None:
    bs = child.bs
    io.check_request(bs, offset, nbytes)
    if bs.drv is None or hook not in bs.drv.hooks or bs.encrypted:
        raise refuse(bs)
    if (offset | nbytes) & bs.bl.align_mask or offset + nbytes > bs.getlength():
        raise refuse(bs)


async def co_copy_range_from(copy: CopyRange) -> None:
    """Copies, on the source's way down (bdrv_co_copy_range_from)."""
    bs = copy.source.bs
    _check(copy.source, copy.offset, copy.nbytes, "co_copy_range_from")
    req = TrackedRequest(bs, copy.offset, copy.nbytes, READ)
    try:
        await req.wait_serialising()
        assert bs.drv is not None
        await bs.drv.co_copy_range_from(bs, copy)
    finally:
        req.end()


async def co_copy_range_to(copy: CopyRange) -> None:
    """Copies, on the target's way down (bdrv_co_copy_range_to)."""
    bs = copy.target.bs
    _check(copy.target, copy.to, copy.nbytes, "co_copy_range_to")
    req = TrackedRequest(bs, copy.to, copy.nbytes, WRITE)
    try:
        await io.write_prepare(copy.target, req, copy.to, copy.nbytes, 0)
        done = False
        try:
            assert bs.drv is not None
            await bs.drv.co_copy_range_to(bs, copy)
            done = True
        finally:
            io.write_finish(req, copy.to, copy.nbytes, done)
    finally:
        req.end()
