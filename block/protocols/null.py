# SPDX-License-Identifier: GPL-2.0-only
"""null-co: a disk that forgets everything at once (block/null.c).

For measuring what the layers above cost. Options: size (1 GiB), latency-ns (0),
read-zeroes (off: a read leaves the buffer as it is).
Who may call it: block.core.
"""

from __future__ import annotations

import errno

from block.aio.co_sleep import co_sleep_ns
from block.aio.world import ClockType
from block.core import flags as f
from block.core.driver import BlockDriver
from block.core.error import BlockError
from block.core.iov import iov_memset_zero
from block.core.options import Option, take_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.iov import Iov
    from block.core.node import BlockDriverState


class NullState:
    """What a null node knows; length in bytes, latency in nanoseconds."""

    __slots__ = ("latency_ns", "length", "read_zeroes")

    def __init__(self, length: int, latency_ns: int, read_zeroes: bool) -> None:
        self.length = length
        self.latency_ns = latency_ns
        self.read_zeroes = read_zeroes


class NullCoDriver(BlockDriver):
    """The driver `null-co` (bdrv_null_co)."""

    format_name = "null-co"
    protocol_name = "null-co"
    runtime_opts = (
        Option("size", "size", "size of the null block", 1 << 30),
        Option("latency-ns", "number", "nanoseconds (approximated) to wait before completing", 0),
        Option("read-zeroes", "bool", "return zeroes when read", False),
    )
    strong_runtime_opts = ("size",)

    def parse_filename(self, filename: str, options: dict[str, object]) -> None:
        if filename != "null-co://":
            message = "The only allowed filename for this driver is 'null-co://'"
            raise BlockError(errno.EINVAL, message, driver="null-co")

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        taken = take_options(options, self.runtime_opts)
        if not 0 <= taken["latency-ns"] <= f.INT64_MAX:
            raise BlockError(errno.EINVAL, "latency-ns is invalid", bs.node_name, "null-co")
        bs.opaque = NullState(taken["size"], taken["latency-ns"], taken["read-zeroes"])
        bs.supported_write_flags = f.REQ_FUA

    def reopen_prepare(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        """Read-only or not: it forgets everything (null_reopen_prepare)."""

    def getlength(self, bs: BlockDriverState) -> int:
        state: NullState = bs.opaque
        return state.length

    def try_preadv(self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> int | None:
        state: NullState = bs.opaque
        if state.latency_ns:
            return None
        if state.read_zeroes:
            iov_memset_zero(qiov)
        return 0

    async def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        await _wait(bs)
        if bs.opaque.read_zeroes:
            iov_memset_zero(qiov, 0, nbytes)

    async def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        await _wait(bs)

    async def co_flush_to_disk(self, bs: BlockDriverState) -> None:
        await _wait(bs)

    async def co_block_status(
        self, bs: BlockDriverState, want_zero: bool, offset: int, nbytes: int
    ) -> tuple[int, int, int, BlockDriverState | None]:
        status = f.BDRV_BLOCK_OFFSET_VALID
        if bs.opaque.read_zeroes:
            status |= f.BDRV_BLOCK_ZERO
        return status, nbytes, offset, bs


async def _wait(bs: BlockDriverState) -> None:
    if bs.opaque.latency_ns:
        await co_sleep_ns(ClockType.REALTIME, bs.opaque.latency_ns, owner=bs)
