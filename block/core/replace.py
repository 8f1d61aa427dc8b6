# SPDX-License-Identifier: GPL-2.0-only
"""Putting one node in the place of another while both are in use (bdrv_replace_node, bdrv_append).

R1  The nodes are of one context; the old one is drained meanwhile.
R2  Either all edges move, or none: permissions are checked for all of them together before.
Who may call it: the main thread, holding the context of the tree.
"""

from __future__ import annotations

import errno

from block.core import drain, edge, graph, permissions
from block.core import flags as f
from block.core.error import BlockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.edge import BdrvChild
    from block.core.node import BlockDriverState


def replace_node(old: BlockDriverState, new: BlockDriverState) -> None:
    """Lets all parents of `old` point to `new` (bdrv_replace_node).

    Edges that stay (klass.stay_at_node), and edges from below `new` itself, do not move.
    Raises BlockError, and changes nothing, where permissions forbid it or an edge is frozen.
    """
    edges = [c for c in old.parents if _should_move(c, new)]
    for child in edges:
        if child.frozen:
            raise _refuse_frozen(child)
    old.ref()
    drain.drained_begin(old)
    try:
        perm, shared = 0, f.BLK_PERM_ALL
        for child in edges:
            perm |= child.perm
            shared &= child.shared_perm
        try:
            permissions.check_update_perm(new, perm, shared, frozenset(edges))
        except OSError:
            permissions.abort_perm_update(new)
            raise
        for child in edges:
            new.ref()
            edge.turn(child, old, new)
            old.unref()
        permissions.set_perm(new)
        permissions.refresh_node_perms(old)
        for child in edges:
            if child.klass.parent_is_bds:
                child.parent.refresh_limits()
    finally:
        drain.drained_end(old)
        old.unref()


def _refuse_frozen(child: BdrvChild) -> BlockError:
    message = f"Cannot change '{child.name}' link to '{child.bs.node_name}'"
    return BlockError(errno.EPERM, message, child.bs.node_name)


def _should_move(child: BdrvChild, new: BlockDriverState) -> bool:
    if child.klass.stay_at_node:
        return False
    return not (child.klass.parent_is_bds and graph.is_below(child.parent, new))


def append_node(new: BlockDriverState, top: BlockDriverState) -> None:
    """Puts an overlay on top of a node, below all the node's parents (bdrv_append)."""
    edge.set_backing_hd(new, top)
    try:
        replace_node(top, new)
    except OSError:
        edge.set_backing_hd(new, None)
        raise
