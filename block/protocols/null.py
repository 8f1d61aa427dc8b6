# SPDX-License-Identifier: GPL-2.0-only
"""null-co and null-aio: a disk that forgets everything at once (block/null.c).

For measuring what the layers above cost. Options: size (1 GiB), latency-ns (0),
read-zeroes (off: a read leaves the buffer as it is). The two differ in how a request ends:

    null-co     inside the coroutine that brought it, after a sleep if there is a latency
    null-aio    always later: by a bottom half of the node's context, or by a timer there

R1  null-aio registers with the context that the node has at that moment, with owner=bs; a drain
    waits for what is registered, so a move finds nothing.
Who may call it: block.core.
"""

from __future__ import annotations

import errno

from block.aio.co_sleep import co_sleep_ns
from block.aio.coroutine import co_yield, current
from block.aio.world import ClockType
from block.core import flags as f
from block.core.driver import BlockDriver
from block.core.error import BlockError
from block.core.iov import iov_memset_zero
from block.core.options import Option, take_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable

    from block.aio.coroutine import Coroutine
    from block.aio.timer import Timer
    from block.core.iov import Iov
    from block.core.node import BlockDriverState

# Options that a name need not tell: they never change what a guest reads.
_IGNORED_IN_NAMES = frozenset(("filename", "driver", "latency-ns"))


class NullState:
    """What a null node knows; length in bytes, latency in nanoseconds."""

    __slots__ = ("latency_ns", "length", "read_zeroes")

    def __init__(self, length: int, latency_ns: int, read_zeroes: bool) -> None:
        self.length = length
        self.latency_ns = latency_ns
        self.read_zeroes = read_zeroes


class NullDriver(BlockDriver):
    """What the two have in common; `wait` is where they differ."""

    runtime_opts = (
        Option("size", "size", "size of the null block", 1 << 30),
        Option("latency-ns", "number", "nanoseconds (approximated) to wait before completing", 0),
        Option("read-zeroes", "bool", "return zeroes when read", False),
    )
    strong_runtime_opts = ("size", "read-zeroes")

    def wait(self, bs: BlockDriverState) -> Awaitable[None]:
        """Lets a request take its time."""
        raise NotImplementedError

    def parse_filename(self, filename: str, options: dict[str, object]) -> None:
        if filename != f"{self.format_name}://":
            message = f"The only allowed filename for this driver is '{self.format_name}://'"
            raise BlockError(errno.EINVAL, message, driver=self.format_name)

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        taken = take_options(options, self.runtime_opts)
        if not 0 <= taken["latency-ns"] <= f.INT64_MAX:
            raise BlockError(errno.EINVAL, "latency-ns is invalid", bs.node_name, self.format_name)
        bs.opaque = NullState(taken["size"], taken["latency-ns"], taken["read-zeroes"])
        bs.supported_write_flags = f.REQ_FUA

    def get_allocated_file_size(self, bs: BlockDriverState) -> int:
        return 0

    def refresh_filename(self, bs: BlockDriverState) -> None:
        if bs.full_open_options is not None and not bs.full_open_options.keys() - _IGNORED_IN_NAMES:
            bs.exact_filename = f"{self.format_name}://"

    def reopen_prepare(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        """Read-only or not: it forgets everything (null_reopen_prepare)."""

    def getlength(self, bs: BlockDriverState) -> int:
        state: NullState = bs.opaque
        return state.length

    async def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        await self.wait(bs)
        if bs.opaque.read_zeroes:
            iov_memset_zero(qiov, 0, nbytes)

    def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        return self.wait(bs)

    async def co_flush_to_disk(self, bs: BlockDriverState) -> None:
        await self.wait(bs)

    async def co_block_status(
        self, bs: BlockDriverState, want_zero: bool, offset: int, nbytes: int
    ) -> tuple[int, int, int, BlockDriverState | None]:
        status = f.BDRV_BLOCK_OFFSET_VALID
        if bs.opaque.read_zeroes:
            status |= f.BDRV_BLOCK_ZERO
        return status, nbytes, offset, bs


class NullCoDriver(NullDriver):
    """The driver `null-co` (bdrv_null_co)."""

    format_name = "null-co"
    protocol_name = "null-co"

    def try_preadv(self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> int | None:
        state: NullState = bs.opaque
        if state.latency_ns:
            return None
        if state.read_zeroes:
            iov_memset_zero(qiov)
        return 0

    async def wait(self, bs: BlockDriverState) -> None:
        if bs.opaque.latency_ns:
            await co_sleep_ns(ClockType.REALTIME, bs.opaque.latency_ns, owner=bs)


class NullAIOCB:
    """A request of null-aio on its way (NullAIOCB): a bottom half, or a timer."""

    __slots__ = ("_co", "_timer")

    def __init__(self, bs: BlockDriverState, co: Coroutine) -> None:
        self._co = co
        self._timer: Timer | None = None
        ctx = bs.aio_context
        latency_ns = bs.opaque.latency_ns
        if latency_ns:
            self._timer = ctx.timer_new(ClockType.REALTIME, self.complete, owner=bs)
            self._timer.mod(ctx.clock_ns(ClockType.REALTIME) + latency_ns)
        else:
            ctx.bh_schedule_oneshot(self.complete, owner=bs)

    def complete(self) -> None:
        """Ends the request (null_bh_cb, null_timer_cb)."""
        if self._timer is not None:
            self._timer.delete()
        self._co.wake()


class NullAioDriver(NullDriver):
    """The driver `null-aio` (bdrv_null_aio)."""

    format_name = "null-aio"
    protocol_name = "null-aio"

    async def wait(self, bs: BlockDriverState) -> None:
        co = current()
        assert co is not None, "requests are made by coroutines"
        NullAIOCB(bs, co)
        await co_yield()
