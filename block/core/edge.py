# SPDX-License-Identifier: GPL-2.0-only
"""An edge of the tree: what a parent holds of a child (QEMU's BdrvChild).

A parent is a node or a BlockBackend. An edge has a name, a role, permissions and a
class (`ChildClass`) through which the child tells the parent what happens to it.

R1  Edges come and go in the main thread only, with the tree's context held.
R2  `attach_child` takes over the caller's reference to the child; where it fails, the
    reference is dropped.
R3  A request goes through an edge, never straight to a node: the edge knows whether its
    parent may do that.
Who may call it: the main thread for changes, the context's thread for requests.
"""

from __future__ import annotations

from block.aio.errors import UsedAfterFree
from block.core import (
    context,
    discard,
    drain,
    flush,
    graph,
    io,
    permissions,
    status,
    truncate,
    wait,
    zero,
)
from block.core import flags as f
from block.core.error import BlockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable

    from block.aio.context import AioContext
    from block.core.iov import Iov
    from block.core.node import BlockDriverState


class ChildClass:
    """How a child talks to its parent (QEMU's BdrvChildClass); this one is deaf."""

    parent_is_bds = False
    # The edge keeps its node when replace_node moves the others.
    stay_at_node = False

    def parent_desc(self, child: BdrvChild) -> str:
        """Names the parent for a person."""
        return "another user"

    def get_name(self, child: BdrvChild) -> str | None:
        """Returns a name that a person knows the node by, such as a drive's id."""
        return None

    def drained_begin(self, child: BdrvChild) -> None:
        """The parent submits nothing more from now on; it must not wait here."""

    def drained_poll(self, child: BdrvChild) -> bool:
        """Says whether requests of the parent are still on their way."""
        return False

    def drained_end(self, child: BdrvChild) -> None:
        """The parent may submit again (once for each drained_begin)."""

    def attach(self, child: BdrvChild) -> None:
        """The edge points to a node now."""

    def detach(self, child: BdrvChild) -> None:
        """The edge stops pointing to its node."""

    def resize(self, child: BdrvChild) -> None:
        """The child has another length."""

    def check_aio_context(self, child: BdrvChild, ctx: AioContext) -> None:
        """Raises BlockError where the parent cannot follow to `ctx` (can_set_aio_ctx)."""

    def set_aio_context(self, child: BdrvChild, ctx: AioContext) -> None:
        """The child has moved to `ctx`; the parent moves what is its own (set_aio_ctx)."""


class ChildOfBds(ChildClass):
    """The parent is a node (child_of_bds): drains travel up, limits and sizes too."""

    parent_is_bds = True

    def parent_desc(self, child: BdrvChild) -> str:
        return f"node '{child.parent.node_name}'"

    def drained_begin(self, child: BdrvChild) -> None:
        drain.quiesce(child.parent, None, False)

    def drained_poll(self, child: BdrvChild) -> bool:
        return drain.drain_poll(child.parent, False, None, False)

    def drained_end(self, child: BdrvChild) -> None:
        drain.unquiesce(child.parent, False, None, False)

    def attach(self, child: BdrvChild) -> None:
        drain.apply_subtree_drain(child, child.parent)

    def detach(self, child: BdrvChild) -> None:
        drain.unapply_subtree_drain(child, child.parent)

    def resize(self, child: BdrvChild) -> None:
        if child.parent.drv is not None:
            child.parent.drv.child_resized(child.parent, child)

    def check_aio_context(self, child: BdrvChild, ctx: AioContext) -> None:
        context.check_set_aio_context(child.parent, ctx)

    def set_aio_context(self, child: BdrvChild, ctx: AioContext) -> None:
        context.set_aio_context(child.parent, ctx)


child_of_bds = ChildOfBds()


class BdrvChild:
    """One edge; requests to the child are its methods.

    `parent` is the node above (`user` the BlockBackend or job, where it is none), `bs` the
    node below. An edge that has been taken away has no `bs`: to use it is UsedAfterFree.
    A `frozen` one keeps its node (frozen.py).
    Requests: offsets and lengths in bytes; failure is a BlockError.
    """

    __slots__ = (
        "__weakref__",
        "attached",
        "backup_perm",
        "bs",
        "frozen",
        "klass",
        "name",
        "parent_quiesce_counter",
        "perm",
        "role",
        "shared_perm",
        "user",
    )
    bs: BlockDriverState

    def __init__(
        self, name: str, klass: ChildClass, role: int, perm: int, shared: int, user: object
    ) -> None:
        self.name = name
        self.klass = klass
        self.role = role
        self.perm = perm
        self.shared_perm = shared
        self.attached = False
        self.frozen = False
        self.backup_perm: tuple[int, int] | None = None
        self.parent_quiesce_counter = 0
        self.user = user

    @property
    def parent(self) -> BlockDriverState:
        """The node above; only where klass.parent_is_bds."""
        assert self.klass.parent_is_bds, "this edge belongs to no node"
        return self.user  # type: ignore[return-value]  # what parent_is_bds means

    def __getattr__(self, name: str) -> object:
        if name == "bs":
            raise UsedAfterFree(f"edge '{self.name}' points to no node any more")
        raise AttributeError(name)

    def __repr__(self) -> str:
        return f"<BdrvChild {self.name} -> {self.bs if self.attached else None}>"

    # -- requests (bdrv_co_*); plain functions that hand the awaitable on save a level

    def co_preadv(self, offset: int, nbytes: int, qiov: Iov, flags: int = 0) -> Awaitable[None]:
        """Reads (bdrv_co_preadv)."""
        return io.co_preadv(self, offset, nbytes, qiov, flags)

    def co_pwritev(self, offset: int, nbytes: int, qiov: Iov, flags: int = 0) -> Awaitable[None]:
        """Writes (bdrv_co_pwritev)."""
        return io.co_pwritev(self, offset, nbytes, qiov, flags)

    def co_pwritev_new(self, offset: int, nbytes: int, qiov: Iov) -> Awaitable[None]:
        """Writes where nothing has been stored yet (REQ_ALLOCATING, if the child knows it)."""
        flags = f.REQ_ALLOCATING & self.bs.supported_write_flags
        return io.co_pwritev(self, offset, nbytes, qiov, flags)

    def co_pwrite_zeroes(self, offset: int, nbytes: int, flags: int = 0) -> Awaitable[None]:
        """Writes zeroes (bdrv_co_pwrite_zeroes)."""
        return zero.co_pwrite_zeroes(self, offset, nbytes, flags)

    def co_pdiscard(self, offset: int, nbytes: int) -> Awaitable[None]:
        """Discards (bdrv_co_pdiscard)."""
        return discard.co_pdiscard(self, offset, nbytes)

    def co_flush(self) -> Awaitable[None]:
        """Makes everything written durable (bdrv_co_flush)."""
        return flush.co_flush(self.bs)

    def co_truncate(
        self, offset: int, exact: bool = False, prealloc: str = "off", flags: int = 0
    ) -> Awaitable[None]:
        """Changes the length (bdrv_co_truncate)."""
        return truncate.co_truncate(self, offset, exact, prealloc, flags)

    def co_block_status(self, offset: int, nbytes: int) -> Awaitable[status.Status]:
        """Asks where the bytes are (bdrv_block_status)."""
        return status.co_block_status_above(self.bs, None, True, offset, nbytes)

    def try_preadv(self, offset: int, nbytes: int, qiov: Iov) -> int | None:
        """Reads at once, or declines: the same checks as co_preadv (DESIGN.md, rule 13)."""
        return io.try_preadv(self, offset, nbytes, qiov)

    # -- the same for those who may wait

    def pread(self, offset: int, nbytes: int) -> bytes:
        """Reads and waits (bdrv_pread); not inside a coroutine."""
        buffer = bytearray(nbytes)
        qiov = [memoryview(buffer)]
        wait.run_sync(self.bs.aio_context, lambda: self.co_preadv(offset, nbytes, qiov))
        return bytes(buffer)

    def pwrite(self, offset: int, data: bytes, flags: int = 0) -> None:
        """Writes and waits (bdrv_pwrite); not inside a coroutine."""
        qiov = [memoryview(data)]
        wait.run_sync(self.bs.aio_context, lambda: self.co_pwritev(offset, len(data), qiov, flags))

    def try_set_perm(self, perm: int, shared: int) -> None:
        """Changes the edge's permissions, or raises and changes nothing."""
        permissions.child_try_set_perm(self, perm, shared)


# -- making, taking away and turning edges


def attach_child(
    parent: BlockDriverState, child_bs: BlockDriverState, name: str, role: int
) -> BdrvChild:
    """Puts one node below another (bdrv_attach_child).

    Takes over the caller's reference to `child_bs`. Raises BlockError on a conflict of
    permissions, where the tree would become a loop or too deep, or where the two nodes
    cannot come into the same context.
    """
    try:
        graph.check_new_edge(parent, child_bs)
        needed = permissions.cumulative_perm(parent)
        needed = permissions.child_perm(parent, child_bs, None, role, *needed)
    except OSError:
        child_bs.unref()
        raise
    child = BdrvChild(name, child_of_bds, role, *needed, parent)
    _attach_root(child, child_bs, parent.aio_context)
    parent.children.append(child)
    return child


def root_attach_child(
    child_bs: BlockDriverState,
    name: str,
    klass: ChildClass,
    role: int,
    ctx: AioContext | None,
    perm: int,
    shared: int,
    user: object,
) -> BdrvChild:
    """Gives a user that is no node an edge to a node (bdrv_root_attach_child).

    Takes over the caller's reference. `ctx` is the user's context; None where it follows
    the node wherever that is.
    """
    child = BdrvChild(name, klass, role, perm, shared, user)
    _attach_root(child, child_bs, ctx or child_bs.aio_context)
    return child


def _attach_root(child: BdrvChild, child_bs: BlockDriverState, ctx: AioContext) -> None:
    try:
        permissions.check_update_perm(child_bs, child.perm, child.shared_perm)
        if child_bs.aio_context is not ctx:
            _bring_together(child, child_bs, ctx)
    except OSError:
        permissions.abort_perm_update(child_bs)
        child_bs.unref()
        raise
    replace_child(child, child_bs)


def _bring_together(child: BdrvChild, child_bs: BlockDriverState, ctx: AioContext) -> None:
    """Moves the child to the parent's context, or else the parent to the child's."""
    try:
        context.try_set_aio_context(child_bs, ctx)
    except BlockError:
        child.klass.check_aio_context(child, child_bs.aio_context)
        child.klass.set_aio_context(child, child_bs.aio_context)


def replace_child(child: BdrvChild, new_bs: BlockDriverState | None) -> None:
    """Turns an edge to another node, or to none (bdrv_replace_child).

    The permissions have been checked before; references are the caller's matter.
    """
    old_bs = child.bs if child.attached else None
    turn(child, old_bs, new_bs)
    if new_bs is not None:
        permissions.set_perm(new_bs)
    if old_bs is not None:
        permissions.refresh_node_perms(old_bs)
        context.go_home(old_bs)


def turn(
    child: BdrvChild, old_bs: BlockDriverState | None, new_bs: BlockDriverState | None
) -> None:
    """Keeps the parent quiesced exactly as often as its node is (bdrv_replace_child_noperm)."""
    if new_bs is not None:
        ctx = new_bs.aio_context
        assert old_bs is None or old_bs.aio_context is ctx, "R1: nodes of two contexts"
        while child.parent_quiesce_counter < drain.owed_to_parent(child, new_bs):
            drain.parent_drained_begin_single(child, ctx)
    if old_bs is not None:
        child.klass.detach(child)
        old_bs.parents.remove(child)
        child.attached = False
        del child.bs
    if new_bs is not None:
        child.bs = new_bs
        child.attached = True
        new_bs.parents.append(child)
        child.klass.attach(child)
    owed = drain.owed_to_parent(child, new_bs) if new_bs is not None else 0
    while child.parent_quiesce_counter > owed:
        drain.parent_drained_end_single(child)


def root_unref_child(child: BdrvChild) -> None:
    """Takes away the edge of a user and its reference (bdrv_root_unref_child)."""
    child_bs = child.bs
    replace_child(child, None)
    child_bs.unref()


def unref_child(parent: BlockDriverState, child: BdrvChild | None) -> None:
    """Takes away an edge of a node and its reference (bdrv_unref_child)."""
    if child is None:
        return
    assert not child.frozen, f"{child!r} is frozen"
    _unset_inherits_from(parent, child)
    parent.children.remove(child)
    if parent.file is child:
        parent.file = None
    if parent.backing is child:
        parent.backing = None
    root_unref_child(child)


def _unset_inherits_from(root: BlockDriverState, child: BdrvChild) -> None:
    bs = child.bs
    others = [c for c in root.children if c is not child and c.bs is bs]
    if bs.inherits_from is root and not others:
        bs.inherits_from = None
    for below in bs.children:
        _unset_inherits_from(root, below)


def set_backing_hd(bs: BlockDriverState, backing: BlockDriverState | None) -> None:
    """Makes `backing` the node that `bs` reads from where it holds nothing (bdrv_set_backing_hd).

    Takes a reference of its own to `backing`. None takes the backing file away. Raises BlockError,
    also where the present edge is frozen.
    """
    if bs.backing is not None and bs.backing.frozen:
        from block.core.frozen import refuse

        raise refuse(bs.backing)
    if backing is not None:
        backing.ref()
    if bs.backing is not None:
        unref_child(bs, bs.backing)
    try:
        if backing is not None:
            _attach_backing(bs, backing)
    finally:
        bs.refresh_limits()


def _attach_backing(bs: BlockDriverState, backing: BlockDriverState) -> None:
    is_filter = bs.drv is not None and bs.drv.is_filter
    role = f.BDRV_CHILD_FILTERED | f.BDRV_CHILD_PRIMARY if is_filter else f.BDRV_CHILD_COW
    bs.backing = attach_child(bs, backing, "backing", role)
    bs.open_flags &= ~f.BDRV_O_NO_BACKING
    bs.backing_file = backing.filename
    bs.backing_format = backing.drv.format_name if backing.drv is not None else ""
