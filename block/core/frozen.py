# SPDX-License-Identifier: GPL-2.0-only
"""Edges that must stay as they are, because somebody counts on what is below (BdrvChild.frozen).

A copy-on-read filter with a `bottom` reads down to that node: were it taken out of the chain in
between, the filter would look for it in vain. So it freezes the edges down to there.

R1  A frozen edge points to the same node until who froze it lets it go: set_backing_hd and
    replace_node refuse, and nobody takes it away.
R2  An edge has one who froze it; a second one is refused.
Who may call it: the main thread, with the tree's context held.
"""

from __future__ import annotations

import errno

from block.core.error import BlockError
from block.core.status import filter_or_cow_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from block.core.edge import BdrvChild
    from block.core.node import BlockDriverState


def _links(bs: BlockDriverState, base: BlockDriverState) -> Iterator[BdrvChild]:
    """The edges that reads go through on their way from `bs` down to `base`."""
    while bs is not base:
        child = filter_or_cow_child(bs)
        assert child is not None, "base is not in the chain"
        yield child
        bs = child.bs


def freeze_backing_chain(bs: BlockDriverState, base: BlockDriverState) -> None:
    """Freezes the edges from `bs` down to `base`, which is in its chain
    (bdrv_freeze_backing_chain). Raises BlockError, and freezes none, where one is frozen (R2)."""
    links = list(_links(bs, base))
    for child in links:
        if child.frozen:
            raise refuse(child)
    for child in links:
        child.frozen = True


def unfreeze_backing_chain(bs: BlockDriverState, base: BlockDriverState) -> None:
    """Lets go what freeze_backing_chain with the same nodes has frozen."""
    for child in _links(bs, base):
        assert child.frozen, "R1: an edge has changed that was frozen"
        child.frozen = False


def refuse(child: BdrvChild) -> BlockError:
    """The error for who wants to change a frozen edge."""
    above, below = child.parent.node_name, child.bs.node_name
    message = f"Cannot change '{child.name}' link from '{above}' to '{below}'"
    return BlockError(errno.EPERM, message, above)
