# SPDX-License-Identifier: GPL-2.0-only
"""The driver `qcow2`: its hooks (bdrv_qcow2).

R1  The image is written by one node. What it knows of the file (where it is free, which clusters
    are in use) nobody else may change.
R2  Between requests the timer of cache_clean.py is registered with the event loop; and to move
    means to move an external data file, too, which is the driver's own child.
R3  What is in memory goes to the file with a flush; the core flushes before it closes.
Requests run in the thread of the node's context, opening and closing in the main thread.
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core.driver import BlockDriver, BlockDriverInfo
from block.core.error import BlockError, failed
from block.core.open import open_child
from block.core.options import take_options
from block.core.report import warn_report
from block.core.wait import run_sync
from block.formats.qcow2 import (
    bitmap_directory,
    cache_clean,
    corrupt,
    create,
    crypto,
    datafile,
    dirty,
    extents,
    header,
    let_go,
    measure,
    options,
    read,
    reopen,
    truncate,
    write,
    zero,
)
from block.formats.qcow2.layout import AUTOCLEAR_KNOWN, INCOMPAT_DIRTY
from block.formats.qcow2.state import Qcow2State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from block.aio.context import AioContext
    from block.core.check import BdrvCheckResult
    from block.core.iov import Iov
    from block.core.node import BlockDriverState
    from block.core.snapshot import SnapshotInfo


class Qcow2Driver(BlockDriver):
    """The hooks of `qcow2`; what they do stands in the modules beside this one."""

    format_name = "qcow2"
    supports_backing = True
    runtime_opts = options.RUNTIME_OPTS
    mutable_opts = tuple(option.name for option in options.RUNTIME_OPTS)
    create_opts = create.CREATE_OPTS
    amend_opts = create.AMEND_OPTS
    strong_runtime_opts = ("encrypt.key-secret",)

    # -- opening and closing

    def open(self, bs: BlockDriverState, opts: dict[str, object], flags: int) -> None:
        taken = take_options(opts, self.runtime_opts)
        bs.file = open_child(None, opts, "file", bs, f.BDRV_CHILD_IMAGE)
        assert bs.file is not None
        s = Qcow2State(bs, bs.file)
        head = header.read_header(s, flags)
        outdated = bitmap_directory.take_extension(s)
        datafile.open_data_file(s, opts, flags)
        crypto.open_crypto(s, taken, flags)
        bs.total_sectors = head.size // f.SECTOR_SIZE
        settings = options.Settings(s, taken, flags, head.size)
        options.apply(s, settings)
        reopen.make_caches(s, settings.sizes)
        header.read_tables(s, head)
        if s.nb_snapshots and not flags & f.BDRV_O_CHECK:
            read_snapshots(s)
        bs.opaque = s
        bs.backing_file = bs.auto_backing_file = s.backing_name.decode(errors="surrogateescape")
        bs.backing_format = s.backing_format.decode(errors="surrogateescape")
        bs.supported_truncate_flags = f.REQ_ZERO_WRITE
        if s.version >= 3:
            bs.supported_zero_flags = f.REQ_MAY_UNMAP | f.REQ_NO_FALLBACK
        outdated |= bool(s.autoclear_features & ~AUTOCLEAR_KNOWN)
        if outdated and not bs.read_only:
            s.autoclear_features &= AUTOCLEAR_KNOWN
            from block.formats.qcow2 import header_update

            header_update.update_header(s, head.size)
        if s.nb_bitmaps and not flags & (f.BDRV_O_CHECK | f.BDRV_O_INACTIVE):
            from block.formats.qcow2 import bitmaps

            bitmaps.load(bs)
        untouched = bs.read_only or flags & f.BDRV_O_CHECK
        if s.incompatible_features & INCOMPAT_DIRTY and not untouched:
            repair_dirty(bs)
        cache_clean.start(s, bs.aio_context)

    def close(self, bs: BlockDriverState) -> None:
        s: Qcow2State = bs.opaque
        cache_clean.stop(s)
        if bs.dirty_bitmaps:
            from block.formats.qcow2 import bitmaps

            bitmaps.inactivate(bs)
        if dirty.is_dirty(s) and not bs.read_only:
            reopen.mark_clean_quietly(s)
        for cache in (s.l2_cache, s.refcount_cache):
            if cache.dirty:
                warn_report(f"qcow2: the {cache.name} cache could not be written")
            cache.drop_all()

    def create(self, filename: str, opts: dict[str, object]) -> None:
        create.create(filename, opts)

    def measure(self, options: dict[str, object], in_bs: BlockDriverState | None) -> dict[str, int]:
        return measure.measure(options, in_bs)

    def change_backing_file(
        self, bs: BlockDriverState, backing_file: str, backing_fmt: str
    ) -> None:
        from block.formats.qcow2 import header_update

        header_update.change_backing_file(bs.opaque, backing_file, backing_fmt)

    def join_options(self, opts: Mapping[str, object], old: dict[str, object]) -> None:
        options.join(opts, old)

    def reopen_prepare(
        self, bs: BlockDriverState, opts: dict[str, object], flags: int
    ) -> options.Settings:
        return reopen.prepare(bs, take_options(opts, self.runtime_opts), flags)

    def reopen_commit(self, bs: BlockDriverState, prepared: object) -> None:
        assert isinstance(prepared, options.Settings)
        reopen.commit(bs, prepared)

    def reopen_commit_post(self, bs: BlockDriverState) -> None:
        if bs.dirty_bitmaps and not bs.read_only:
            from block.formats.qcow2 import bitmaps

            bitmaps.reopen_rw(bs)

    def reopen_abort(self, bs: BlockDriverState, prepared: object) -> None:
        self.reopen_commit_post(bs)

    def supports_persistent_dirty_bitmap(self, bs: BlockDriverState) -> bool:
        return bool(bs.opaque.version >= 3)

    def check_can_store_bitmap(self, bs: BlockDriverState, name: str, granularity: int) -> None:
        from block.formats.qcow2 import bitmaps

        bitmaps.check_can_store(bs, name, granularity)

    def co_remove_persistent_dirty_bitmap(self, bs: BlockDriverState, name: str) -> Awaitable[None]:
        from block.formats.qcow2 import bitmaps

        return bitmaps.co_remove(bs, name)

    def co_store_dirty_bitmaps(self, bs: BlockDriverState) -> Awaitable[None]:
        from block.formats.qcow2 import bitmaps

        return bitmaps.co_store(bs)

    def refresh_limits(self, bs: BlockDriverState) -> None:
        s: Qcow2State = bs.opaque
        if bs.encrypted:
            bs.bl.request_alignment = f.SECTOR_SIZE
        bs.bl.pwrite_zeroes_alignment = s.subcluster_size
        bs.bl.pdiscard_alignment = s.cluster_size

    def get_info(self, bs: BlockDriverState) -> BlockDriverInfo:
        s: Qcow2State = bs.opaque
        info = BlockDriverInfo(s.cluster_size)
        info.subcluster_size = s.subcluster_size
        info.vm_state_offset = s.vm_state_offset()
        info.is_dirty = bool(s.incompatible_features & INCOMPAT_DIRTY)
        return info

    def get_specific_info(self, bs: BlockDriverState) -> dict[str, object]:
        return header.specific_info(bs.opaque, crypto.info(bs.opaque))

    def has_zero_init(self, bs: BlockDriverState) -> bool:
        s: Qcow2State = bs.opaque
        below = s.data.bs
        if not s.l1_table or not s.l1_table[0]:
            return True  # nothing is allocated, or everything is: preallocation=metadata and more
        if bs.encrypted:
            return False
        return below.drv is not None and below.drv.has_zero_init(below)

    def co_check(self, bs: BlockDriverState, result: BdrvCheckResult, fix: int) -> Awaitable[None]:
        from block.formats.qcow2 import check

        return check.co_check(bs, result, fix)

    def make_empty(self, bs: BlockDriverState) -> None:
        from block.formats.qcow2 import make_empty

        make_empty.make_empty(bs)

    def amend_options(
        self,
        bs: BlockDriverState,
        options: dict[str, object],
        progress: Callable[[int, int], None],
        force: bool,
    ) -> None:
        from block.formats.qcow2 import amend

        amend.amend_options(bs, options, progress, force)

    # -- the event loop

    def detach_aio_context(self, bs: BlockDriverState) -> None:
        """Takes the timer out of the loop, and the data file; the core walks the others."""
        cache_clean.stop(bs.opaque)
        for child in datafile.own_children(bs.opaque):
            child.bs.detach_aio_context()

    def attach_aio_context(self, bs: BlockDriverState, ctx: AioContext) -> None:
        """Brings them into the new one."""
        for child in datafile.own_children(bs.opaque):
            child.bs.attach_aio_context(ctx)
        cache_clean.start(bs.opaque, ctx)

    # -- snapshots

    def snapshot_create(self, bs: BlockDriverState, info: SnapshotInfo) -> None:
        from block.formats.qcow2 import snapshots

        snapshots.create(bs.opaque, info)

    def snapshot_goto(self, bs: BlockDriverState, id_or_name: str) -> None:
        from block.formats.qcow2 import snapshots

        snapshots.goto(bs, id_or_name)

    def snapshot_delete(
        self, bs: BlockDriverState, snapshot_id: str | None, name: str | None
    ) -> None:
        from block.formats.qcow2 import snapshots

        snapshots.delete(bs.opaque, snapshot_id, name)

    def snapshot_list(self, bs: BlockDriverState) -> list[SnapshotInfo]:
        return [snapshot.info() for snapshot in bs.opaque.snapshots]

    def snapshot_load_tmp(
        self, bs: BlockDriverState, snapshot_id: str | None, name: str | None
    ) -> None:
        from block.formats.qcow2 import snapshots

        snapshots.load_tmp(bs.opaque, snapshot_id, name)

    def co_save_vmstate(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov
    ) -> Awaitable[None]:
        from block.formats.qcow2 import snapshots

        return snapshots.co_save_vmstate(bs.opaque, offset, nbytes, qiov)

    def co_load_vmstate(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov
    ) -> Awaitable[None]:
        from block.formats.qcow2 import snapshots

        return snapshots.co_load_vmstate(bs, offset, nbytes, qiov)

    # -- requests

    def try_preadv(self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> int | None:
        return read.try_preadv(bs, offset, nbytes, qiov)

    def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        return read.co_preadv(bs, offset, nbytes, qiov)

    def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        return write.co_pwritev(bs.opaque, offset, nbytes, qiov)

    def co_pwritev_compressed(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov
    ) -> Awaitable[None]:
        from block.formats.qcow2 import compressed_write

        return compressed_write.co_pwritev_compressed(bs, offset, nbytes, qiov)

    def co_pwrite_zeroes(
        self, bs: BlockDriverState, offset: int, nbytes: int, flags: int
    ) -> Awaitable[None]:
        return zero.co_pwrite_zeroes(bs, offset, nbytes, flags)

    def co_pdiscard(self, bs: BlockDriverState, offset: int, nbytes: int) -> Awaitable[None]:
        return zero.co_pdiscard(bs, offset, nbytes)

    async def co_flush_to_os(self, bs: BlockDriverState) -> None:
        s: Qcow2State = bs.opaque
        corrupt.check_nothing_lost(s)
        if s.l2_cache.dirty or s.refcount_cache.dirty or s.lock.locked:
            async with s.lock:
                await dirty.write_caches(s)
                let_go.look_below(s)

    def co_block_status(
        self, bs: BlockDriverState, want_zero: bool, offset: int, nbytes: int
    ) -> Awaitable[tuple[int, int, int, BlockDriverState | None]]:
        return read.co_block_status(bs, offset, nbytes)

    def co_block_statuses(
        self, bs: BlockDriverState, offset: int, nbytes: int
    ) -> Awaitable[list[tuple[int, int, int, BlockDriverState | None]]]:
        return extents.co_block_statuses(bs, offset, nbytes)

    def co_truncate(
        self, bs: BlockDriverState, offset: int, exact: bool, prealloc: str, flags: int
    ) -> Awaitable[None]:
        if bs.opaque.bitmaps:
            from block.formats.qcow2 import bitmaps

            bitmaps.check_truncate(bs.opaque)
        return truncate.co_truncate(bs, offset, exact, prealloc, flags)


def read_snapshots(s: Qcow2State) -> None:
    """Reads the snapshot table, while the image is opened (qcow2_read_snapshots)."""
    from block.formats.qcow2.snapshot_table import read_table

    run_sync(s.bs.aio_context, lambda: read_table(s))


def repair_dirty(bs: BlockDriverState) -> None:
    """Repairs an image that was not closed, before the first write (in qcow2_do_open).

    Raises BlockError where that fails; the image can still be read.
    """
    from block.core import check

    try:
        result = check.check(bs, check.FIX_LEAKS | check.FIX_ERRORS)
    except OSError as error:
        raise failed("Could not repair dirty image", error, bs.node_name, "qcow2") from error
    if result.check_errors:
        message = "Could not repair dirty image: Input/output error"
        raise BlockError(errno.EIO, message, bs.node_name, "qcow2")
