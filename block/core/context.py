# SPDX-License-Identifier: GPL-2.0-only
"""Moving a tree to another event loop while it runs (patch 03 of the series, block.c).

    drained_begin -> detach (parents first) -> attach (children first) -> users -> drained_end

R1  Moves run in the main thread only, one at a time; only it may hold two context locks.
R2  All nodes that hang together move together. A user of the tree that cannot follow
    (another device) is asked first, and refuses.
R3  Before its parents a node is not detached, and before its children not attached. The
    core walks `file` and `backing`; a driver with other children walks those itself.
R4  Between detach and attach a node has no context; nothing may use it then.
R5  A move drains all of the tree first: late requests are parked, in order, in the
    BlockBackend, and run in the new context.
R6  A move visits each node and each edge a constant number of times.
Who may call it: the main thread. set_aio_context takes both locks itself; the old one may
be held by the caller, the new one must not be.

    state of a node   event     next        what runs
    attached          detach    detached    notifiers.detach, driver.detach, then file and backing
    detached          attach    attached    backing and file, then driver.attach, notifiers.attached

What once went wrong: a non-blocking poll in another thread "stole" the wake-up of the loop
that was being left (b37548fcd1, 2018). Here the old context was let go before the new one was
taken, and a thread that was at home in the old one saw the tree go while it submitted a
request. So both are held until the tree is in the new one.
"""

from __future__ import annotations

import errno

from block.core import drain, graph
from block.core.error import BlockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.aio.context import AioContext
    from block.core.edge import BdrvChild
    from block.core.node import BlockDriverState


class AioContextNotifier:
    """Who wants to be told when a node moves (BdrvAioNotifier)."""

    __slots__ = ("attached", "detach")

    def __init__(self, attached: Callable[[AioContext], None], detach: Callable[[], None]) -> None:
        self.attached = attached
        self.detach = detach


def add_aio_context_notifier(
    bs: BlockDriverState, attached: Callable[[AioContext], None], detach: Callable[[], None]
) -> AioContextNotifier:
    """Calls `detach` before the node leaves its context, `attached` after it came to another.

    The result is what remove_aio_context_notifier takes (bdrv_add_aio_context_notifier).
    """
    notifier = AioContextNotifier(attached, detach)
    bs.aio_notifiers.append(notifier)
    return notifier


def remove_aio_context_notifier(bs: BlockDriverState, notifier: AioContextNotifier) -> None:
    """Takes a notifier off again (bdrv_remove_aio_context_notifier)."""
    bs.aio_notifiers.remove(notifier)


def detach_aio_context(bs: BlockDriverState) -> None:
    """Takes a node, and what is below it, out of its context (bdrv_detach_aio_context).

    A child that another parent still uses waits for that parent (R3).
    """
    if bs.detached or _has_attached_parent(bs):
        return
    bs.detached = True
    for notifier in list(bs.aio_notifiers):
        notifier.detach()
    if bs.drv is not None:
        bs.drv.detach_aio_context(bs)
    if bs.file is not None:
        detach_aio_context(bs.file.bs)
    if bs.backing is not None:
        detach_aio_context(bs.backing.bs)
    if bs.quiesce_counter:
        bs.aio_context.enable_external()


def _has_attached_parent(bs: BlockDriverState) -> bool:
    """Whether a parent is still to be detached; goes on where the last question ended (R6)."""
    while bs.detached_parents < len(bs.parents):
        child = bs.parents[bs.detached_parents]
        if child.klass.parent_is_bds and not child.parent.detached:
            return True
        bs.detached_parents += 1
    return False


def attach_aio_context(bs: BlockDriverState, new_context: AioContext) -> None:
    """Brings what is below a node, and then the node, into a context (bdrv_attach_aio_context)."""
    if not bs.detached:
        return
    bs.aio_context = new_context
    if bs.quiesce_counter:
        new_context.disable_external()
    if bs.backing is not None:
        attach_aio_context(bs.backing.bs, new_context)
    if bs.file is not None:
        attach_aio_context(bs.file.bs, new_context)
    if bs.drv is not None:
        bs.drv.attach_aio_context(bs, new_context)
    bs.detached = False
    bs.detached_parents = 0
    for notifier in list(bs.aio_notifiers):
        notifier.attached(new_context)


def set_aio_context(
    bs: BlockDriverState, new_context: AioContext, ignore: BdrvChild | None = None
) -> None:
    """Moves the whole tree of a node to another context (bdrv_set_aio_context).

    Waits for the requests in flight. Raises BlockError where a user of the tree, other
    than the edge `ignore`, cannot follow; then nothing has changed.
    """
    old_context = bs.aio_context
    _assert_main_thread(old_context)
    if new_context is old_context:
        return
    check_set_aio_context(bs, new_context, ignore)
    with old_context:
        nodes = _drain_component(bs)
        tops = [node for node in nodes if not any(graph.parents_of(node))]
        for top in tops:
            detach_aio_context(top)
        with new_context:
            for top in tops:
                attach_aio_context(top, new_context)
            _tell_users(nodes, new_context)
            drain.end_together(nodes)


def _drain_component(bs: BlockDriverState) -> dict[BlockDriverState, None]:
    """Drains all nodes that hang together with one, and returns them.

    A callback that runs while we wait may put a node into the tree, or take one out.
    """
    drained: dict[BlockDriverState, None] = {}
    while drained.keys() != (now := graph.component(bs)).keys():
        drain.end_together([node for node in drained if node not in now])
        drain.begin_together([node for node in now if node not in drained], bs.aio_context)
        drained = now
    return drained


def try_set_aio_context(bs: BlockDriverState, new_context: AioContext) -> None:
    """Moves a tree that nobody else needs where it is, or raises (bdrv_try_set_aio_context)."""
    set_aio_context(bs, new_context)


def go_home(bs: BlockDriverState) -> None:
    """Moves a tree back to the main loop when nobody needs it elsewhere."""
    try:
        set_aio_context(bs, bs.aio_context.world.main_context)
    except BlockError:
        return


def _assert_main_thread(ctx: AioContext) -> None:
    main = ctx.world.main_context
    assert main.is_home(), f"R1: a move from {ctx.name} outside the main thread"


def check_set_aio_context(
    bs: BlockDriverState, ctx: AioContext, ignore: BdrvChild | None = None
) -> None:
    """Raises where a user of the tree cannot follow, `ignore` apart (bdrv_can_set_aio_context)."""
    for node in graph.component(bs):
        for edge in node.parents:
            if not edge.klass.parent_is_bds and edge is not ignore:
                edge.klass.check_aio_context(edge, ctx)


def _tell_users(nodes: dict[BlockDriverState, None], ctx: AioContext) -> None:
    for node in nodes:
        for edge in node.parents:
            if not edge.klass.parent_is_bds:
                edge.klass.set_aio_context(edge, ctx)


def refuse_to_follow(name: str) -> BlockError:
    """Makes the error of a user that cannot follow (blk_root_can_set_aio_ctx)."""
    return BlockError(errno.EPERM, "Cannot change iothread of active block backend", name)
