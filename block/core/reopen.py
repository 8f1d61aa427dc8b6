# SPDX-License-Identifier: GPL-2.0-only
"""Changing the options of an open tree: read-only and back, cache mode, discard (bdrv_reopen).

R1  All or nothing: every node is made ready first; where one cannot, all stay as they were.
R2  Nodes that were made for their parent (inherits_from) follow it, and can be spoken to through
    it ('file.cache.direct'). What is said now goes before what was said when they were opened,
    that before what they inherit, and that before what they had.
R3  Only the common options can change, and those that the driver names (mutable_opts). Another
    value for any other option is refused by name, when the driver has found no fault with its own.
R4  Nothing is in flight meanwhile: the whole subtree is drained.

Called in the main thread. Source: block.c (bdrv_reopen_queue, _prepare, _commit).
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core import graph, permissions
from block.core.cache import parse_detect_zeroes, parse_discard
from block.core.error import BlockError
from block.core.inherit import COMMON_OPTS, flags_from_options, inherit_options
from block.core.options import flatten, invalid, take_options, take_sub_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from block.core.driver import BlockDriver
    from block.core.node import BlockDriverState

CHANGEABLE = frozenset(option.name for option in COMMON_OPTS) - {
    "driver",
    "node-name",
    "force-share",
}


class Change:
    """What one node is about to become (BDRVReopenState); `given` is what was asked of it."""

    def __init__(
        self,
        bs: BlockDriverState,
        options: dict[str, object],
        explicit: dict[str, object],
        given: dict[str, object],
    ) -> None:
        self.bs = bs
        self.given = given
        self.options = options
        self.explicit = explicit
        taken = take_options(dict(options), COMMON_OPTS)
        flags = flags_from_options(bs.open_flags, taken)
        if flags & f.BDRV_O_RDWR:
            flags |= f.BDRV_O_ALLOW_RDWR
        if taken["discard"] is not None:
            flags = flags & ~f.BDRV_O_UNMAP | parse_discard(taken["discard"])
        self.flags = flags
        self.detect_zeroes = parse_detect_zeroes(taken["detect-zeroes"], flags)
        self.old_flags = bs.open_flags
        self.prepared: object = None

    @property
    def driver(self) -> BlockDriver:
        assert self.bs.drv is not None, "a closed node cannot be reopened"
        return self.bs.drv

    def prepare(self) -> None:
        """Lets the driver get ready; raises where it cannot."""
        if "reopen_prepare" not in self.driver.hooks:
            message = (
                f"Block format '{self.driver.format_name}' used by node '{self.bs.node_name}' "
                "does not support reopening files"
            )
            raise BlockError(errno.ENOTSUP, message, self.bs.node_name)
        if self.bs.copy_on_read and not self.flags & f.BDRV_O_RDWR:
            name = self.bs.node_name
            raise invalid(f"Can't set node '{name}' to r/o with copy-on-read enabled")
        self.prepared = self.driver.reopen_prepare(self.bs, dict(self.options), self.flags)

    def commit(self) -> None:
        """Makes it so; cannot fail."""
        bs = self.bs
        self.driver.reopen_commit(bs, self.prepared)
        bs.options, bs.explicit_options = self.options, self.explicit
        bs.read_only = not self.flags & f.BDRV_O_RDWR
        bs.detect_zeroes = self.detect_zeroes


def reopen(bs: BlockDriverState, options: Mapping[str, object]) -> None:
    """Changes options of a node, and of those below that inherit from it (bdrv_reopen).

    Raises BlockError, and changes nothing: an option that cannot change, a device that
    still writes where the node would become read-only, a file that cannot be opened so.
    """
    bs.subtree_drained_begin()
    try:
        changes = plan(bs, flatten(options))
        bs.flush()
        with bs.aio_context:
            _apply(bs, changes)
    finally:
        bs.subtree_drained_end()


def set_read_only(bs: BlockDriverState, read_only: bool) -> None:
    """Makes a tree read-only, or writable again (bdrv_reopen_set_read_only)."""
    reopen(bs, {"read-only": read_only})


def plan(
    bs: BlockDriverState, options: dict[str, object], parent: Change | None = None, role: int = 0
) -> list[Change]:
    """What a node and those below it would become; parents come first (bdrv_reopen_queue_child).

    `parent` is the change of the node above, whose child in that role this one is (R2).
    """
    own = dict(options)
    heirs = [child for child in bs.children if child.bs.inherits_from is bs]
    below = [(child, take_sub_options(own, child.name)) for child in heirs]
    given = own
    own = {name: value for name, value in own.items() if bs.child(name) is None}
    before, explicit = dict(bs.options), dict(bs.explicit_options)
    if bs.drv is not None:
        bs.drv.join_options(own, before)
        bs.drv.join_options(own, explicit)
    explicit.update(own)
    said = dict(explicit)
    if parent is not None:
        inherit_options(said, role, parent.options)
    change = Change(bs, {**before, **said}, explicit, given)
    changes = [change]
    for child, of_child in below:
        changes += plan(child.bs, of_child, change, child.role)
    return changes


def _refuse_unchangeable(change: Change) -> None:
    """Raises where an option would get another value and cannot (R3)."""
    bs, mutable = change.bs, change.driver.mutable_opts
    for name, value in change.given.items():
        if name in ("backing", "file") and isinstance(value, str) and not graph.find_node(value):
            raise invalid(f"Cannot find device='' nor node-name='{value}'")
        child = bs.child(name)
        now = bs.options.get(name) if child is None else child.bs.node_name
        if name not in CHANGEABLE and name not in mutable and now != value:
            raise invalid(f"Cannot change the option '{name}'")


def _apply(bs: BlockDriverState, changes: list[Change]) -> None:
    """Prepares all, then commits all (R1)."""
    prepared: list[Change] = []
    try:
        for change in changes:
            change.prepare()
            prepared.append(change)
            _refuse_unchangeable(change)
        for change in changes:
            change.bs.open_flags = change.flags
        permissions.check_perm(bs, *permissions.cumulative_perm(bs))
    except OSError:
        for change in changes:
            change.bs.open_flags = change.old_flags
        permissions.abort_perm_update(bs)
        for change in prepared:
            change.driver.reopen_abort(change.bs, change.prepared)
        raise
    for change in reversed(changes):
        change.commit()
    permissions.set_perm(bs)
    bs.refresh_limits()
    for change in reversed(changes):
        change.driver.reopen_commit_post(change.bs)
