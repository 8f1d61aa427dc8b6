# SPDX-License-Identifier: GPL-2.0-only
"""The driver `vmdk`: its hooks (bdrv_vmdk).

R1  The image is written by one node. What it knows of the files nobody else may change.
R2  Extents that are files of their own are the driver's own children: none of them is `file`,
    so the driver walks them when the tree moves (patch 18 of the series). Where the one
    extent is `file`, the core walks it.
R3  Nothing of the driver's own is registered with the event loop.
R4  The disk has one length for ever: it cannot be resized.
Requests run in the thread of the node's context, opening and closing in the main thread.
"""

from __future__ import annotations

from block.core import flags as f
from block.core.driver import BlockDriver, BlockDriverInfo
from block.core.filename import backing_overridden
from block.formats.vmdk import check, create, opening, read, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable

    from block.aio.context import AioContext
    from block.core.check import BdrvCheckResult
    from block.core.iov import Iov
    from block.core.node import BlockDriverState
    from block.core.status import Status
    from block.formats.vmdk.state import VmdkState


class VmdkDriver(BlockDriver):
    """The hooks of `vmdk`; what they do stands in the modules beside this one."""

    format_name = "vmdk"
    supports_backing = True
    create_opts = create.CREATE_OPTS

    # -- opening

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        s = opening.open_image(bs, options)
        bs.opaque = s
        bs.total_sectors = s.ends[-1] // f.SECTOR_SIZE if s.ends else 0

    def create(self, filename: str, options: dict[str, object]) -> None:
        create.create(filename, options)

    def reopen_prepare(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        """Nothing of its own changes, but what may be written (vmdk_reopen_prepare)."""
        if flags & f.BDRV_O_RDWR and bs.read_only:
            opening.check_writable(bs.opaque)

    def refresh_limits(self, bs: BlockDriverState) -> None:
        s: VmdkState = bs.opaque
        grains = [extent.grain for extent in s.extents if not extent.flat]
        bs.bl.pwrite_zeroes_alignment = max(grains, default=0)

    def get_info(self, bs: BlockDriverState) -> BlockDriverInfo | None:
        """The size of a grain, where all extents are alike (vmdk_get_info)."""
        s: VmdkState = bs.opaque
        kinds = {(e.flat, e.compressed, 0 if e.flat else e.grain) for e in s.extents}
        if len(kinds) > 1:
            return None
        _, compressed, grain = next(iter(kinds), (False, False, 0))
        info = BlockDriverInfo(grain)
        info.needs_compressed_writes = compressed
        return info

    def get_specific_info(self, bs: BlockDriverState) -> dict[str, object]:
        """The descriptor's facts, and the extents (vmdk_get_specific_info)."""
        return {"type": "vmdk", "data": bs.opaque.specific_info()}

    def has_zero_init(self, bs: BlockDriverState) -> bool:
        """Whether the files of flat extents read as zeroes; tables are empty at first
        (vmdk_has_zero_init)."""
        files = [extent.file.bs for extent in bs.opaque.extents if extent.flat]
        return all(file.drv is not None and file.drv.has_zero_init(file) for file in files)

    def co_check(self, bs: BlockDriverState, result: BdrvCheckResult, fix: int) -> Awaitable[None]:
        return check.co_check(bs.opaque, result, fix)

    def gather_child_options(self, bs: BlockDriverState) -> dict[str, object]:
        """`file` names the image; what else belongs to it the descriptor knows
        (vmdk_gather_child_options)."""
        assert bs.file is not None
        options: dict[str, object] = {"file": bs.file.bs.full_open_options}
        if backing_overridden(bs):
            options["backing"] = bs.backing and bs.backing.bs.full_open_options
        return options

    # -- the event loop

    def detach_aio_context(self, bs: BlockDriverState) -> None:
        """Takes the extents out of the loop (vmdk_detach_aio_context)."""
        for child in bs.opaque.own_children():
            child.bs.detach_aio_context()

    def attach_aio_context(self, bs: BlockDriverState, ctx: AioContext) -> None:
        """Brings them into the new one (vmdk_attach_aio_context)."""
        for child in bs.opaque.own_children():
            child.bs.attach_aio_context(ctx)

    # -- requests

    def try_preadv(self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> int | None:
        return read.try_preadv(bs, offset, nbytes, qiov)

    def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        return read.co_preadv(bs.opaque, offset, nbytes, qiov)

    def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        return write.co_pwritev(bs.opaque, offset, nbytes, qiov)

    def co_pwritev_compressed(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov
    ) -> Awaitable[None]:
        """A streamOptimized image takes no other writes, and all others take no such ones; the
        extent knows (vmdk_co_pwritev_compressed)."""
        return write.co_pwritev(bs.opaque, offset, nbytes, qiov)

    def co_pwrite_zeroes(
        self, bs: BlockDriverState, offset: int, nbytes: int, flags: int
    ) -> Awaitable[None]:
        return write.co_pwrite_zeroes(bs.opaque, offset, nbytes)

    def co_block_status(
        self, bs: BlockDriverState, want_zero: bool, offset: int, nbytes: int
    ) -> Awaitable[Status]:
        return read.co_block_status(bs.opaque, offset, nbytes)
