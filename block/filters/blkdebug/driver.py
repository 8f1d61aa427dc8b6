# SPDX-License-Identifier: GPL-2.0-only
"""The driver `blkdebug`: hands requests on, unless a rule says otherwise (bdrv_blkdebug).

    guest
      |
    qcow2      raises events: "l2_update", "write_aio", ...
      |
    blkdebug   rules: at this event, in that state, the next requests fail, or the coroutine stops
      |
    file

R1  A failure reaches the caller by way of a bottom half of the node's own loop, as that of a real
    disk would; unless the rule says `immediately`.
R2  Between requests nothing is registered with a loop. Who waits for that bottom half, or stands
    at a break point, is in flight: a move waits for it.
R3  What the core promises its drivers about alignment and lengths is asserted here for every
    request: these tests are half of what blkdebug is for.
Requests run in the thread of the node's context; opening in the main thread.

What once went wrong: the bottom half went to the main loop, whatever loop the node was in
(7e1efdf0a3, patch 04 of the series).
"""

from __future__ import annotations

import errno

from block.aio.coroutine import co_yield, current
from block.core import debug
from block.core import flags as f
from block.core.error import BlockError
from block.core.filter import FilterDriver, filtered
from block.core.limits import inherit_supported_flags
from block.core.open import open_child
from block.core.options import Option, invalid, take_options
from block.filters.blkdebug import config, limits
from block.filters.blkdebug.rules import BreakPoint, Machine
from block.filters.blkdebug.suspend import Suspended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.edge import BdrvChild
    from block.core.iov import Iov
    from block.core.node import BlockDriverState

PREFIX = "blkdebug:"
# Who has only these options has a name: blkdebug:CONFIG:IMAGE.
_NAMED = frozenset(("config", "driver", "image"))


class BlkdebugState:
    """What a blkdebug node knows (BDRVBlkdebugState)."""

    __slots__ = ("config", "limits", "machine", "suspended", "take_perm", "unshare_perm")

    def __init__(self, config: str) -> None:
        self.config = config
        self.machine = Machine()
        self.suspended = Suspended()
        self.limits: dict[str, int] = {}
        self.take_perm = 0
        self.unshare_perm = 0


class BlkdebugDriver(FilterDriver):
    """The hooks of `blkdebug`."""

    format_name = "blkdebug"
    protocol_name = "blkdebug"
    runtime_opts = (
        Option("config", "string", "Path to the configuration file"),
        Option("x-image", "string", "The image's name, out of blkdebug:CONFIG:IMAGE"),
        *limits.OPTIONS,
    )
    strong_runtime_opts = ("config", "inject-error.", "set-state.", *limits.FIELDS)

    # -- opening

    def parse_filename(self, filename: str, options: dict[str, object]) -> None:
        """blkdebug:CONFIG:IMAGE, where CONFIG may be empty (blkdebug_parse_filename)."""
        if not filename.startswith(PREFIX):
            options["x-image"] = filename
            return
        path, colon, image = filename.removeprefix(PREFIX).partition(":")
        if not colon:
            raise invalid("blkdebug requires both config file and image path")
        if path:
            options["config"] = path
        options["x-image"] = image

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        taken = take_options(options, self.runtime_opts)
        bs.options.pop("x-image", None)  # the child has a name of its own
        s = BlkdebugState(taken["config"] or "")
        s.limits = {option.name: taken[option.name] for option in limits.OPTIONS}
        sections = config.read_file(s.config) if s.config else []
        for rule in config.rules_from(sections + config.take_sections(options)):
            s.machine.add(rule)
        s.take_perm = config.take_permissions(options, "take-child-perms")
        s.unshare_perm = config.take_permissions(options, "unshare-child-perms")
        bs.opaque = s
        role = f.BDRV_CHILD_FILTERED | f.BDRV_CHILD_PRIMARY
        bs.file = open_child(taken["x-image"], options, "image", bs, role)
        below = filtered(bs).bs
        inherit_supported_flags(bs, below)
        limits.check(s.limits, below.bl.request_alignment)
        s.machine.happen(debug.NONE)

    def child_perm(
        self, bs: BlockDriverState, child: BdrvChild | None, role: int, perm: int, shared: int
    ) -> tuple[int, int]:
        s: BlkdebugState = bs.opaque
        new_perm, new_shared = super().child_perm(bs, child, role, perm, shared)
        return new_perm | s.take_perm, new_shared & ~s.unshare_perm

    def refresh_limits(self, bs: BlockDriverState) -> None:
        limits.apply(bs.opaque.limits, bs.bl)

    def refresh_filename(self, bs: BlockDriverState) -> None:
        """blkdebug:CONFIG:IMAGE, where that says all: no other option, no colon in CONFIG."""
        assert bs.full_open_options is not None
        path, image = bs.opaque.config, filtered(bs).bs.exact_filename
        if image and ":" not in path and bs.full_open_options.keys() <= _NAMED:
            bs.exact_filename = f"{PREFIX}{path}:{image}"

    # -- requests

    async def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        _assert_takes(bs, offset, nbytes)
        await _may_fail(bs, "read", offset, nbytes)
        await super().co_preadv(bs, offset, nbytes, qiov, flags)

    async def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        _assert_takes(bs, offset, nbytes)
        await _may_fail(bs, "write", offset, nbytes)
        await super().co_pwritev(bs, offset, nbytes, qiov, flags)

    async def co_pwrite_zeroes(
        self, bs: BlockDriverState, offset: int, nbytes: int, flags: int
    ) -> None:
        """Takes whole pieces only: so the core's way out for the others is used, too."""
        align = max(bs.bl.request_alignment, bs.bl.pwrite_zeroes_alignment)
        if nbytes < align:
            _assert_within_one(offset, nbytes, align)
            raise _not_here(bs, offset)
        assert (offset % align, nbytes % align) == (0, 0), "R3"
        assert not 0 < bs.bl.max_pwrite_zeroes < nbytes, "R3"
        await _may_fail(bs, "write-zeroes", offset, nbytes)
        await super().co_pwrite_zeroes(bs, offset, nbytes, flags)

    async def co_pdiscard(self, bs: BlockDriverState, offset: int, nbytes: int) -> None:
        """Takes whole blocks only; the core lets the rest of a discard be."""
        align = bs.bl.request_alignment
        if nbytes < align:
            _assert_within_one(offset, nbytes, max(align, bs.bl.pdiscard_alignment))
            raise _not_here(bs, offset)
        assert (offset % align, nbytes % align) == (0, 0), "R3"
        best = bs.bl.pdiscard_alignment
        assert not 0 < best <= nbytes or (offset % best, nbytes % best) == (0, 0), "R3"
        assert not 0 < bs.bl.max_pdiscard < nbytes, "R3"
        await _may_fail(bs, "discard", offset, nbytes)
        await super().co_pdiscard(bs, offset, nbytes)

    async def co_flush_to_disk(self, bs: BlockDriverState) -> None:
        """May fail; that the image is flushed afterwards is the core's matter."""
        await _may_fail(bs, "flush", 0, 0)

    async def co_block_status(
        self, bs: BlockDriverState, want_zero: bool, offset: int, nbytes: int
    ) -> tuple[int, int, int, BlockDriverState | None]:
        await _may_fail(bs, "block-status", offset, nbytes)
        return f.BDRV_BLOCK_RAW | f.BDRV_BLOCK_OFFSET_VALID, nbytes, offset, filtered(bs).bs

    # -- events and break points

    async def debug_event(self, bs: BlockDriverState, event: str) -> None:
        s: BlkdebugState = bs.opaque
        met = s.machine.happen(event)
        if met:
            await s.suspended.stop(met)

    def debug_breakpoint(self, bs: BlockDriverState, event: str, tag: str) -> None:
        if event not in debug.EVENTS:
            message = f"blkdebug knows no event '{event}'"
            raise BlockError(errno.ENOENT, message, bs.node_name, "blkdebug")
        bs.opaque.machine.add(BreakPoint(event, tag))

    def debug_remove_breakpoint(self, bs: BlockDriverState, tag: str) -> None:
        s: BlkdebugState = bs.opaque
        points = s.machine.break_points(tag)
        for point in points:
            s.machine.remove(point)
        resumed = False
        while s.suspended.resume(tag):
            resumed = True
        if not points and not resumed:
            raise _no_such(bs, f"no break point '{tag}'")

    def debug_resume(self, bs: BlockDriverState, tag: str) -> None:
        if not bs.opaque.suspended.resume(tag):
            raise _no_such(bs, f"nobody stands at a break point '{tag}'")

    def debug_is_suspended(self, bs: BlockDriverState, tag: str) -> bool:
        s: BlkdebugState = bs.opaque
        return s.suspended.is_suspended(tag)


# -- failing


async def _may_fail(bs: BlockDriverState, io_type: str, offset: int, nbytes: int) -> None:
    """Lets a request fail that an armed error fits (rule_check)."""
    s: BlkdebugState = bs.opaque
    error = s.machine.error_for(io_type, offset, nbytes)
    if error is None:
        return
    if not error.immediately:
        await _by_bottom_half(bs)
    raise BlockError(error.errno, "", bs.node_name, "blkdebug", offset)


async def _by_bottom_half(bs: BlockDriverState) -> None:
    """Goes on in the next pass of the node's loop (error_callback_bh, R1)."""
    me = current()
    assert me is not None, "a request is a coroutine"
    bs.aio_context.bh_schedule_oneshot(me.wake, owner=bs)
    await co_yield()


def _not_here(bs: BlockDriverState, offset: int) -> BlockError:
    return BlockError(errno.ENOTSUP, "less than a block", bs.node_name, "blkdebug", offset)


def _no_such(bs: BlockDriverState, what: str) -> BlockError:
    return BlockError(errno.ENOENT, f"blkdebug: {what}", bs.node_name, "blkdebug")


def _assert_takes(bs: BlockDriverState, offset: int, nbytes: int) -> None:
    assert not (offset | nbytes) % bs.bl.request_alignment, "R3: not aligned"
    assert not 0 < bs.bl.max_transfer < nbytes, "R3: too long"


def _assert_within_one(offset: int, nbytes: int, align: int) -> None:
    """A piece that is no whole one touches an edge, or lies between two."""
    start, end = offset % align, (offset + nbytes) % align
    assert not start or not end or start + nbytes < align, "R3: across an edge"
