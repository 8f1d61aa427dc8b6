# SPDX-License-Identifier: GPL-2.0-only
"""What a quorum node knows (BDRVQuorumState), and how its options become that.

R1  The children are the driver's own: `children` is the list that votes, in order. The core knows
    the same edges, but nothing of their order, and walks none of them (patch 12).
R2  A node votes by contents, or is in blkverify mode, or reads first come first served
    (fifo). With fifo the options blkverify and rewrite-corrupted mean nothing.
Who may call it: the driver, in the main thread.
"""

from __future__ import annotations

import errno

from block.aio.co_lock import CoRwLock
from block.core.error import BlockError
from block.core.options import Option, take_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.edge import BdrvChild

OPTIONS = (
    Option("vote-threshold", "number", "The number of vote needed for reaching quorum", 0),
    Option("blkverify", "bool", "Trigger block verify mode if set", False),
    Option("rewrite-corrupted", "bool", "Rewrite corrupted block on read quorum", False),
    Option("read-pattern", "string", "Allowed pattern: quorum, fifo. Quorum is default", "quorum"),
)


class QuorumState:
    """The node's settings and its voters; `repairs` keeps writes out while a copy is mended."""

    __slots__ = (
        "children", "fifo", "is_blkverify", "next_child", "repairs", "rewrite", "threshold",
    )  # fmt: skip

    def __init__(self, threshold: int, fifo: bool, is_blkverify: bool, rewrite: bool) -> None:
        self.threshold = threshold
        self.fifo = fifo
        self.is_blkverify = is_blkverify
        self.rewrite = rewrite
        self.children: list[BdrvChild] = []
        self.next_child = 0
        self.repairs = CoRwLock()


def _refuse(code: int, message: str) -> BlockError:
    return BlockError(code, message, driver="quorum")


def count_children(options: dict[str, object]) -> int:
    """Returns how many children the options describe: children.0, 1, 2 ... without a gap
    (qdict_array_entries)."""
    described = {name.split(".")[1] for name in options if name.startswith("children.")}
    count = len(described)
    whole = {name for name in options if name.count(".") == 1 and name.startswith("children.")}
    if described != set(map(str, range(count))) or any(
        name.startswith(f"{reference}.") for reference in whole for name in options
    ):
        raise _refuse(errno.EINVAL, "Option children is not a valid array")
    if not count:
        raise _refuse(errno.EINVAL, "Number of provided children must be 1 or more")
    return count


def take_state(options: dict[str, object]) -> tuple[QuorumState, int]:
    """Takes the driver's own options; returns its state and the number of children (R2)."""
    count = count_children(options)
    taken = take_options(options, OPTIONS)
    threshold = _valid_threshold(taken["vote-threshold"], count)
    if taken["read-pattern"] not in ("quorum", "fifo"):
        raise _refuse(errno.EINVAL, "Please set read-pattern as fifo or quorum")
    if taken["read-pattern"] == "fifo":
        return QuorumState(threshold, True, False, False), count
    is_blkverify, rewrite = taken["blkverify"], taken["rewrite-corrupted"]
    if is_blkverify and (count, threshold) != (2, 2):
        message = "blkverify=on can only be set if there are exactly two files and "
        raise _refuse(errno.EINVAL, message + "vote-threshold is 2")
    if is_blkverify and rewrite:
        raise _refuse(errno.EINVAL, "rewrite-corrupted=on cannot be used with blkverify=on")
    return QuorumState(threshold, False, is_blkverify, rewrite), count


def _valid_threshold(threshold: int, count: int) -> int:
    """Checks the threshold; negative ones have come as their 64-bit complement."""
    if not 1 <= threshold < 1 << 63:
        raise _refuse(errno.ERANGE, "Parameter 'vote-threshold' expects a value >= 1")
    if threshold > count:
        raise _refuse(errno.ERANGE, "threshold may not exceed children count")
    return threshold
