# SPDX-License-Identifier: GPL-2.0-only
"""Every picture that is drawn by docs/tools; `python -m docs.tools` writes them all."""

from __future__ import annotations

from collections.abc import Callable

from docs.tools import (
    accelerators,
    attach,
    blkdebug,
    blklogwrites,
    chain,
    engines,
    event_loop,
    filters,
    hostile,
    house,
    looking,
    moving,
    qcow2,
    qed,
    quorum,
    request,
    throttle,
    tree,
    two_ways,
    vmdk,
)
from docs.tools.draw import Picture

PICTURES: tuple[Callable[[], Picture], ...] = (
    house.picture,
    request.picture,
    attach.picture,
    moving.picture,
    two_ways.picture,
    event_loop.one_pass,
    event_loop.wake_up,
    chain.picture,
    tree.tree,
    tree.drained,
    hostile.picture,
    engines.picture,
    qcow2.file,
    qcow2.lookup,
    qcow2.order,
    qed.file,
    qed.need_check,
    looking.looking,
    throttle.bucket,
    throttle.burst,
    throttle.group,
    accelerators.picture,
    filters.chain,
    filters.copy_on_read,
    filters.preallocate,
    blkdebug.tree,
    blkdebug.states,
    blklogwrites.cut,
    quorum.vote,
    quorum.own_children,
    vmdk.files,
    vmdk.tables,
    vmdk.moving,
)
