# SPDX-License-Identifier: GPL-2.0-only
"""blklogwrites: a filter that writes down every change of a disk (block/blklogwrites.c).

    option                       default
    log.*                        the child that takes the log
    log-sector-size              512    bytes; requests to the node are aligned to it
    log-append                   off    go on with the log that is there
    log-super-update-interval    4096   entries, until the superblock is written without a flush

The log is that of Linux's dm-log-writes, for which there are tools; ours is block.ops.replay_log.

R1  What is done to `file` is written into `log` (log.py says in which order). A change that could
    not be written down is an error, though it was done.
R2  A write with FUA is a write and a flush, by the core: so the log shows when it was safe.
R3  The log's format knows no lengths: a truncate is handed on and not written down. What a replay
    never wrote reads as zeroes.
R4  `log` is a child of the driver's own, which it walks itself when the tree moves.
Who may call it: block.core.
"""

from __future__ import annotations

from block.core import flags as f
from block.core import io
from block.core.filter import FilterDriver, filtered, pass_try_preadv
from block.core.open import open_child
from block.core.options import Option, invalid, take_options
from block.filters.blklogwrites.layout import (
    DEFAULT_SECTOR_SIZE,
    DISCARD,
    SUPER,
    Superblock,
    read_entries,
    valid_sector_size,
)
from block.filters.blklogwrites.log import WriteLog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.context import AioContext
    from block.core.edge import BdrvChild
    from block.core.iov import Iov
    from block.core.node import BlockDriverState


class BlklogwritesDriver(FilterDriver):
    """The driver `blklogwrites` (bdrv_blk_log_writes)."""

    format_name = "blklogwrites"
    runtime_opts = (
        Option("log-append", "bool", "Append to an existing log", False),
        Option("log-sector-size", "size", "Log sector size"),
        Option(
            "log-super-update-interval",
            "number",
            "Log superblock update interval (# of write requests)",
            4096,
        ),
    )
    strong_runtime_opts = ("log-append", "log-sector-size")
    try_preadv = pass_try_preadv

    # -- opening

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        """Opens the disk and its log (blk_log_writes_open)."""
        taken = take_options(options, self.runtime_opts)
        super().open(bs, options, flags)
        bs.supported_write_flags &= ~f.REQ_FUA
        bs.supported_zero_flags &= ~f.REQ_FUA
        log = open_child(None, options, "log", bs, f.BDRV_CHILD_METADATA)
        assert log is not None
        interval = taken["log-super-update-interval"]
        sector_size, append = taken["log-sector-size"], taken["log-append"]
        if append and sector_size is not None:
            raise invalid("log-append and log-sector-size are mutually exclusive")
        if append and log.bs.getlength():
            bs.opaque = _continue(log, interval)
        else:
            size = DEFAULT_SECTOR_SIZE if sector_size is None else sector_size
            bs.opaque = WriteLog(log, Superblock(0, valid_sector_size(size)), interval)
        if not interval:
            raise invalid("Invalid log superblock update interval 0")

    def refresh_limits(self, bs: BlockDriverState) -> None:
        super().refresh_limits(bs)
        if bs.opaque is not None:
            bs.bl.request_alignment = _log(bs).head.sector_size

    # -- the event loop

    def detach_aio_context(self, bs: BlockDriverState) -> None:
        """Takes the log out of the loop (R4)."""
        _log(bs).child.bs.detach_aio_context()

    def attach_aio_context(self, bs: BlockDriverState, ctx: AioContext) -> None:
        """Brings it into the new one."""
        _log(bs).child.bs.attach_aio_context(ctx)

    # -- requests

    async def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        await io.co_pwritev(filtered(bs), offset, nbytes, qiov, flags)
        await _log(bs).append(offset, nbytes, 0, qiov)

    async def co_pwrite_zeroes(
        self, bs: BlockDriverState, offset: int, nbytes: int, flags: int
    ) -> None:
        await filtered(bs).co_pwrite_zeroes(offset, nbytes, flags)
        await _log(bs).append(offset, nbytes, 0, None)

    async def co_pdiscard(self, bs: BlockDriverState, offset: int, nbytes: int) -> None:
        await filtered(bs).co_pdiscard(offset, nbytes)
        await _log(bs).append(offset, nbytes, DISCARD, [])

    async def co_flush_to_disk(self, bs: BlockDriverState) -> None:
        """Flushes the disk, and says so; the core flushes both children afterwards all the same."""
        await _log(bs).around_flush(filtered(bs).co_flush)


def _log(bs: BlockDriverState) -> WriteLog:
    log: WriteLog = bs.opaque
    return log


def _continue(child: BdrvChild, interval: int) -> WriteLog:
    """Finds the end of a log that is there (blk_log_writes_find_cur_log_sector)."""
    length = child.bs.getlength()
    head = Superblock.unpack(child.pread(0, min(length, SUPER.size)))
    return WriteLog(child, head, interval, read_entries(child.pread, length, head))
