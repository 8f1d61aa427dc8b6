# SPDX-License-Identifier: GPL-2.0-only
"""Free clusters that must not be taken again yet.

A cluster is free as soon as its L2 entry points elsewhere, in memory. On the disk the old entry
may still point to it, and what it holds may have been flushed:

    memory    L2 entry -> new cluster      refcount of the old one: 0
    disk      L2 entry -> old cluster      a power cut now, and the guest reads this

R1  What an L2 entry has let go stays in `let_go` until the new entry is on the disk: nothing else
    may be written over it.
R2  The search begins above these clusters until the guest flushes; where it comes to one all the
    same, it first makes the L2 tables safe.
R3  Where the tables cannot be made safe now, more are remembered for a while: who has let something
    go has done what he wanted, and the next flush tells of the failure.
R4  Nor is it written over while somebody reads it who found it before: a guest may read one part
    of a compressed cluster while it writes another. Readers need no lock to come to an end.
Who may call it: coroutines that hold the image's lock.

Discussion: QEMU takes them again at once. A power cut may then leave a compressed cluster that
cannot be unpacked.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.formats.qcow2.state import Qcow2State

MAX_LET_GO = 1 << 16
"""How many clusters are remembered; a disk that is discarded as a whole has more."""


def includes(s: Qcow2State, first: int, count: int) -> bool:
    """Whether one of adjacent clusters is not to be taken yet."""
    return not s.let_go.isdisjoint(range(first, first + count))


def look_below(s: Qcow2State) -> None:
    """Lets the next search begin at what was let go: a flush is on its way (R2)."""
    if s.let_go:
        s.free_cluster = min(s.free_cluster, *s.let_go)


async def make_safe(s: Qcow2State) -> None:
    """Makes the L2 tables safe, so that what they have let go can be taken again (R2)."""
    await s.l2_cache.flush()
    for read in list(s.unpacking):
        if read in s.unpacking:
            await read.wait()  # R4
    look_below(s)
    s.let_go.clear()


async def forget_too_many(s: Qcow2State) -> None:
    """Makes them safe where more are remembered than memory is meant for."""
    if len(s.let_go) > MAX_LET_GO:
        try:
            await make_safe(s)
        except OSError:
            return  # R3
