# SPDX-License-Identifier: GPL-2.0-only
"""Who may do what with a node: permissions of edges (block.c, bdrv_*_perm).

Each edge says what its parent does with the child (`perm`) and what it lets others do
(`shared_perm`). A change is a transaction over the tree below the edge:

    check_*  asks everyone and makes ready; raises on a conflict, and then
    abort_*  puts everything back; otherwise
    set_*    takes it over, and cannot fail.

R1  After a check follows either set or abort.
R2  The cumulative permissions of a node are the union of its parents' `perm` and the
    intersection of their `shared_perm`.
R3  To loosen never fails: where a check fails although nothing is tightened, the old,
    tighter permissions stay.
Who may call it: the main thread, holding the context of the tree.
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core.error import BlockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.edge import BdrvChild
    from block.core.node import BlockDriverState

    Ignore = frozenset[BdrvChild]

PERM_NAMES = (
    (f.BLK_PERM_CONSISTENT_READ, "consistent read"),
    (f.BLK_PERM_WRITE, "write"),
    (f.BLK_PERM_WRITE_UNCHANGED, "write unchanged"),
    (f.BLK_PERM_RESIZE, "resize"),
    (f.BLK_PERM_GRAPH_MOD, "change children"),
)
_WRITES = f.BLK_PERM_WRITE | f.BLK_PERM_WRITE_UNCHANGED
_NOBODY: frozenset[BdrvChild] = frozenset()


def perm_names(perm: int) -> str:
    """Spells permissions for a person (bdrv_perm_names)."""
    return ", ".join(name for bit, name in PERM_NAMES if perm & bit)


def is_writable(bs: BlockDriverState) -> bool:
    """Says whether the node can be written to (bdrv_is_writable)."""
    return bs.open_flags & (f.BDRV_O_RDWR | f.BDRV_O_INACTIVE) == f.BDRV_O_RDWR


def cumulative_perm(bs: BlockDriverState) -> tuple[int, int]:
    """Returns what the parents of a node do and share together (bdrv_get_cumulative_perm)."""
    perm, shared = 0, f.BLK_PERM_ALL
    for child in bs.parents:
        perm |= child.perm
        shared &= child.shared_perm
    return perm, shared


# -- what a parent needs of a child


def child_perm(
    bs: BlockDriverState,
    child_bs: BlockDriverState | None,
    child: BdrvChild | None,
    role: int,
    perm: int,
    shared: int,
) -> tuple[int, int]:
    """Asks the parent's driver what it needs of a child, and shares (bdrv_child_perm)."""
    assert bs.drv is not None, "a parent without a driver has no children"
    new_perm, new_shared = bs.drv.child_perm(bs, child, role, perm, shared)
    if child_bs is not None and child_bs.force_share:
        new_shared = f.BLK_PERM_ALL
    return new_perm, new_shared


def child_refresh_perms(bs: BlockDriverState, child: BdrvChild) -> None:
    """Asks the parent's driver anew what it needs, and takes it (bdrv_child_refresh_perms).

    Raises BlockError where others stand in the way; what it had before stays then.
    """
    wanted = cumulative_perm(bs)
    child.try_set_perm(*child_perm(bs, child.bs, child, child.role, *wanted))


def default_perms(bs: BlockDriverState, role: int, perm: int, shared: int) -> tuple[int, int]:
    """Returns what a role needs when the driver has no opinion (bdrv_default_perms)."""
    if role & f.BDRV_CHILD_FILTERED:
        return filter_perms(perm, shared)
    if role & f.BDRV_CHILD_COW:
        return _cow_perms(bs, perm, shared)
    assert role & (f.BDRV_CHILD_METADATA | f.BDRV_CHILD_DATA), "a child without a role"
    return _storage_perms(bs, role, perm, shared)


def filter_perms(perm: int, shared: int) -> tuple[int, int]:
    """A filter hands on what its parents need and share (bdrv_filter_default_perms)."""
    return (
        perm & f.DEFAULT_PERM_PASSTHROUGH,
        (shared & f.DEFAULT_PERM_PASSTHROUGH) | f.DEFAULT_PERM_UNCHANGED,
    )


def _cow_perms(bs: BlockDriverState, perm: int, shared: int) -> tuple[int, int]:
    """A backing file is only read; whether it may change is the parents' matter."""
    perm &= f.BLK_PERM_CONSISTENT_READ
    changes = f.BLK_PERM_WRITE | f.BLK_PERM_RESIZE
    shared = changes if shared & f.BLK_PERM_WRITE else 0
    shared |= f.BLK_PERM_CONSISTENT_READ | f.BLK_PERM_GRAPH_MOD | f.BLK_PERM_WRITE_UNCHANGED
    if bs.open_flags & f.BDRV_O_INACTIVE:
        shared |= changes
    return perm, shared


def _storage_perms(bs: BlockDriverState, role: int, perm: int, shared: int) -> tuple[int, int]:
    """A format reads and writes metadata on its own account (bdrv_default_perms_for_storage)."""
    perm, shared = filter_perms(perm, shared)
    if role & f.BDRV_CHILD_METADATA:
        if is_writable(bs):
            perm |= f.BLK_PERM_WRITE | f.BLK_PERM_RESIZE
        if not bs.open_flags & f.BDRV_O_NO_IO:
            perm |= f.BLK_PERM_CONSISTENT_READ
        shared &= ~(f.BLK_PERM_WRITE | f.BLK_PERM_RESIZE)
    if role & f.BDRV_CHILD_DATA:
        shared &= ~f.BLK_PERM_RESIZE
        if perm & f.BLK_PERM_WRITE_UNCHANGED:
            perm |= f.BLK_PERM_WRITE
        if perm & f.BLK_PERM_WRITE:
            perm |= f.BLK_PERM_RESIZE
    if bs.open_flags & f.BDRV_O_INACTIVE:
        shared |= f.BLK_PERM_WRITE | f.BLK_PERM_RESIZE
    return perm, shared


# -- the transaction on a node


def check_update_perm(
    bs: BlockDriverState, perm: int, shared: int, ignore: Ignore = _NOBODY
) -> None:
    """Asks whether a user with these permissions may join (bdrv_check_update_perm).

    The edges in `ignore` do not count: they are the ones that are being changed.
    """
    assert shared & f.BLK_PERM_WRITE_UNCHANGED, "everyone tolerates unchanging writes"
    total, total_shared = perm, shared
    for other in bs.parents:
        if other in ignore:
            continue
        _check_conflict(other, perm, shared)
        total |= other.perm
        total_shared &= other.shared_perm
    check_perm(bs, total, total_shared, ignore)


def _check_conflict(other: BdrvChild, perm: int, shared: int) -> None:
    if perm & ~other.shared_perm:
        raise _conflict(other, "does not allow", perm & ~other.shared_perm)
    if other.perm & ~shared:
        raise _conflict(other, "uses", other.perm & ~shared)


def _conflict(other: BdrvChild, what: str, perm: int) -> BlockError:
    node = other.bs.node_name
    user = f"use by {other.klass.parent_desc(other)} as '{other.name}'"
    message = f"Conflicts with {user}, which {what} '{perm_names(perm)}' on {node}"
    return BlockError(errno.EPERM, message, node)


def check_perm(bs: BlockDriverState, perm: int, shared: int, ignore: Ignore = _NOBODY) -> None:
    """Asks a node and all below whether these cumulative permissions can be (bdrv_check_perm)."""
    if perm & _WRITES:
        _check_writes(bs, perm)
    if bs.drv is None:
        return
    if "check_perm" in bs.drv.hooks:
        bs.drv.check_perm(bs, perm, shared)
    for child in bs.children:
        needed = child_perm(bs, child.bs, child, child.role, perm, shared)
        child_check_perm(child, *needed, ignore)


def _check_writes(bs: BlockDriverState, perm: int) -> None:
    if not is_writable(bs):
        raise BlockError(errno.EPERM, _why_not_writable(bs), bs.node_name)
    length = bs.total_sectors * f.SECTOR_SIZE
    if not perm & f.BLK_PERM_RESIZE and length % bs.bl.request_alignment:
        message = (
            "Cannot get 'write' permission without 'resize': Image size is not a multiple "
            "of request alignment"
        )
        raise BlockError(errno.EPERM, message, bs.node_name)


def _why_not_writable(bs: BlockDriverState) -> str:
    """A node that is writable as yet, and not by its flags, is being reopened."""
    if bs.read_only or bs.open_flags & f.BDRV_O_INACTIVE:
        return "Block node is read-only"
    return f"Read-only block node '{bs.node_name}' cannot support read-write users"


def set_perm(bs: BlockDriverState) -> None:
    """Takes over the permissions that the parents have now (bdrv_set_perm)."""
    if bs.drv is None:
        return
    perm, shared = cumulative_perm(bs)
    bs.drv.set_perm(bs, perm, shared)
    for child in bs.children:
        needed = child_perm(bs, child.bs, child, child.role, perm, shared)
        child_set_perm(child, *needed)


def abort_perm_update(bs: BlockDriverState) -> None:
    """Undoes a check on a node and all below it (bdrv_abort_perm_update)."""
    if bs.drv is None:
        return
    bs.drv.abort_perm_update(bs)
    for child in bs.children:
        child_abort_perm_update(child)


# -- the transaction on an edge


def child_check_perm(child: BdrvChild, perm: int, shared: int, ignore: Ignore = _NOBODY) -> None:
    """Asks whether an edge may have these permissions (bdrv_child_check_perm)."""
    check_update_perm(child.bs, perm, shared, ignore | {child})
    if child.backup_perm is None:
        child.backup_perm = (child.perm, child.shared_perm)
    child.perm, child.shared_perm = perm, shared


def child_set_perm(child: BdrvChild, perm: int, shared: int) -> None:
    """Gives an edge its new permissions (bdrv_child_set_perm)."""
    child.backup_perm = None
    child.perm, child.shared_perm = perm, shared
    set_perm(child.bs)


def child_abort_perm_update(child: BdrvChild) -> None:
    """Gives an edge its old permissions back (bdrv_child_abort_perm_update)."""
    if child.backup_perm is not None:
        child.perm, child.shared_perm = child.backup_perm
        child.backup_perm = None
    abort_perm_update(child.bs)


def child_try_set_perm(child: BdrvChild, perm: int, shared: int) -> None:
    """Changes the permissions of an edge, or raises and changes nothing (R3)."""
    tightens = bool(perm & ~child.perm or child.shared_perm & ~shared)
    try:
        child_check_perm(child, perm, shared)
    except OSError:
        child_abort_perm_update(child)
        if tightens:
            raise
        return
    child_set_perm(child, perm, shared)


def refresh_node_perms(bs: BlockDriverState) -> None:
    """Looks again at a node whose parents have become fewer; never raises (R3)."""
    try:
        check_perm(bs, *cumulative_perm(bs))
    except OSError:
        abort_perm_update(bs)
        return
    set_perm(bs)
