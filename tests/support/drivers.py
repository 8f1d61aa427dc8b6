# SPDX-License-Identifier: GPL-2.0-only
"""Drivers for tests: a disk in memory that writes down what it is asked, and can be stopped.

Watched    any of them: drains and moves are written down
Ram        a protocol: bytes in memory, a log, failures on order, requests that park
Pass       a filter over one child, with a log
Overlay    a format with clusters of its own over a backing file
Fan        a node with several children of its own, which it walks when it moves (quorum)
"""

from __future__ import annotations

from typing import Any

from block.aio.co_lock import CoQueue
from block.aio.context import AioContext
from block.aio.world import the_world
from block.core import edge, graph
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.driver import BlockDriver
from block.core.iov import Iov, iov_from_bytes, iov_memset_zero, iov_size, iov_to_bytes
from block.core.node import BlockDriverState
from block.core.open import bdrv_open


class Disk:
    """The state of a Ram node; the test keeps it and looks into it.

    log      what the driver was asked, in order: ("preadv", offset, bytes) ...
    parked   while True, requests wait until release()
    errors   hook name -> exception that it raises
    """

    def __init__(self, length: int = 1 << 20, **limits: int) -> None:
        self.data = bytearray(length)
        self.limits = limits
        self.log: list[tuple[Any, ...]] = []
        self.threads: set[int] = set()
        self.errors: dict[str, OSError] = {}
        self.parked = False
        self.queue = CoQueue()
        self.flushes = 0

    def asked(self, *names: str) -> list[tuple[Any, ...]]:
        """Returns the log entries of these hooks."""
        return [entry for entry in self.log if entry[0] in names]

    async def note(self, name: str, *args: object) -> None:
        """Writes an entry, waits while parked, fails if told so."""
        self.log.append((name, *args))
        self.threads.add(the_world().current())
        while self.parked:
            await self.queue.wait()
        if name in self.errors:
            raise self.errors[name]

    def release(self) -> None:
        """Lets parked requests go on; in the thread at home in the node's context."""
        self.parked = False
        self.queue.restart_all()


class Watched(BlockDriver):
    """Writes down drains and moves."""

    def drain_begin(self, bs: BlockDriverState) -> None:
        bs.opaque.log.append(("drain_begin",))

    def drain_end(self, bs: BlockDriverState) -> None:
        bs.opaque.log.append(("drain_end",))

    def detach_aio_context(self, bs: BlockDriverState) -> None:
        bs.opaque.log.append(("detach", bs.aio_context.name))

    def attach_aio_context(self, bs: BlockDriverState, ctx: AioContext) -> None:
        bs.opaque.log.append(("attach", ctx.name))


def assert_within_limits(bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> None:
    """The core promises this to every driver (driver.R4)."""
    assert not (offset | nbytes) % bs.bl.request_alignment
    assert 0 < nbytes <= (bs.bl.max_transfer or nbytes)
    assert len(qiov) <= bs.bl.max_iov
    assert iov_size(qiov) == nbytes


class Ram(Watched):
    """Bytes in memory, with everything that a protocol can do."""

    format_name = "ram"
    protocol_name = "ram"

    def close(self, bs: BlockDriverState) -> None:
        bs.opaque.log.append(("close",))

    def getlength(self, bs: BlockDriverState) -> int:
        return len(bs.opaque.data)

    def refresh_limits(self, bs: BlockDriverState) -> None:
        for name, value in bs.opaque.limits.items():
            setattr(bs.bl, name, value)

    async def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        assert_within_limits(bs, offset, nbytes, qiov)
        await bs.opaque.note("preadv", offset, nbytes)
        data = bs.opaque.data[offset : offset + nbytes]
        iov_from_bytes(qiov, 0, data)
        iov_memset_zero(qiov, len(data), nbytes - len(data))

    async def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        assert_within_limits(bs, offset, nbytes, qiov)
        await bs.opaque.note("pwritev", offset, nbytes, flags)
        data: bytearray = bs.opaque.data
        if offset + nbytes > len(data):
            data.extend(bytes(offset + nbytes - len(data)))
        data[offset : offset + nbytes] = iov_to_bytes(qiov, 0, nbytes)

    async def co_flush_to_disk(self, bs: BlockDriverState) -> None:
        bs.opaque.flushes += 1
        await bs.opaque.note("flush")

    async def co_truncate(
        self, bs: BlockDriverState, offset: int, exact: bool, prealloc: str, flags: int
    ) -> None:
        await bs.opaque.note("truncate", offset, prealloc)
        data: bytearray = bs.opaque.data
        del data[offset:]
        data.extend(bytes(offset - len(data)))


class ZeroRam(Ram):
    """One that can write zeroes and discard in a better way (discard: zeroes)."""

    format_name = protocol_name = "zero-ram"

    async def co_pwrite_zeroes(
        self, bs: BlockDriverState, offset: int, nbytes: int, flags: int
    ) -> None:
        await bs.opaque.note("pwrite_zeroes", offset, nbytes, flags)
        bs.opaque.data[offset : offset + nbytes] = bytes(nbytes)

    async def co_pdiscard(self, bs: BlockDriverState, offset: int, nbytes: int) -> None:
        await bs.opaque.note("pdiscard", offset, nbytes)
        bs.opaque.data[offset : offset + nbytes] = bytes(nbytes)


class FastRam(Ram):
    """One that answers at once, unless it is parked or told to fail."""

    format_name = protocol_name = "fast-ram"

    def try_preadv(self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> int | None:
        disk: Disk = bs.opaque
        if disk.parked or disk.errors:
            return None
        disk.log.append(("try_preadv", offset, nbytes))
        iov_from_bytes(qiov, 0, disk.data[offset : offset + nbytes])
        return 0


class ReleasingRam(Ram):
    """Parked requests go on when somebody drains: they were in flight until then."""

    def drain_begin(self, bs: BlockDriverState) -> None:
        super().drain_begin(bs)
        bs.aio_context.bh_schedule_oneshot(bs.opaque.release)


class FastReleasingRam(ReleasingRam, FastRam):
    """Reads are answered at once, unless they are parked."""


class Log:
    """The state of a node that has nothing but a log."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []


class Pass(Watched):
    """A filter: hands everything on, and writes down drains and moves."""

    format_name = "pass"
    is_filter = True

    def try_preadv(self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> int | None:
        assert bs.file is not None
        return bs.file.try_preadv(offset, nbytes, qiov)

    async def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        assert bs.file is not None
        await bs.file.co_preadv(offset, nbytes, qiov, flags)

    async def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        assert bs.file is not None
        await bs.file.co_pwritev(offset, nbytes, qiov, flags)

    def getlength(self, bs: BlockDriverState) -> int:
        return bs.file.bs.getlength() if bs.file is not None else 0


class Clusters:
    """The state of an Overlay: which clusters it holds, and their bytes."""

    def __init__(self, length: int, cluster: int = 4096) -> None:
        self.data = bytearray(length)
        self.cluster = cluster
        self.held: set[int] = set()
        self.log: list[tuple[Any, ...]] = []


class Overlay(Watched):
    """A format over a backing file; it holds what was written to it, cluster by cluster."""

    format_name = "overlay"
    supports_backing = True

    def getlength(self, bs: BlockDriverState) -> int:
        return len(bs.opaque.data)

    def refresh_limits(self, bs: BlockDriverState) -> None:
        bs.bl.request_alignment = bs.opaque.cluster

    async def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        size = bs.opaque.cluster
        for at in range(offset, offset + nbytes, size):
            part = bytearray(bs.opaque.data[at : at + size])
            if at // size not in bs.opaque.held and bs.backing is not None:
                await bs.backing.co_preadv(at, size, [memoryview(part)])
            iov_from_bytes(qiov, at - offset, part)

    async def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        size = bs.opaque.cluster
        bs.opaque.data[offset : offset + nbytes] = iov_to_bytes(qiov, 0, nbytes)
        bs.opaque.held.update(range(offset // size, (offset + nbytes) // size))

    async def co_block_status(
        self, bs: BlockDriverState, want_zero: bool, offset: int, nbytes: int
    ) -> tuple[int, int, int, BlockDriverState | None]:
        size = bs.opaque.cluster
        first = offset // size in bs.opaque.held
        end = offset
        while end < offset + nbytes and (end // size in bs.opaque.held) == first:
            end += size
        return (f.BDRV_BLOCK_DATA if first else 0), end - offset, 0, None


class Fan(Pass):
    """Several children; reads go to the first. It walks the others itself when it moves."""

    format_name = "fan"
    is_filter = False

    def getlength(self, bs: BlockDriverState) -> int:
        return bs.children[0].bs.getlength() if bs.children else 0

    def try_preadv(self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> int | None:
        return bs.children[0].try_preadv(offset, nbytes, qiov)

    async def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        await bs.children[0].co_preadv(offset, nbytes, qiov, flags)

    async def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        for child in bs.children:
            await child.co_pwritev(offset, nbytes, qiov, flags)

    def detach_aio_context(self, bs: BlockDriverState) -> None:
        super().detach_aio_context(bs)
        for child in bs.children:
            child.bs.detach_aio_context()

    def attach_aio_context(self, bs: BlockDriverState, ctx: AioContext) -> None:
        for child in bs.children:
            child.bs.attach_aio_context(ctx)
        super().attach_aio_context(bs, ctx)


def make_node(
    driver: BlockDriver, state: Any, name: str = "", flags: int = f.BDRV_O_RDWR | f.BDRV_O_UNMAP
) -> BlockDriverState:
    """Returns a node as opening would make it; the caller holds the reference."""
    bs = BlockDriverState()
    graph.assign_node_name(bs, name)
    bs.drv = driver
    bs.debugged = "debug_event" in driver.hooks
    bs.opaque = state
    bs.open_flags = flags
    bs.read_only = not flags & f.BDRV_O_RDWR
    settle(bs)
    return bs


def settle(bs: BlockDriverState) -> None:
    """Lets a node look at its length and limits, as at the end of opening."""
    bs.refresh_limits()
    bs.refresh_total_sectors()


def put_below(
    parent: BlockDriverState,
    child: BlockDriverState,
    name: str = "file",
    role: int = f.BDRV_CHILD_FILTERED | f.BDRV_CHILD_PRIMARY,
) -> BlockDriverState:
    """Attaches a child, whose reference the parent takes; returns the parent."""
    link = edge.attach_child(parent, child, name, role)
    if name == "file":
        parent.file = link
    settle(parent)
    return parent


def ram_node(
    disk: Disk, name: str = "", driver: type[Ram] = Ram, **kwargs: int
) -> BlockDriverState:
    """Returns a node over a disk in memory."""
    return make_node(driver(), disk, name, **kwargs)


def pass_node(child: BlockDriverState, name: str = "") -> BlockDriverState:
    """Returns a filter over a node, whose reference it takes."""
    return put_below(make_node(Pass(), Log(), name), child)


def filter_node(child: BlockDriverState, driver: str, **options: object) -> BlockDriverState:
    """Returns a filter, opened by its name, over a node, whose reference it takes.

    `options` with '_' for '-': read_latency_ns=5.
    """
    named = {name.replace("_", "-"): value for name, value in options.items()}
    try:
        return bdrv_open(options={"driver": driver, "file": child.node_name, **named})
    finally:
        child.unref()


def backend_on(
    bs: BlockDriverState, perm: int = f.BLK_PERM_ALL & ~f.BLK_PERM_GRAPH_MOD, name: str = ""
) -> BlockBackend:
    """Returns a backend over a node, whose reference it takes."""
    blk = BlockBackend(perm, f.BLK_PERM_ALL)
    if name:
        blk.set_name(name)
    try:
        blk.insert_bs(bs)
    except BaseException:
        blk.unref()
        raise
    finally:
        bs.unref()
    return blk


class Outcome:
    """A callback that remembers what it got."""

    def __init__(self) -> None:
        self.ret: int | None = None
        self.calls = 0
        self.thread = 0

    def __call__(self, ret: int) -> None:
        self.ret = ret
        self.calls += 1
        self.thread = the_world().current()

    @property
    def pending(self) -> bool:
        """Whether the callback has not come yet."""
        return self.ret is None
