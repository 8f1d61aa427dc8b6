# SPDX-License-Identifier: GPL-2.0-only
"""delay: a filter that makes a fast disk slow, for labs (in the manner of nbdkit's delay filter).

    option                default           what waits, before it goes on to the child
    latency-ns            0                 every request, unless one of these says otherwise
    read-latency-ns       latency-ns        reads
    write-latency-ns      latency-ns        writes
    zero-latency-ns       write-latency-ns  writes of zeroes
    discard-latency-ns    write-latency-ns  discards
    flush-latency-ns      latency-ns        flushes

R1  A request waits by a timer of the node's context, owner=bs. It counts as in flight meanwhile,
    so a drain, and with it a move, waits for it.
R2  Requests wait side by side: a latency is not a limit of the throughput.
Who may call it: block.core.
"""

from __future__ import annotations

import errno

from block.aio.co_parallel import co_then
from block.aio.co_sleep import co_sleep_ns
from block.aio.world import ClockType
from block.core import flags as f
from block.core.error import BlockError
from block.core.filter import AroundDriver, pass_try_preadv
from block.core.options import Option, take_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable

    from block.core.iov import Iov
    from block.core.node import BlockDriverState


class DelayDriver(AroundDriver):
    """The driver `delay`; QEMU has none like it."""

    format_name = "delay"
    runtime_opts = (
        Option("latency-ns", "number", "nanoseconds that every request waits (default: 0)"),
        Option("read-latency-ns", "number", "nanoseconds that reads wait"),
        Option("write-latency-ns", "number", "nanoseconds that writes wait"),
        Option("zero-latency-ns", "number", "nanoseconds that writes of zeroes wait"),
        Option("discard-latency-ns", "number", "nanoseconds that discards wait"),
        Option("flush-latency-ns", "number", "nanoseconds that flushes wait"),
    )
    strong_runtime_opts = tuple(option.name for option in runtime_opts)

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        taken = take_options(options, self.runtime_opts)
        for name, latency in taken.items():
            if latency is not None and latency > f.INT64_MAX:
                raise BlockError(errno.EINVAL, f"{name} is invalid", bs.node_name, "delay")
        bs.opaque = _latencies(taken)
        super().open(bs, options, flags)

    def try_preadv(self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> int | None:
        if bs.opaque["read"]:
            return None
        return pass_try_preadv(self, bs, offset, nbytes, qiov)

    def around(
        self,
        bs: BlockDriverState,
        kind: str,
        offset: int,
        nbytes: int,
        flags: int,
        request: Awaitable[None],
    ) -> Awaitable[None]:
        latency_ns = bs.opaque[kind]
        return _later(bs, latency_ns, request) if latency_ns else request


def _latencies(taken: dict[str, int | None]) -> dict[str, int]:
    """How long each kind of request waits, in nanoseconds."""

    def of(name: str, default: int) -> int:
        latency = taken[f"{name}latency-ns"]
        return default if latency is None else latency

    every = of("", 0)
    write = of("write-", every)
    return {
        "read": of("read-", every),
        "write": write,
        "zero": of("zero-", write),
        "discard": of("discard-", write),
        "flush": of("flush-", every),
        "truncate": 0,
    }


def _later(bs: BlockDriverState, latency_ns: int, request: Awaitable[None]) -> Awaitable[None]:
    """Does a request after its latency (R1)."""
    return co_then(co_sleep_ns(ClockType.REALTIME, latency_ns, owner=bs), request)
