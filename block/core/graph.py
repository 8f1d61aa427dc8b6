# SPDX-License-Identifier: GPL-2.0-only
"""All nodes and their names, and walks over them (the lists at the head of block.c).

R1  Node names are unique, also against the ids of BlockBackends; a node without a name
    gets `#blockNNN`.
R2  Chains may be MAX_DEPTH nodes deep; Python's stack is made deep enough for that, and
    an edge that would go deeper is refused (DESIGN.md, rule 14).
R3  The tree has no loops.
Who may call it: the main thread.
"""

from __future__ import annotations

import errno
import sys

from block.core.error import BlockError
from block.core.flags import MAX_DEPTH
from block.core.options import is_identifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from block.aio.context import AioContext
    from block.core.backend import BlockBackend
    from block.core.node import BlockDriverState

# Dicts used as ordered sets; who is in them lives until unref.
all_states: dict[BlockDriverState, None] = {}
backends: dict[BlockBackend, None] = {}
_by_name: dict[str, BlockDriverState] = {}
_counter = 100

NAME_MAX = 31
# Python frames that one node may need on a request's way (measured: raw 4, qcow2 7).
_FRAMES_PER_NODE = 12


def assign_node_name(bs: BlockDriverState, name: str | None) -> None:
    """Names a node, or finds a name for it (bdrv_assign_node_name)."""
    global _counter
    if not name:
        name = f"#block{_counter:03d}"
        _counter += 1
    elif not is_identifier(name):
        raise BlockError(errno.EINVAL, f"Invalid node-name: '{name}'")
    if find_backend(name) is not None:
        raise BlockError(errno.EINVAL, f"node-name={name} is conflicting with a device id")
    if name in _by_name:
        raise BlockError(errno.EINVAL, f"Duplicate nodes with node-name='{name}'")
    if len(name) > NAME_MAX:
        raise BlockError(errno.EINVAL, "Node name too long")
    bs.node_name = name
    _by_name[name] = bs


def forget_node(bs: BlockDriverState) -> None:
    """Takes a closed node off the lists."""
    all_states.pop(bs, None)
    if _by_name.get(bs.node_name) is bs:
        del _by_name[bs.node_name]


def find_node(name: str) -> BlockDriverState | None:
    """Finds a node by its name (bdrv_find_node)."""
    return _by_name.get(name)


def find_backend(name: str) -> BlockBackend | None:
    """Finds a BlockBackend by its id (blk_by_name)."""
    for blk in backends:
        if blk.name == name:
            return blk
    return None


def lookup_bs(name: str) -> BlockDriverState:
    """Finds a node by a drive's id or by its own name (bdrv_lookup_bs)."""
    blk = find_backend(name)
    if blk is not None:
        if blk.root is None:
            raise BlockError(errno.ENOMEDIUM, f"Device '{name}' has no medium")
        return blk.root.bs
    bs = find_node(name)
    if bs is None:
        message = f"Cannot find device='{name}' nor node-name='{name}'"
        raise BlockError(errno.ENOENT, message)
    return bs


def device_name(bs: BlockDriverState) -> str:
    """Returns the id of a drive that stands on a node, or '' (bdrv_get_device_name)."""
    return next((name for edge in bs.parents if (name := edge.klass.get_name(edge))), "")


def device_or_node_name(bs: BlockDriverState) -> str:
    """Returns what a person calls a node: its drive's id, else its own name
    (bdrv_get_device_or_node_name)."""
    return device_name(bs) or bs.node_name


def by_context() -> dict[AioContext, tuple[list[BlockDriverState], list[BlockBackend]]]:
    """Returns each context that has nodes or backends, once, with them; a backend without a tree
    is in the main loop."""
    found: dict[AioContext, tuple[list[BlockDriverState], list[BlockBackend]]] = {}
    for bs in all_states:
        found.setdefault(bs.aio_context, ([], []))[0].append(bs)
    for blk in backends:
        found.setdefault(blk.aio_context, ([], []))[1].append(blk)
    return found


# -- walks


def parents_of(bs: BlockDriverState) -> Iterator[BlockDriverState]:
    """Yields the nodes right above a node."""
    for child in bs.parents:
        if child.klass.parent_is_bds:
            yield child.parent


def children_of(bs: BlockDriverState) -> Iterator[BlockDriverState]:
    """Yields the nodes right below a node."""
    return (child.bs for child in bs.children)


def subtree(bs: BlockDriverState) -> dict[BlockDriverState, None]:
    """Returns a node and all below it, each once, parents before their children's children."""
    seen = {bs: None}
    stack = [bs]
    while stack:
        for child in stack.pop().children:
            if child.bs not in seen:
                seen[child.bs] = None
                stack.append(child.bs)
    return seen


def is_below(bs: BlockDriverState, top: BlockDriverState) -> bool:
    """Says whether `bs` is `top` or one of the nodes below it."""
    return bs in subtree(top)


def component(bs: BlockDriverState) -> dict[BlockDriverState, None]:
    """Returns all nodes that hang together with a node: they share one context."""
    seen = {bs: None}
    stack = [bs]
    while stack:
        node = stack.pop()
        for near in [*parents_of(node), *children_of(node)]:
            if near not in seen:
                seen[near] = None
                stack.append(near)
    return seen


def _longest(
    bs: BlockDriverState,
    near: Callable[[BlockDriverState], Iterable[BlockDriverState]],
    known: dict[BlockDriverState, int],
) -> int:
    """Counts the nodes of the longest chain from `bs` on in one direction."""
    if bs not in known:
        known[bs] = 1 + max((_longest(n, near, known) for n in near(bs)), default=0)
    return known[bs]


def check_new_edge(parent: BlockDriverState, child: BlockDriverState) -> None:
    """Raises where a new edge would close a loop or make a chain too deep (R2, R3)."""
    if parent in subtree(child):
        message = f"Making '{child.node_name}' a child of '{parent.node_name}' would create a cycle"
        raise BlockError(errno.EINVAL, message, parent.node_name)
    depth = _longest(parent, parents_of, {}) + _longest(child, children_of, {})
    if depth > MAX_DEPTH:
        message = f"The chain would be {depth} nodes deep; at most {MAX_DEPTH} are supported"
        raise BlockError(errno.EINVAL, message, parent.node_name)
    needed = 1000 + depth * _FRAMES_PER_NODE
    if sys.getrecursionlimit() < needed:
        sys.setrecursionlimit(needed)
