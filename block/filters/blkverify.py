# SPDX-License-Identifier: GPL-2.0-only
"""blkverify: compares a driver under test with a raw copy, request by request (block/blkverify.c).

    blkverify:RAW:IMAGE      or      raw.* and test.*: the options of the two children

R1  A read goes to both copies, side by side; what the image under test says is handed up when the
    raw copy says the same. A write goes to both. The two may fail, but only alike.
R2  Anything else is a ContentsMismatch with the offset of the first byte that differs, and what
    the process makes of it (block/core/verify.py).
R3  The image under test decides: the length is its own, a flush is for it alone.
R4  `raw` is the child that the core knows (bs.file). `test` is a child of the driver's own, which
    it walks itself when the tree moves (patch 05 of the series).
Who may call it: block.core.

What once went wrong: when both reads failed, QEMU compared the buffers all the same, and found a
mismatch in what nobody had read. Here an error on both sides is handed up, and nothing compared.
"""

from __future__ import annotations

import errno

from block.aio.co_parallel import co_parallel
from block.core import flags as f
from block.core.align import blockalign
from block.core.driver import BlockDriver
from block.core.error import BlockError, errno_of
from block.core.filter import filtered
from block.core.iov import iov_difference
from block.core.open import open_child
from block.core.options import Option, take_options
from block.core.verify import mismatch, try_read_alike

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable

    from block.aio.context import AioContext
    from block.core.edge import BdrvChild
    from block.core.iov import Iov
    from block.core.node import BlockDriverState

PREFIX = "blkverify:"


class BlkverifyDriver(BlockDriver):
    """The driver `blkverify` (bdrv_blkverify)."""

    format_name = "blkverify"
    protocol_name = "blkverify"
    is_filter = True
    runtime_opts = (
        Option("x-raw", "string", "[internal use only]"),
        Option("x-image", "string", "[internal use only]"),
    )

    # -- opening

    def parse_filename(self, filename: str, options: dict[str, object]) -> None:
        """Splits at the first colon behind the prefix: RAW has none, IMAGE may have some."""
        if not filename.startswith(PREFIX):
            options["x-image"] = filename
            return
        raw, colon, image = filename.removeprefix(PREFIX).partition(":")
        if not colon:
            message = "blkverify requires raw copy and original image path"
            raise BlockError(errno.EINVAL, message, driver=self.format_name)
        options.update({"x-raw": raw, "x-image": image})

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        """Opens `raw` and `test`; their names describe them no more (blkverify_open)."""
        taken = take_options(options, self.runtime_opts)
        for option in self.runtime_opts:
            bs.options.pop(option.name, None)
        role = f.BDRV_CHILD_FILTERED | f.BDRV_CHILD_PRIMARY
        bs.file = open_child(taken["x-raw"], options, "raw", bs, role)
        bs.opaque = open_child(taken["x-image"], options, "test", bs, f.BDRV_CHILD_DATA)
        bs.supported_write_flags = f.REQ_WRITE_UNCHANGED
        bs.supported_zero_flags = f.REQ_WRITE_UNCHANGED

    def getlength(self, bs: BlockDriverState) -> int:
        return _test(bs).bs.getlength()

    def child_resized(self, bs: BlockDriverState, child: BdrvChild) -> None:
        bs.length_changed()

    def refresh_filename(self, bs: BlockDriverState) -> None:
        """blkverify:RAW:IMAGE, where that opens the same: not with a colon in RAW."""
        raw, image = filtered(bs).bs.exact_filename, _test(bs).bs.exact_filename
        if raw and image and ":" not in raw:
            bs.exact_filename = f"{PREFIX}{raw}:{image}"

    def refresh_limits(self, bs: BlockDriverState) -> None:
        bs.bl.fast_read = min(child.bs.bl.fast_read for child in bs.children)

    def dirname(self, bs: BlockDriverState) -> str:
        message = "Cannot generate a base directory for blkverify nodes"
        raise BlockError(errno.EINVAL, message, bs.node_name, self.format_name)

    # -- the event loop

    def detach_aio_context(self, bs: BlockDriverState) -> None:
        """Takes the child of its own out of the loop (blkverify_detach_aio_context)."""
        _test(bs).bs.detach_aio_context()

    def attach_aio_context(self, bs: BlockDriverState, ctx: AioContext) -> None:
        """Brings it into the new one (blkverify_attach_aio_context)."""
        _test(bs).bs.attach_aio_context(ctx)

    # -- requests

    def try_preadv(self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> int | None:
        return try_read_alike((_test(bs), filtered(bs)), offset, nbytes, qiov)

    async def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        raw_qiov = [blockalign(nbytes)]
        await _both(
            bs,
            f"blkverify: read offset={offset} bytes={nbytes}",
            _test(bs).co_preadv(offset, nbytes, qiov, flags),
            filtered(bs).co_preadv(offset, nbytes, raw_qiov, flags),
        )
        difference = iov_difference(qiov, raw_qiov)
        if difference >= 0:
            message = f"contents mismatch at offset {offset + difference}"
            message = f"blkverify: read offset={offset} bytes={nbytes} {message}"
            raise mismatch(message, bs.node_name, self.format_name, offset + difference)

    async def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        await _both(
            bs,
            f"blkverify: write offset={offset} bytes={nbytes}",
            _test(bs).co_pwritev(offset, nbytes, qiov, flags),
            filtered(bs).co_pwritev(offset, nbytes, qiov, flags),
        )

    async def co_truncate(
        self, bs: BlockDriverState, offset: int, exact: bool, prealloc: str, flags: int
    ) -> None:
        """Makes both so long; QEMU resizes the raw copy alone, which then has no pair (R1)."""
        await _both(
            bs,
            f"blkverify: truncate offset={offset}",
            _test(bs).co_truncate(offset, exact, prealloc, flags),
            filtered(bs).co_truncate(offset, exact, prealloc, flags),
        )

    def co_flush(self, bs: BlockDriverState) -> Awaitable[None]:
        """Flushes the image under test only: nobody needs the raw copy afterwards (R3)."""
        return _test(bs).co_flush()


def _test(bs: BlockDriverState) -> BdrvChild:
    child: BdrvChild = bs.opaque
    return child


async def _both(
    bs: BlockDriverState, what: str, of_test: Awaitable[None], of_raw: Awaitable[None]
) -> None:
    """Does a request on both copies; raises what both say, or that they disagree (R1)."""
    test, raw = await co_parallel(of_test, of_raw)
    test_ret = -errno_of(test) if test is not None else 0
    raw_ret = -errno_of(raw) if raw is not None else 0
    if test_ret != raw_ret:
        message = f"{what} return value mismatch {test_ret} != {raw_ret}"
        raise mismatch(message, bs.node_name, "blkverify")
    if test is not None:
        raise test
