# SPDX-License-Identifier: GPL-2.0-only
"""Consistency check and repair of an image (bdrv_co_check): what is asked, and what is found.

R1  What is found stands in a BdrvCheckResult, also where the check itself failed half-way.
R2  A check changes nothing unless `fix` says what may be repaired.
R3  Whoever checks an image opens it with BDRV_O_CHECK: otherwise a driver that repairs at open
    has done it already.
R4  Nothing is on its way to the image meanwhile: what a write has taken, and no table knows yet,
    looks like a leak, and would be given to somebody else. `co_check` leaves that to its caller.
Who may call it: `check` in the main thread; `co_check` in coroutines in the node's context.
"""

from __future__ import annotations

from block.core.error import no_medium
from block.core.report import to_stderr
from block.core.wait import run_sync

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.core.node import BlockDriverState

# What may be repaired (BdrvCheckMode).
FIX_NOTHING = 0
FIX_LEAKS = 1
FIX_ERRORS = 2


class BlockFragInfo:
    """How an image fills its clusters (BlockFragInfo); all are numbers of clusters."""

    __slots__ = (
        "allocated_clusters",
        "compressed_clusters",
        "fragmented_clusters",
        "total_clusters",
    )

    def __init__(self) -> None:
        self.allocated_clusters = 0
        self.total_clusters = 0
        self.fragmented_clusters = 0
        self.compressed_clusters = 0


def say_on_stderr(line: str) -> None:
    """Prints what a check has found, where nobody else wants to know."""
    to_stderr(f"{line}\n")


class BdrvCheckResult:
    """What a check has found and repaired (BdrvCheckResult).

    corruptions       what contradicts itself: data are in danger
    leaks             clusters that nobody refers to: room is lost, nothing else
    check_errors      how often the check itself could not go on
    *_fixed           what was repaired; it is not counted above any more
    image_end_offset  where in the file the image ends; 0: the format does not know
    bfi               how its clusters are filled
    say               is called with a line for each finding; by default it goes to standard error
    """

    __slots__ = (
        "bfi",
        "check_errors",
        "corruptions",
        "corruptions_fixed",
        "image_end_offset",
        "leaks",
        "leaks_fixed",
        "say",
    )

    def __init__(self, say: Callable[[str], None] = say_on_stderr) -> None:
        self.say = say
        self.corruptions = 0
        self.leaks = 0
        self.check_errors = 0
        self.corruptions_fixed = 0
        self.leaks_fixed = 0
        self.image_end_offset = 0
        self.bfi = BlockFragInfo()


async def co_check(bs: BlockDriverState, result: BdrvCheckResult, fix: int = FIX_NOTHING) -> None:
    """Checks an image, and repairs what `fix` (FIX_*) allows (bdrv_co_check).

    Raises BlockError: ENOTSUP where the format has no check, else what made it fail.
    """
    if bs.drv is None:
        raise no_medium(bs.node_name)
    bs.in_flight += 1
    try:
        await bs.drv.co_check(bs, result, fix)
    finally:
        bs.in_flight -= 1


def check(
    bs: BlockDriverState, fix: int = FIX_NOTHING, say: Callable[[str], None] = say_on_stderr
) -> BdrvCheckResult:
    """As co_check, with a new result, and waits (bdrv_check). `say` gets a line per finding."""
    result = BdrvCheckResult(say)
    bs.drained_begin()
    try:
        run_sync(bs.aio_context, lambda: co_check(bs, result, fix))
    finally:
        bs.drained_end()
    return result
