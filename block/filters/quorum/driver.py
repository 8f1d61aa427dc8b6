# SPDX-License-Identifier: GPL-2.0-only
"""quorum: one disk on several copies, which vote (block/quorum.c).

    driver=quorum, vote-threshold=N, children.0.*, children.1.*, ...

    state.py      the options, and what a node knows
    requests.py   reads, writes, flushes: what is asked, and how the answers are counted
    vote.py       which version has most votes
    tell.py       the events QUORUM_REPORT_BAD and QUORUM_FAILURE

R1  All children are equal: none is `file`, so the core walks none when the tree moves. The driver
    does it, for as many as there are at that moment (patch 12 of the series).
R2  Children come and go (x-blockdev-change) in drained sections: no request sees the list change.
    There are never fewer than vote-threshold of them.
R3  All copies are of one length, and nobody else may write to a child or resize it: then the
    copies would differ.
R4  A discard is not handed on: children could answer reads of the range differently. Nor can the
    disk be resized.
Who may call it: block.core.
"""

from __future__ import annotations

import errno
import os

from block.core import edge, io
from block.core import flags as f
from block.core.driver import BlockDriver
from block.core.error import BlockError
from block.core.open import open_child
from block.core.verify import try_read_alike
from block.filters.quorum import requests
from block.filters.quorum.state import OPTIONS, QuorumState, take_state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable

    from block.aio.context import AioContext
    from block.core.edge import BdrvChild
    from block.core.iov import Iov
    from block.core.node import BlockDriverState
    from block.core.status import Status

_ZERO_FLAGS = f.REQ_FUA | f.REQ_MAY_UNMAP | f.REQ_NO_FALLBACK
_SHARED = f.BLK_PERM_CONSISTENT_READ | f.BLK_PERM_WRITE_UNCHANGED


class QuorumDriver(BlockDriver):
    """The driver `quorum` (bdrv_quorum)."""

    format_name = "quorum"
    is_format = False
    runtime_opts = OPTIONS
    strong_runtime_opts = tuple(option.name for option in OPTIONS)

    # -- opening

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        s, count = take_state(options)
        bs.opaque = s
        for index in range(count):
            child = open_child(None, options, f"children.{index}", bs, f.BDRV_CHILD_DATA)
            assert child is not None
            s.children.append(child)
        s.next_child = count
        _refresh_flags(bs)

    def getlength(self, bs: BlockDriverState) -> int:
        """The length of every child; EIO where they differ (quorum_getlength)."""
        s: QuorumState = bs.opaque
        lengths = {child.bs.getlength() for child in s.children}
        if len(lengths) > 1:
            raise BlockError(errno.EIO, os.strerror(errno.EIO), bs.node_name, self.format_name)
        return lengths.pop()

    def refresh_limits(self, bs: BlockDriverState) -> None:
        bs.bl.fast_read = min(child.bs.bl.fast_read for child in bs.children)

    def gather_child_options(self, bs: BlockDriverState) -> dict[str, object]:
        """A list without gaps, whatever the children's names are by now."""
        return {"children": [child.bs.full_open_options for child in bs.opaque.children]}

    def dirname(self, bs: BlockDriverState) -> str:
        message = "Cannot generate a base directory for quorum nodes"
        raise BlockError(errno.EINVAL, message, bs.node_name, self.format_name)

    def child_perm(
        self, bs: BlockDriverState, child: BdrvChild | None, role: int, perm: int, shared: int
    ) -> tuple[int, int]:
        """What the parents do; a repair writes on the node's own account (R3)."""
        perm &= f.DEFAULT_PERM_PASSTHROUGH
        if bs.opaque.rewrite:
            perm |= f.BLK_PERM_WRITE
        return perm, shared & _SHARED | f.DEFAULT_PERM_UNCHANGED

    # -- children that come and go

    def add_child(self, bs: BlockDriverState, child_bs: BlockDriverState) -> None:
        """One voter more (quorum_add_child)."""
        s: QuorumState = bs.opaque
        if s.is_blkverify:
            raise _refuse(bs, "Cannot add a child to a quorum in blkverify mode")
        if child_bs.getlength() != bs.getlength():
            message = (
                f"The node {child_bs.node_name} is {child_bs.getlength()} bytes long, "
                f"the children of {bs.node_name} are {bs.getlength()}"
            )
            raise _refuse(bs, message)
        bs.drained_begin()
        try:
            name = f"children.{s.next_child}"
            child = edge.attach_child(bs, child_bs.ref(), name, f.BDRV_CHILD_DATA)
            s.children.append(child)
            s.next_child += 1
            _refresh_flags(bs)
        finally:
            bs.drained_end()

    def del_child(self, bs: BlockDriverState, child: BdrvChild) -> None:
        """One voter less (quorum_del_child)."""
        s: QuorumState = bs.opaque
        if len(s.children) <= s.threshold:
            message = "The number of children cannot be lower than the vote threshold "
            raise _refuse(bs, f"{message}{s.threshold}")
        bs.drained_begin()
        try:
            s.children.remove(child)
            if child.name == f"children.{s.next_child - 1}":
                s.next_child -= 1
            edge.unref_child(bs, child)
            _refresh_flags(bs)
        finally:
            bs.drained_end()

    # -- the event loop

    def detach_aio_context(self, bs: BlockDriverState) -> None:
        """Takes the children out of the loop (quorum_detach_aio_context)."""
        for child in bs.opaque.children:
            child.bs.detach_aio_context()

    def attach_aio_context(self, bs: BlockDriverState, ctx: AioContext) -> None:
        """Brings them into the new one (quorum_attach_aio_context)."""
        for child in bs.opaque.children:
            child.bs.attach_aio_context(ctx)

    # -- requests

    def try_preadv(self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> int | None:
        """Where all children answer at once and alike there is nothing to count."""
        s: QuorumState = bs.opaque
        if s.fifo:
            return io.try_preadv(s.children[0], offset, nbytes, qiov)
        return try_read_alike(s.children, offset, nbytes, qiov)

    def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        read = requests.read_fifo if bs.opaque.fifo else requests.read_quorum
        return read(bs, offset, nbytes, qiov)

    def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        return requests.write(bs, offset, nbytes, qiov, flags)

    def co_pwrite_zeroes(
        self, bs: BlockDriverState, offset: int, nbytes: int, flags: int
    ) -> Awaitable[None]:
        return requests.write(bs, offset, nbytes, None, flags)

    def co_flush(self, bs: BlockDriverState) -> Awaitable[None]:
        return requests.flush(bs)

    def co_block_status(
        self, bs: BlockDriverState, want_zero: bool, offset: int, nbytes: int
    ) -> Awaitable[Status]:
        return requests.block_status(bs, want_zero, offset, nbytes)


def _refuse(bs: BlockDriverState, message: str) -> BlockError:
    return BlockError(errno.EINVAL, message, bs.node_name, "quorum")


def _refresh_flags(bs: BlockDriverState) -> None:
    """Supports what all children support (quorum_refresh_flags)."""
    zero_flags = _ZERO_FLAGS
    for child in bs.opaque.children:
        zero_flags &= child.bs.supported_zero_flags
    bs.supported_write_flags = f.REQ_WRITE_UNCHANGED
    bs.supported_zero_flags = f.REQ_WRITE_UNCHANGED | zero_flags
