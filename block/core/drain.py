# SPDX-License-Identifier: GPL-2.0-only
"""Drained sections: a tree stands still while somebody works on it (block/io.c, 2015-2022).

    drained_begin(bs)   quiesce: the node's context serves no external handlers; parents
                        stop submitting; then poll until nothing of bs is in flight
    drained_end(bs)     the same backwards; does not wait

R1  Sections nest; each begin needs its end. `bs.quiesce_counter` counts them, and each
    edge counts how often its parent has been told (`parent_quiesce_counter`).
R2  Parents are told before children; they do not wait in that callback.
R3  A subtree section covers all nodes below; edges that come or go meanwhile are told
    (apply_subtree_drain, unapply_subtree_drain).
R4  A section of many nodes (`together`: drain_all, a move) tells each node by itself, and so no
    node of its parents that are in the same section. `bs.together_counter` counts those
    sections; an edge that comes meanwhile reckons with it (owed_to_parent).
R5  Only the main thread drains nodes of a context that is not its own; a coroutine uses
    the co_ form, which leaves the coroutine and drains from a BH.
Who may call it: the main thread, or the home thread of the node.

    event on an edge     parent is a node                 parent is a BlockBackend
    drained_begin        quiesce it, and so its parents   park new requests, tell the device
    drained_poll         requests of it in flight?        requests of it in flight?
    drained_end          unquiesce it                     resume parked requests in order

A wait looks at each node a few times only, however many polls it takes (_Busy): a move is linear in
the number of nodes.

What once went wrong: drain_all polled once for each node instead of once for each context
(f406c03c09, 2015), and a drained node still got requests from its device, since nobody
had disabled the external handlers (2015).
"""

from __future__ import annotations

from block.aio.coroutine import co_yield, current, in_coroutine
from block.core import graph
from block.core.wait import poll_while

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from block.aio.context import AioContext
    from block.core.edge import BdrvChild
    from block.core.node import BlockDriverState


# -- telling parents


def parent_drained_begin_single(child: BdrvChild, poll_in: AioContext | None = None) -> None:
    """Tells one parent to stop; with `poll_in`, waits there until it has (R2)."""
    child.parent_quiesce_counter += 1
    child.klass.drained_begin(child)
    if poll_in is not None:
        poll_while(poll_in, lambda: child.klass.drained_poll(child))


def parent_drained_end_single(child: BdrvChild) -> None:
    """Tells one parent that it may go on."""
    assert child.parent_quiesce_counter > 0, "R1: more ends than begins"
    child.parent_quiesce_counter -= 1
    child.klass.drained_end(child)


def owed_to_parent(child: BdrvChild, bs: BlockDriverState) -> int:
    """Returns how often the parent of an edge to `bs` must have been told to stop (R1, R4)."""
    if child.klass.parent_is_bds:
        shared = min(bs.together_counter, child.parent.together_counter)
        return bs.quiesce_counter - shared
    return bs.quiesce_counter


def _parents(bs: BlockDriverState, ignore: BdrvChild | None, no_nodes: bool) -> list[BdrvChild]:
    return [c for c in bs.parents if c is not ignore and not (no_nodes and c.klass.parent_is_bds)]


# -- one node


def quiesce(bs: BlockDriverState, ignore: BdrvChild | None, no_nodes: bool) -> None:
    """Stops what feeds a node, without waiting (bdrv_do_drained_begin_quiesce)."""
    bs.quiesce_counter += 1
    if bs.quiesce_counter == 1:
        bs.aio_context.disable_external()
    for child in _parents(bs, ignore, no_nodes):
        parent_drained_begin_single(child)
    if bs.drv is not None:
        bs.drv.drain_begin(bs)


def unquiesce(
    bs: BlockDriverState, recursive: bool, ignore: BdrvChild | None, no_nodes: bool
) -> None:
    """Lets a node be fed again (bdrv_do_drained_end)."""
    assert bs.quiesce_counter > 0, "R1: more ends than begins"
    if bs.drv is not None:
        bs.drv.drain_end(bs)
    for child in _parents(bs, ignore, no_nodes):
        parent_drained_end_single(child)
    bs.quiesce_counter -= 1
    if bs.quiesce_counter == 0:
        bs.aio_context.enable_external()
    if recursive:
        bs.recursive_quiesce_counter -= 1
        for child in list(bs.children):
            unquiesce(child.bs, True, child, False)


def drain_poll(
    bs: BlockDriverState, recursive: bool, ignore: BdrvChild | None, no_nodes: bool
) -> bool:
    """Says whether something is still on its way to or in a node (bdrv_drain_poll)."""
    for child in bs.parents:
        if child is ignore or (no_nodes and child.klass.parent_is_bds):
            continue
        if child.klass.drained_poll(child):
            return True
    if bs.in_flight:
        return True
    return recursive and any(drain_poll(c.bs, True, c, False) for c in bs.children)


def _begin(bs: BlockDriverState, recursive: bool, ignore: BdrvChild | None) -> None:
    quiesce(bs, ignore, False)
    if recursive:
        bs.recursive_quiesce_counter += 1
        for child in list(bs.children):
            _begin(child.bs, True, child)


def _begin_and_poll(bs: BlockDriverState, recursive: bool, ignore: BdrvChild | None) -> None:
    with bs.aio_context:
        _begin(bs, recursive, ignore)
        poll_while(bs.aio_context, lambda: drain_poll(bs, recursive, ignore, False))


# -- sections


def drained_begin(bs: BlockDriverState) -> None:
    """Begins a section in which no request reaches the node (bdrv_drained_begin)."""
    _begin_and_poll(bs, False, None)


def drained_end(bs: BlockDriverState) -> None:
    """Ends it (bdrv_drained_end)."""
    with bs.aio_context:
        unquiesce(bs, False, None, False)


def subtree_drained_begin(bs: BlockDriverState) -> None:
    """Begins a section for a node and all below it (bdrv_subtree_drained_begin)."""
    _begin_and_poll(bs, True, None)


def subtree_drained_end(bs: BlockDriverState) -> None:
    """Ends it (bdrv_subtree_drained_end)."""
    with bs.aio_context:
        unquiesce(bs, True, None, False)


def apply_subtree_drain(child: BdrvChild, parent: BlockDriverState) -> None:
    """Brings a new child into the sections of its parent (R3)."""
    for _ in range(parent.recursive_quiesce_counter):
        _begin_and_poll(child.bs, True, child)


def unapply_subtree_drain(child: BdrvChild, parent: BlockDriverState) -> None:
    """Lets a child that goes out of the sections of its parent (R3)."""
    for _ in range(parent.recursive_quiesce_counter):
        unquiesce(child.bs, True, child, False)


def drain(bs: BlockDriverState) -> None:
    """Waits until no request of a node is in flight (bdrv_drain)."""
    drained_begin(bs)
    drained_end(bs)


# -- inside a coroutine


async def _leave_and(bs: BlockDriverState, work: Callable[[BlockDriverState], None]) -> None:
    """Leaves the coroutine and calls `work` from a BH (bdrv_co_yield_to_drain)."""
    assert in_coroutine(), "R5: outside a coroutine call the plain form"
    co = current()
    assert co is not None
    failure: list[BaseException] = []

    def from_bh() -> None:
        try:
            work(bs)
        except BaseException as error:
            failure.append(error)
        co.wake()

    bs.aio_context.bh_schedule_oneshot(from_bh, owner=bs)
    await co_yield()
    if failure:
        raise failure[0]


async def co_drained_begin(bs: BlockDriverState) -> None:
    """As drained_begin, for coroutines."""
    await _leave_and(bs, drained_begin)


async def co_drained_end(bs: BlockDriverState) -> None:
    """As drained_end, for coroutines."""
    await _leave_and(bs, drained_end)


async def co_drain(bs: BlockDriverState) -> None:
    """As drain, for coroutines (bdrv_co_drain)."""
    await _leave_and(bs, drain)


# -- many nodes


class _Busy:
    """Looks whether any of many nodes is busy, and begins with the one that was busy last."""

    __slots__ = ("at", "nodes")

    def __init__(self, nodes: Iterable[BlockDriverState]) -> None:
        self.nodes = list(nodes)
        self.at = 0

    def __call__(self) -> bool:
        for _ in self.nodes:
            if drain_poll(self.nodes[self.at], False, None, True):
                return True
            self.at = (self.at + 1) % len(self.nodes)
        return False


def begin_together(nodes: Iterable[BlockDriverState], ctx: AioContext) -> None:
    """Begins a section for all nodes of `ctx` that hang together; with it held (R4)."""
    _quiesce_together(nodes)
    poll_while(ctx, _Busy(nodes))


def end_together(nodes: Iterable[BlockDriverState]) -> None:
    """Ends it; with the context of the nodes held. Children first: users go on last.

    A node that has been closed meanwhile has left by itself.
    """
    for bs in reversed(list(nodes)):
        if bs.together_counter:
            _unquiesce_together(bs)
    for bs in nodes:
        _settle(bs)


def _quiesce_together(nodes: Iterable[BlockDriverState]) -> None:
    for bs in nodes:
        quiesce(bs, None, True)
        bs.together_counter += 1


def _unquiesce_together(bs: BlockDriverState) -> None:
    unquiesce(bs, False, None, True)
    bs.together_counter -= 1


def _settle(bs: BlockDriverState) -> None:
    """Lets a parent that came during the section, and was told for that, go on."""
    for child in list(bs.parents):
        while child.parent_quiesce_counter > owed_to_parent(child, bs):
            parent_drained_end_single(child)


# -- all nodes

_drain_all_count = 0


def join_drain_all(bs: BlockDriverState) -> None:
    """Brings a new node into the drain_all sections that there are now."""
    for _ in range(_drain_all_count):
        _quiesce_together([bs])


def leave_all(bs: BlockDriverState) -> None:
    """Ends what a node that is closed still has of such sections (bdrv_drain_all_end_quiesce)."""
    while bs.quiesce_counter:
        unquiesce(bs, False, None, True)
    bs.together_counter = 0


def drain_all_begin() -> None:
    """Begins a section for every node there is (bdrv_drain_all_begin); main thread only."""
    global _drain_all_count
    assert not in_coroutine(), "R5: drain_all belongs into the main loop"
    _drain_all_count += 1
    # A node that is made meanwhile has joined by itself.
    for ctx, (nodes, _) in graph.by_context().items():
        with ctx:
            _quiesce_together(nodes)
    while _poll_contexts():
        pass


def _poll_contexts() -> bool:
    """Polls each context once, if something in it is busy; says whether one was (f406c03c09)."""
    busy = False
    for ctx, (nodes, backends) in graph.by_context().items():
        with ctx:
            if _Busy(nodes)() or any(blk.in_flight for blk in backends):
                ctx.poll(True)
                busy = True
    return busy


def drain_all_end() -> None:
    """Ends it (bdrv_drain_all_end)."""
    global _drain_all_count
    _drain_all_count -= 1
    for ctx, (nodes, _) in graph.by_context().items():
        with ctx:
            for bs in nodes:
                _unquiesce_together(bs)


def drain_all() -> None:
    """Waits until no request is in flight anywhere (bdrv_drain_all)."""
    drain_all_begin()
    drain_all_end()


def close_all() -> None:
    """Takes the tree out of every backend, in the tree's own context (bdrv_close_all).

    Nodes that somebody else still holds, stay. Before patch 02 this walked over the nodes
    of a running IOThread without its lock.
    """
    assert not in_coroutine(), "R5: close_all belongs into the main loop"
    drain_all()
    for blk in list(graph.backends):
        with blk.aio_context:
            blk.remove_bs()
