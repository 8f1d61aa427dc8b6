# SPDX-License-Identifier: GPL-2.0-only
"""The caches as the options want them, and other options for an open image (qcow2_reopen_prepare).

R1  Other sizes mean new caches. Nothing is in flight then, and all tables are in the file: the
    dirty ones are written before the other nodes of the tree are asked.
R2  An image that becomes read-only is clean in every sense before; one that becomes writable must
    be neither corrupt nor dirty: to repair it belongs to opening.
Called in the main thread, with the tree drained; it may block in `prepare`, not in `commit`.
"""

from __future__ import annotations

from block.core import debug
from block.core import flags as f
from block.core.wait import run_sync
from block.formats.qcow2 import cache_clean, corrupt, crypto, dirty, header, options
from block.formats.qcow2.cache import TableCache
from block.formats.qcow2.refcount import TYPECODES
from block.lean import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any, TypeAlias

    from block.core.error import BlockError
    from block.core.node import BlockDriverState
    from block.formats.qcow2.state import Qcow2State

    Check: TypeAlias = Callable[[int], Awaitable[None]]
    Complain: TypeAlias = Callable[[str], Awaitable[BlockError]]


def prepare(bs: BlockDriverState, taken: dict[str, Any], flags: int) -> options.Settings:
    """Checks the options, and makes the image ready for them. Raises BlockError."""
    s: Qcow2State = bs.opaque
    settings = options.Settings(s, taken, flags, bs.total_sectors << f.SECTOR_BITS)
    crypto.check_format(s, taken["encrypt.format"])
    if bs.read_only and flags & f.BDRV_O_RDWR:
        header.check_writable(s)
        header.check_autoclear(s)
    elif not bs.read_only and not s.broken:
        if bs.dirty_bitmaps and not flags & f.BDRV_O_RDWR:
            from block.formats.qcow2 import bitmaps

            bitmaps.reopen_ro(bs)
        becomes_clean = not (flags & f.BDRV_O_RDWR and settings.lazy_refcounts)
        run_sync(bs.aio_context, partial(_settle, s, becomes_clean))
    return settings


async def _settle(s: Qcow2State, becomes_clean: bool) -> None:
    """Writes what the caches hold; and the header, if the refcounts shall not wait any more."""
    async with s.lock:
        await dirty.flush_caches(s)
        if becomes_clean:
            await dirty.mark_clean(s)


def commit(bs: BlockDriverState, settings: options.Settings) -> None:
    """Takes the options over; cannot fail."""
    s: Qcow2State = bs.opaque
    options.apply(s, settings)
    sizes = settings.sizes
    if s.l2_cache.table_size != sizes.l2_entry_size:
        make_caches(s, sizes)
    s.l2_cache.resize(sizes.l2_tables)
    s.refcount_cache.resize(sizes.refcount_tables)
    cache_clean.stop(s)
    cache_clean.start(s, bs.aio_context)


def mark_clean_quietly(s: Qcow2State) -> None:
    """Takes the dirty bit away, if nothing fails; else the next one to open it repairs."""
    try:
        run_sync(s.bs.aio_context, partial(dirty.co_mark_clean, s))
    except OSError:
        return


def make_caches(s: Qcow2State, sizes: options.CacheSizes) -> None:
    """Makes both caches (qcow2_update_options_prepare)."""
    s.set_slices(sizes.l2_entry_size)
    size, count = sizes.l2_entry_size, sizes.l2_tables
    checks, events = _checks(s, size, corrupt.OL_ACTIVE_L2), (debug.L2_LOAD, debug.L2_UPDATE)
    s.l2_cache = TableCache("L2 table", s.file, "Q", size, count, *checks, events, s.extended)
    s.l2_cache.data = s.data
    make_refcount_cache(s, sizes.refcount_tables)


def make_refcount_cache(s: Qcow2State, count: int) -> None:
    """Makes the cache of refcount blocks, for so many of them, as wide as they are now."""
    size, typecode = s.cluster_size, TYPECODES[s.refcount_order]
    checks, events = _checks(s, size, corrupt.OL_REFBLOCK), ("", debug.REFBLOCK_UPDATE_PART)
    s.refcount_cache = TableCache("refcount block", s.file, typecode, size, count, *checks, events)


def _checks(s: Qcow2State, size: int, ignore: int) -> tuple[Check, Complain]:
    """What a cache calls before it writes a table, and where one cannot be."""

    def check(offset: int) -> Awaitable[None]:
        return corrupt.check_overlap(s, offset, size, ignore)

    return check, partial(corrupt.signal_corruption, s)
