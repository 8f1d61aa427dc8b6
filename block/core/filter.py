# SPDX-License-Identifier: GPL-2.0-only
"""What all plain filters share: a node over one child, `file`, to which it hands everything on.

    class NoisyDriver(FilterDriver):
        format_name = "noisy"

        async def co_pwritev(self, bs, offset, nbytes, qiov, flags):
            print("a write")
            await super().co_pwritev(bs, offset, nbytes, qiov, flags)

R1  A hook that a filter does not write itself does what the child does; requests cost one plain
    call, no coroutine of their own.
R2  try_preadv declines here: it would pass by a filter's own co_preadv. A filter that leaves
    reads alone takes it up again by `try_preadv = pass_try_preadv`.
R3  Block status, truncation, get_info and flush go to the child by the core itself, which knows
    what a filter is (is_filter). co_flush_to_disk of a filter runs before the child's flush,
    co_flush in place of it.
R4  Permissions and limits are the child's: default_perms for the role, limits.refresh_limits.
Who may call it: the modules in block/filters.
"""

from __future__ import annotations

from block.core import flags as f
from block.core import io
from block.core.driver import BlockDriver
from block.core.limits import inherit_supported_flags
from block.core.open import open_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable

    from block.core.edge import BdrvChild
    from block.core.iov import Iov
    from block.core.node import BlockDriverState


def filtered(bs: BlockDriverState) -> BdrvChild:
    """Returns the edge to what a filter filters."""
    assert bs.file is not None, "a filter without its child"
    return bs.file


def pass_try_preadv(
    self: BlockDriver, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov
) -> int | None:
    """The hook try_preadv of filters that leave reads alone (R2)."""
    child = bs.file
    return None if child is None else io.try_preadv(child, offset, nbytes, qiov)


class FilterDriver(BlockDriver):
    """A filter that changes nothing; the real ones change what they are for."""

    is_filter = True

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        """Opens the child and takes over which flags it knows; filters with options add theirs."""
        role = f.BDRV_CHILD_FILTERED | f.BDRV_CHILD_PRIMARY
        bs.file = open_child(None, options, "file", bs, role)
        inherit_supported_flags(bs, filtered(bs).bs)

    def reopen_prepare(
        self, bs: BlockDriverState, options: dict[str, object], flags: int
    ) -> object:
        """Common options change in the core and in the child; nothing is to be done here."""
        return None

    def getlength(self, bs: BlockDriverState) -> int:
        return filtered(bs).bs.getlength()

    def child_resized(self, bs: BlockDriverState, child: BdrvChild) -> None:
        bs.length_changed()

    def refresh_limits(self, bs: BlockDriverState) -> None:
        bs.bl.fast_read = filtered(bs).bs.bl.fast_read

    # -- requests

    def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        return io.co_preadv(filtered(bs), offset, nbytes, qiov, flags)

    def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        return io.co_pwritev(filtered(bs), offset, nbytes, qiov, flags)

    def co_pwrite_zeroes(
        self, bs: BlockDriverState, offset: int, nbytes: int, flags: int
    ) -> Awaitable[None]:
        return filtered(bs).co_pwrite_zeroes(offset, nbytes, flags)

    def co_pdiscard(self, bs: BlockDriverState, offset: int, nbytes: int) -> Awaitable[None]:
        return filtered(bs).co_pdiscard(offset, nbytes)


class AroundDriver(FilterDriver):
    """A filter that does something around every request, whatever its kind: it writes `around`."""

    def around(
        self,
        bs: BlockDriverState,
        kind: str,
        offset: int,
        nbytes: int,
        flags: int,
        request: Awaitable[None],
    ) -> Awaitable[None]:
        """Returns what does a request, and more: `request` is the child's part, not yet begun.

        `kind` is read, write, zero, discard, flush or truncate. A flush has neither offset
        nor bytes; the offset of a truncate is the new length.
        """
        raise NotImplementedError

    def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        request = io.co_preadv(filtered(bs), offset, nbytes, qiov, flags)
        return self.around(bs, "read", offset, nbytes, flags, request)

    def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        request = io.co_pwritev(filtered(bs), offset, nbytes, qiov, flags)
        return self.around(bs, "write", offset, nbytes, flags, request)

    def co_pwrite_zeroes(
        self, bs: BlockDriverState, offset: int, nbytes: int, flags: int
    ) -> Awaitable[None]:
        request = filtered(bs).co_pwrite_zeroes(offset, nbytes, flags)
        return self.around(bs, "zero", offset, nbytes, flags, request)

    def co_pdiscard(self, bs: BlockDriverState, offset: int, nbytes: int) -> Awaitable[None]:
        request = filtered(bs).co_pdiscard(offset, nbytes)
        return self.around(bs, "discard", offset, nbytes, 0, request)

    def co_flush(self, bs: BlockDriverState) -> Awaitable[None]:
        return self.around(bs, "flush", 0, 0, 0, filtered(bs).co_flush())

    def co_truncate(
        self, bs: BlockDriverState, offset: int, exact: bool, prealloc: str, flags: int
    ) -> Awaitable[None]:
        request = filtered(bs).co_truncate(offset, exact, prealloc, flags)
        return self.around(bs, "truncate", offset, 0, flags, request)
