# SPDX-License-Identifier: GPL-2.0-only
"""Children that come and go while the parent is in use (x-blockdev-change: bdrv_add_child,
bdrv_del_child).

R1  Which parents can do it, and when, is their driver's word: the hooks add_child and del_child.
R2  A node that comes has no parent yet; it follows its new one into that one's context.
Who may call it: the main thread.
"""

from __future__ import annotations

import errno

from block.core import filename, graph
from block.core.error import BlockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.node import BlockDriverState


def add_child(parent: BlockDriverState, child_bs: BlockDriverState) -> None:
    """Puts a node below another as one more child (bdrv_add_child).

    Takes a reference of its own. Raises BlockError where the parent's driver cannot do that,
    or the node has a parent already.
    """
    if parent.drv is None or "add_child" not in parent.drv.hooks:
        raise _unable(parent, "adding")
    if child_bs.parents:
        message = f"The node {child_bs.node_name} already has a parent"
        raise BlockError(errno.EINVAL, message, parent.node_name)
    with parent.aio_context:
        parent.drv.add_child(parent, child_bs)
        parent.refresh_limits()
    filename.refresh_filename(parent)


def del_child(parent: BlockDriverState, name: str) -> None:
    """Takes away the child by that name, as 'children.1' (bdrv_del_child)."""
    child = parent.child(name)
    if child is None:
        message = f"Node '{parent.node_name}' does not have child '{name}'"
        raise BlockError(errno.ENOENT, message, parent.node_name)
    if parent.drv is None or "del_child" not in parent.drv.hooks:
        raise _unable(parent, "removing")
    with parent.aio_context:
        parent.drv.del_child(parent, child)
        parent.refresh_limits()
    filename.refresh_filename(parent)


def _unable(parent: BlockDriverState, what: str) -> BlockError:
    name = graph.device_or_node_name(parent)
    message = f"The node {name} does not support {what} a child"
    return BlockError(errno.ENOTSUP, message, parent.node_name)
