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
from block.core.wait import run_sync
from block.formats.qcow2 import header
from block.formats.qcow2.create import CREATE_OPTS, VERSIONS
from block.formats.qcow2.dirty import co_mark_clean
from block.formats.qcow2.layout import COMPAT_LAZY_REFCOUNTS
from block.lean import partial

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
        self.lazy_refcounts: bool = options.get("lazy_refcounts", s.lazy_refcounts)
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
    if wanted.lazy_refcounts != s.lazy_refcounts:
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
    """Changes the header, and what is done from now on. Off: the image becomes clean first."""
    before = s.compatible_features
    if not wanted:
        _mark_clean(s)
    s.compatible_features = (before & ~COMPAT_LAZY_REFCOUNTS) | (
        COMPAT_LAZY_REFCOUNTS if wanted else 0
    )
    if s.compatible_features != before:
        try:
            _update_header(s)
        except OSError:
            s.compatible_features = before
            raise
    s.lazy_refcounts = wanted


def _mark_clean(s: Qcow2State) -> None:
    try:
        run_sync(s.bs.aio_context, partial(co_mark_clean, s))
    except OSError as error:
        raise _because(s, "Failed to make the image clean", error) from error


def _update_header(s: Qcow2State) -> None:
    try:
        header.update_header(s, s.bs.total_sectors << f.SECTOR_BITS)
    except OSError as error:
        raise _because(s, "Failed to update the image header", error) from error


def _because(s: Qcow2State, what: str, error: OSError) -> BlockError:
    return BlockError(error.errno or errno.EIO, f"{what}: {error}", s.bs.node_name, "qcow2")


def _resize(bs: BlockDriverState, size: int) -> None:
    """Changes the length through a handle of its own, which may do just that."""
    blk = BlockBackend(f.BLK_PERM_RESIZE, f.BLK_PERM_ALL)
    try:
        blk.insert_bs(bs)
        blk.truncate(size, exact=True)
    finally:
        blk.unref()
