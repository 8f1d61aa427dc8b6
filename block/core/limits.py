# SPDX-License-Identifier: GPL-2.0-only
"""Limits of a node: the children's merged, then the driver's word (bdrv_refresh_limits).

R1  A limit of 0 means that there is none; of two maxima the smaller holds, of two
    alignments the larger.
R2  A node that listens to debug events takes nothing on a short way, where none are raised; a
    node above it answers no reads there (debug.py, R3).
Who may call it: the thread at home in the node's context.
"""

from __future__ import annotations

from block.core import flags as f

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.node import BlockDriverState


class BlockLimits:
    """What requests a node takes as they are (QEMU's BlockLimits); all in bytes, 0: no limit."""

    __slots__ = (
        "align_mask",
        "fast_read",
        "largest",
        "max_iov",
        "max_pdiscard",
        "max_pwrite_zeroes",
        "max_transfer",
        "min_mem_alignment",
        "opt_mem_alignment",
        "opt_transfer",
        "pdiscard_alignment",
        "pwrite_zeroes_alignment",
        "request_alignment",
    )

    def __init__(self) -> None:
        self.request_alignment = 1
        self.max_pdiscard = 0
        self.pdiscard_alignment = 0
        self.max_pwrite_zeroes = 0
        self.pwrite_zeroes_alignment = 0
        self.opt_transfer = 0
        self.max_transfer = 0
        self.min_mem_alignment = 512
        self.opt_mem_alignment = 4096
        self.max_iov = f.IOV_MAX
        self.fast_read = f.REQUEST_MAX_BYTES  # the longest read that try_preadv may answer
        self.complete()

    def complete(self) -> None:
        """Computes what the fast path asks for; after every change."""
        self.align_mask = self.request_alignment - 1
        self.largest = min(self.max_transfer or f.REQUEST_MAX_BYTES, f.REQUEST_MAX_BYTES)
        self.fast_read = min(self.fast_read, self.largest)


def min_non_zero(a: int, b: int) -> int:
    """Returns the smaller of two limits, where 0 is none (MIN_NON_ZERO)."""
    return min(a, b) if a and b else a or b


def _merge(into: BlockLimits, other: BlockLimits) -> None:
    into.opt_transfer = max(into.opt_transfer, other.opt_transfer)
    into.max_transfer = min_non_zero(into.max_transfer, other.max_transfer)
    into.opt_mem_alignment = max(into.opt_mem_alignment, other.opt_mem_alignment)
    into.min_mem_alignment = max(into.min_mem_alignment, other.min_mem_alignment)
    into.max_iov = min_non_zero(into.max_iov, other.max_iov)


_WRITE_FLAGS = f.REQ_FUA | f.REQ_ALLOCATING
_ZERO_FLAGS = f.REQ_FUA | f.REQ_MAY_UNMAP | f.REQ_NO_FALLBACK


def inherit_supported_flags(bs: BlockDriverState, below: BlockDriverState) -> None:
    """Lets a node that hands requests on support the flags that the child supports."""
    bs.supported_write_flags = f.REQ_WRITE_UNCHANGED | _WRITE_FLAGS & below.supported_write_flags
    bs.supported_zero_flags = f.REQ_WRITE_UNCHANGED | _ZERO_FLAGS & below.supported_zero_flags
    bs.supported_truncate_flags = f.REQ_ZERO_WRITE & below.supported_truncate_flags


def refresh_limits(bs: BlockDriverState) -> None:
    """Computes bs.bl anew, after the children's (bdrv_refresh_limits)."""
    bl = BlockLimits()
    if bs.drv is not None:
        bl.min_mem_alignment = bl.opt_mem_alignment = bl.max_iov = 0
        inherits = f.BDRV_CHILD_DATA | f.BDRV_CHILD_FILTERED | f.BDRV_CHILD_COW
        for child in bs.children:
            if child.role & inherits:
                refresh_limits(child.bs)
                _merge(bl, child.bs.bl)
        bl.min_mem_alignment = bl.min_mem_alignment or 512
        bl.opt_mem_alignment = bl.opt_mem_alignment or 4096
        bl.max_iov = bl.max_iov or f.IOV_MAX
    bs.bl = bl
    if bs.drv is not None:
        bs.drv.refresh_limits(bs)
    if bs.copy_on_read:
        bs.bl.fast_read = 0
    bs.bl.complete()
    _close_short_ways(bs)
    align = bs.bl.request_alignment
    assert align.bit_count() == 1, "request_alignment is no power of two"


def _close_short_ways(bs: BlockDriverState) -> None:
    """R2: lengths of which no request is short enough."""
    if bs.debugged:
        bs.bl.largest = bs.bl.fast_read = 0
    elif any(child.bs.debugged for child in bs.children):
        bs.bl.fast_read = 0
