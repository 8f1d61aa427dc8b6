# SPDX-License-Identifier: GPL-2.0-only
"""Changing the options of an image that is there (qcow2_amend_options).

R1  All that is asked for is checked before anything is changed. QEMU finds some of it out half-way;
    its messages are the same.
R2  An upgrade comes first: what else is asked for may need version 3.
    A downgrade comes last: what version 2 has not may have been removed before.
R3  Version 2 has no bitmaps. Their extension leaves the header in the same write that makes it one
    of version 2; only then are their clusters free. A kill before leaves them all, one after it
    leaves leaks. (QEMU leaves the extension and the clusters, and whoever opens the image next is
    told of bitmaps that are no good.)
R4  Backing files are not amended, they are rebased; naming the present one is no mistake.
Who may call it: the main thread; it blocks.
"""

from __future__ import annotations

import os

from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import failed
from block.core.options import invalid
from block.core.wait import run_sync
from block.formats.qcow2 import crypto, datafile, downgrade, header_update
from block.formats.qcow2.create import VERSIONS, check_refcount_bits
from block.formats.qcow2.dirty import co_mark_clean
from block.formats.qcow2.layout import (
    AUTOCLEAR_DATA_FILE_RAW,
    COMPAT_LAZY_REFCOUNTS,
    COMPRESSION_ZLIB,
)
from block.formats.qcow2.refcount_order import change_refcount_order
from block.lean import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from block.core.node import BlockDriverState
    from block.formats.qcow2.state import Qcow2State

    Progress: TypeAlias = Callable[[int, int], None]
    # the version, three kinds of features, the compression type
    Features: TypeAlias = "tuple[int, int, int, int, int]"


class Wanted:
    """What the image shall be; checked (R1)."""

    def __init__(self, s: Qcow2State, options: dict[str, Any]) -> None:
        compat = options.get("compat")
        if compat is not None and compat not in VERSIONS:
            raise invalid(f"Unknown compatibility level {compat}")
        self.version: int = s.version if compat is None else VERSIONS[compat]
        self.size: int = options.get("size", 0)
        self.refcount_bits: int = options.get("refcount_bits", s.refcount_bits)
        self.lazy_refcounts: bool = options.get("lazy_refcounts", s.lazy_refcounts)
        self.keys = crypto.take_amend(s, options)
        self._check(s, options)

    def _check(self, s: Qcow2State, options: dict[str, Any]) -> None:
        bits = self.refcount_bits
        check_refcount_bits(bits)
        if self.version < 3 and bits != 16 and bits != s.refcount_bits:
            raise invalid(
                "Refcount widths other than 16 bits require compatibility level 1.1 or above "
                "(use compat=1.1 or greater)"
            )
        if "data_file" in options and not s.external:
            raise invalid("data-file can only be set for images that use an external data file")
        if options.get("data_file_raw") and not datafile.is_raw(s):
            raise invalid("data-file-raw cannot be set on existing images")
        _check_backing(s, options)
        if self.version < 3 and options.get("lazy_refcounts"):
            raise invalid(
                "Lazy refcounts only supported with compatibility level 1.1 and above "
                "(use compat=1.1 or greater)"
            )
        if self.version < s.version:
            size = self.size or s.bs.total_sectors << 9
            run_sync(s.bs.aio_context, partial(downgrade.co_check, s, bits, size))


def _check_backing(s: Qcow2State, options: dict[str, Any]) -> None:
    """Raises where another backing file is named, or only half of the present one (R4)."""
    if "backing_file" not in options and "backing_fmt" not in options:
        return
    named = options.get("backing_file"), options.get("backing_fmt")
    present = (os.fsdecode(name) or None for name in (s.backing_name, s.backing_format))
    if named != tuple(present):
        raise invalid("Cannot amend the backing file", "You can use 'qemu-img rebase' instead.")


def amend_options(
    bs: BlockDriverState, options: dict[str, object], progress: Progress, force: bool
) -> None:
    """Makes the image what the options say; `force` is for its passwords."""
    s: Qcow2State = bs.opaque
    wanted = Wanted(s, options)
    has_steps = (wanted.version != s.version, wanted.refcount_bits != s.refcount_bits)
    steps = Steps(progress, sum(has_steps))
    if wanted.version > s.version:
        _upgrade(s, wanted.version, steps.next())
    if wanted.refcount_bits != s.refcount_bits:
        order = wanted.refcount_bits.bit_length() - 1
        run_sync(bs.aio_context, partial(change_refcount_order, s, order, steps.next()))
    _set_data_file(s, options)
    if wanted.keys is not None:
        crypto.amend_keys(s, wanted.keys, force)
    if wanted.lazy_refcounts != s.lazy_refcounts:
        _set_lazy_refcounts(s, wanted.lazy_refcounts)
    if wanted.size:
        _resize(bs, wanted.size)
    if wanted.version < s.version:
        _downgrade(s, wanted.version, steps.next())


class Steps:
    """The progress of several steps as that of one work (qcow2_amend_helper_cb).

    Nobody knows how large a step will be before it begins: those that are not begun yet are taken
    to be like those before, on the average.
    """

    def __init__(self, progress: Progress, count: int) -> None:
        self._progress = progress
        self._count = count
        self._begun = 0
        self._before = 0  # the work of the steps that are through
        self._last = 0

    def next(self) -> Progress:
        """What the next step calls with its work, done and all."""
        self._before += self._last
        self._begun += 1
        return self._tell

    def _tell(self, done: int, total: int) -> None:
        self._last = total
        known = self._before + total
        others = known * (self._count - self._begun) // self._begun
        self._progress(self._before + done, known + others)


def _upgrade(s: Qcow2State, version: int, progress: Progress) -> None:
    """Writes a header of version 3; its snapshots must tell more of themselves (qcow2_upgrade)."""
    progress(0, 2)
    if not all(snapshot.is_complete() for snapshot in s.snapshots):
        _complete_snapshots(s)
    progress(1, 2)
    before, s.version = s.version, version
    try:
        _update_header(s)
    except OSError:
        s.version = before
        raise
    s.bs.supported_zero_flags = f.REQ_MAY_UNMAP | f.REQ_NO_FALLBACK
    progress(2, 2)


def _complete_snapshots(s: Qcow2State) -> None:
    from block.formats.qcow2 import snapshots

    try:
        snapshots.rewrite(s)
    except OSError as error:
        raise failed(
            "Failed to update the snapshot table", error, s.bs.node_name, "qcow2"
        ) from error


def _downgrade(s: Qcow2State, version: int, progress: Progress) -> None:
    """Writes a header of version 2 (qcow2_downgrade). What else is in the image fits, or was
    refused (R1)."""
    _mark_clean(s)
    size = s.bs.total_sectors << 9
    run_sync(s.bs.aio_context, partial(downgrade.co_check, s, s.refcount_bits, size))
    try:
        run_sync(s.bs.aio_context, partial(downgrade.expand_zero_clusters, s, progress))
    except OSError as error:
        raise failed(
            "Failed to turn zero into data clusters", error, s.bs.node_name, "qcow2"
        ) from error
    before = _features(s)
    s.lazy_refcounts = False
    _set_features(s, (version, 0, 0, 0, COMPRESSION_ZLIB))
    try:
        _update_header_without_bitmaps(s)
    except OSError:
        _set_features(s, before)
        raise
    s.bs.supported_zero_flags = 0


def _features(s: Qcow2State) -> Features:
    return (
        s.version, s.incompatible_features, s.compatible_features, s.autoclear_features,
        s.compression_type,
    )  # fmt: skip


def _set_features(s: Qcow2State, features: Features) -> None:
    (
        s.version, s.incompatible_features, s.compatible_features, s.autoclear_features,
        s.compression_type,
    ) = features  # fmt: skip


def _set_data_file(s: Qcow2State, options: dict[str, Any]) -> None:
    """Another name of the data file, which is not opened; or it need not be raw any more."""
    before = s.extensions[:], s.autoclear_features
    if "data_file" in options:
        datafile.set_file_name(s, options["data_file"])
    if not options.get("data_file_raw", True):
        s.autoclear_features &= ~AUTOCLEAR_DATA_FILE_RAW
    if before != (s.extensions, s.autoclear_features):
        try:
            _update_header(s)
        except OSError:
            s.extensions, s.autoclear_features = before
            raise


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
        raise failed("Failed to make the image clean", error, s.bs.node_name, "qcow2") from error


def _update_header(s: Qcow2State) -> None:
    try:
        header_update.replace_header(s)
    except OSError as error:
        raise failed("Failed to update the image header", error, s.bs.node_name, "qcow2") from error


def _update_header_without_bitmaps(s: Qcow2State) -> None:
    """R3."""
    if s.nb_bitmaps or any(bitmap.persistent for bitmap in s.bs.dirty_bitmaps):
        from block.formats.qcow2 import bitmaps

        run_sync(s.bs.aio_context, partial(bitmaps.co_remove_all, s.bs))
    else:
        _update_header(s)


def _resize(bs: BlockDriverState, size: int) -> None:
    """Changes the length through a handle of its own, which may do just that."""
    blk = BlockBackend(f.BLK_PERM_RESIZE, f.BLK_PERM_ALL)
    try:
        blk.insert_bs(bs)
        blk.truncate(size, exact=True)
    finally:
        blk.unref()
