# SPDX-License-Identifier: GPL-2.0-only
"""The driver `qed`: its hooks (bdrv_qed).

R1  The image is written by one node. Where the file ends nobody else may change.
R2  One thing is registered with the event loop while no request is in flight: the timer of
    need_check.py. It moves with the node.
R3  Tables are written through: to flush is to flush the file, and that the core does.
R4  An image that was not closed properly is repaired when it is opened for writing, before anybody
    writes to it; unless BDRV_O_CHECK says that somebody else will.
Requests run in the thread of the node's context, opening and closing in the main thread.
"""

from __future__ import annotations

from block.core import flags as f
from block.core.check import BdrvCheckResult
from block.core.driver import BlockDriver, BlockDriverInfo
from block.core.open import open_child
from block.core.report import warn_report
from block.core.wait import run_sync
from block.formats.qed import check, create, header, need_check, read, truncate, write
from block.formats.qed.layout import F_NEED_CHECK
from block.formats.qed.state import QedState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable

    from block.aio.context import AioContext
    from block.core.iov import Iov
    from block.core.node import BlockDriverState


class QedDriver(BlockDriver):
    """The hooks of `qed`; what they do stands in the modules beside this one."""

    format_name = "qed"
    supports_backing = True
    create_opts = create.CREATE_OPTS

    # -- opening and closing

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        bs.file = open_child(None, options, "file", bs, f.BDRV_CHILD_IMAGE)
        assert bs.file is not None
        bs.opaque = s = QedState(bs, bs.file)
        header.read_header(s)
        bs.total_sectors = s.header.image_size // f.SECTOR_SIZE
        writable = not bs.read_only and not flags & f.BDRV_O_INACTIVE
        if writable:
            header.clear_autoclear(s)
        header.read_l1_table(s, s.header.image_size)
        s.sound = not s.header.features & F_NEED_CHECK
        if writable and not s.sound and not flags & f.BDRV_O_CHECK:
            run_sync(bs.aio_context, lambda: check.co_check(s, BdrvCheckResult(), True))
        need_check.attach_aio_context(bs, bs.aio_context)

    def close(self, bs: BlockDriverState) -> None:
        """Clean: nobody needs to check this image (bdrv_qed_close)."""
        s: QedState = bs.opaque
        need_check.detach_aio_context(bs)
        if bs.read_only or not need_check.may_be_cleared(s):
            return
        try:
            run_sync(bs.aio_context, lambda: need_check.clear_need_check(s))
        except OSError as error:
            warn_report(f"qed: the image stays marked for a check: {error}")

    def create(self, filename: str, options: dict[str, object]) -> None:
        create.create(filename, options)

    def reopen_prepare(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        """What is done to an image when it is opened for writing is not done later (R4)."""
        if flags & f.BDRV_O_RDWR and bs.read_only:
            header.check_writable(bs.opaque)

    def refresh_limits(self, bs: BlockDriverState) -> None:
        s: QedState = bs.opaque
        bs.bl.pwrite_zeroes_alignment = s.cluster_size
        bs.bl.max_pwrite_zeroes = f.INT_MAX & ~s.cluster_mask

    def getlength(self, bs: BlockDriverState) -> int:
        s: QedState = bs.opaque
        size: int = s.header.image_size
        return size

    def get_info(self, bs: BlockDriverState) -> BlockDriverInfo:
        s: QedState = bs.opaque
        info = BlockDriverInfo(s.cluster_size)
        info.is_dirty = bool(s.header.features & F_NEED_CHECK)
        return info

    # -- the image as a whole

    def has_zero_init(self, bs: BlockDriverState) -> bool:
        return True  # nothing is allocated (bdrv_has_zero_init_1)

    def co_check(self, bs: BlockDriverState, result: BdrvCheckResult, fix: int) -> Awaitable[None]:
        return check.co_check(bs.opaque, result, bool(fix))

    def change_backing_file(
        self, bs: BlockDriverState, backing_file: str, backing_fmt: str
    ) -> None:
        header.change_backing_file(bs.opaque, backing_file, backing_fmt)

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

    def co_pwrite_zeroes(
        self, bs: BlockDriverState, offset: int, nbytes: int, flags: int
    ) -> Awaitable[None]:
        return write.co_pwrite_zeroes(bs.opaque, offset, nbytes)

    def co_block_status(
        self, bs: BlockDriverState, want_zero: bool, offset: int, nbytes: int
    ) -> Awaitable[tuple[int, int, int, BlockDriverState | None]]:
        return read.co_block_status(bs, offset, nbytes)

    def co_truncate(
        self, bs: BlockDriverState, offset: int, exact: bool, prealloc: str, flags: int
    ) -> Awaitable[None]:
        return truncate.co_truncate(bs.opaque, offset, prealloc)

    # -- the event loop

    def drain_begin(self, bs: BlockDriverState) -> None:
        need_check.drain_begin(bs.opaque)

    def detach_aio_context(self, bs: BlockDriverState) -> None:
        need_check.detach_aio_context(bs)

    def attach_aio_context(self, bs: BlockDriverState, ctx: AioContext) -> None:
        need_check.attach_aio_context(bs, ctx)
