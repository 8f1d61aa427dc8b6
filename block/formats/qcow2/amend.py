# SPDX-License-Identifier: GPL-2.0-only
"""Changing the options of an image that is there (qcow2_amend_options).

R1  All that is asked for is checked before anything is changed. QEMU finds some of it out half-way;
    its messages are the same.
R2  An upgrade comes first: what else is asked for may need version 3.
R3  Backing files are not amended, they are rebased; naming the present one is no mistake.
Who may call it: the main thread; it blocks.
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.options import invalid
from block.formats.qcow2 import header
from block.formats.qcow2.create import CREATE_OPTS, VERSIONS
from block.formats.qcow2.layout import COMPAT_LAZY_REFCOUNTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from block.core.node import BlockDriverState
    from block.formats.qcow2.state import Qcow2State

AMENDABLE = ("size", "compat", "backing_file", "backing_fmt", "lazy_refcounts")
AMEND_OPTS = tuple(option for option in CREATE_OPTS if option.name in AMENDABLE)


class Wanted:
    """What the image shall be; checked (R1)."""

    def __init__(self, s: Qcow2State, options: dict[str, Any]) -> None:
        compat = options.get("compat")
        if compat is not None and compat not in VERSIONS:
            raise invalid(f"Unknown compatibility level {compat}")
        self.version: int = s.version if compat is None else VERSIONS[compat]
        self.size: int = options.get("size", 0)
        lazy = bool(s.compatible_features & COMPAT_LAZY_REFCOUNTS)
        self.lazy_refcounts: bool = options.get("lazy_refcounts", lazy)
        self._check(s, options)

    def _check(self, s: Qcow2State, options: dict[str, Any]) -> None:
        _check_backing(s, options)
        if self.version < 3 and options.get("lazy_refcounts"):
            raise invalid(
                "Lazy refcounts only supported with compatibility level 1.1 and above "
                "(use compat=1.1 or greater)"
            )
        if self.version < s.version:
            message = "Cannot downgrade the image"
            raise BlockError(errno.ENOTSUP, message, s.bs.node_name, "qcow2")


def _check_backing(s: Qcow2State, options: dict[str, Any]) -> None:
    """Raises where another backing file is named, or only half of the present one (R3)."""
    if "backing_file" not in options and "backing_fmt" not in options:
        return
    present = s.backing_name.decode(errors="surrogateescape"), s.backing_format.decode()
    named = options.get("backing_file"), options.get("backing_fmt")
    if named != tuple(text or None for text in present):
        raise invalid("Cannot amend the backing file", "You can use 'qemu-img rebase' instead.")


def amend_options(
    bs: BlockDriverState, options: dict[str, object], progress: Callable[[int, int], None]
) -> None:
    """Makes the image what the options say."""
    s: Qcow2State = bs.opaque
    wanted = Wanted(s, options)
    if wanted.version > s.version:
        _upgrade(s, wanted.version, progress)
    _set_lazy_refcounts(s, wanted.lazy_refcounts)
    if wanted.size:
        _resize(bs, wanted.size)


def _upgrade(s: Qcow2State, version: int, progress: Callable[[int, int], None]) -> None:
    """Writes a header of version 3 (qcow2_upgrade)."""
    progress(0, 2)  # QEMU's first step is about the snapshot table
    progress(1, 2)
    before, s.version = s.version, version
    try:
        _update_header(s)
    except OSError:
        s.version = before
        raise
    progress(2, 2)


def _set_lazy_refcounts(s: Qcow2State, wanted: bool) -> None:
    before = s.compatible_features
    if bool(before & COMPAT_LAZY_REFCOUNTS) == wanted:
        return
    s.compatible_features ^= COMPAT_LAZY_REFCOUNTS
    try:
        _update_header(s)
    except OSError:
        s.compatible_features = before
        raise


def _update_header(s: Qcow2State) -> None:
    try:
        header.update_header(s, s.bs.total_sectors << f.SECTOR_BITS)
    except OSError as error:
        message = f"Failed to update the image header: {error}"
        raise BlockError(error.errno or errno.EIO, message, s.bs.node_name, "qcow2") from error


def _resize(bs: BlockDriverState, size: int) -> None:
    """Changes the length through a handle of its own, which may do just that."""
    blk = BlockBackend(f.BLK_PERM_RESIZE, f.BLK_PERM_ALL)
    try:
        blk.insert_bs(bs)
        blk.truncate(size, exact=True)
    finally:
        blk.unref()
