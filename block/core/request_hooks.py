# SPDX-License-Identifier: GPL-2.0-only
"""The hooks for requests: the half of a BlockDriver that is called while a guest runs.

The rules are those of driver.py, which has the other half and is what drivers derive from.
"""

from __future__ import annotations

import errno

from block.core.error import BlockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import ClassVar

    from block.core.copy_range import CopyRange
    from block.core.iov import Iov
    from block.core.node import BlockDriverState


class RequestHooks:
    """What a driver does with requests; the class itself does none."""

    format_name: ClassVar[str] = ""

    def _unsupported(self, bs: BlockDriverState, what: str) -> BlockError:
        message = f"Block driver '{self.format_name}' does not support {what}"
        return BlockError(errno.ENOTSUP, message, bs.node_name, self.format_name)

    # -- reading and writing

    def try_preadv(self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> int | None:
        """Reads at once and returns 0, or declines with None (DESIGN.md, rule 13).

        May fill the vector partly before it declines, and never waits. A failure is
        declined too: the coroutine then meets it and raises.
        """
        return None

    def lend_cached(self, bs: BlockDriverState, offset: int, nbytes: int) -> memoryview | None:
        """Lends what is stored there, for reading, if that takes neither a wait nor a copy; None:
        read it (ours; DESIGN.md, rule 13).

        It is the caller's while nobody writes there. Whoever asks has the place from
        co_block_status, and knows that no filter is on the way.
        """
        return None

    def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        """Reads `nbytes` bytes at `offset` into the vector (bdrv_co_preadv)."""
        raise self._unsupported(bs, "reads")

    def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        """Writes the vector (bdrv_co_pwritev); `flags` within bs.supported_write_flags."""
        raise self._unsupported(bs, "writes")

    def co_pwritev_compressed(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov
    ) -> Awaitable[None]:
        """Writes whole clusters, or the end of the disk, compressed where that pays
        (bdrv_co_pwritev_compressed). Asked for by REQ_WRITE_COMPRESSED.

        No bytes: that was all, the file's end may be put in order.
        """
        raise self._unsupported(bs, "compressed writes")

    def co_copy_range_from(self, bs: BlockDriverState, copy: CopyRange) -> Awaitable[None]:
        """Copies from this node, `copy.source.bs`, without reading (bdrv_co_copy_range_from).

        A format goes on with a child of its own as the source, by copy_range.co_copy_range_from;
        at the bottom the target's turn begins, by co_copy_range_to. ENOTSUP means: not here.
        """
        raise self._unsupported(bs, "copy offloading")

    def co_copy_range_to(self, bs: BlockDriverState, copy: CopyRange) -> Awaitable[None]:
        """Copies to this node, `copy.target.bs` (bdrv_co_copy_range_to).

        A format goes on with a child of its own as the target; at the bottom it is done.
        """
        raise self._unsupported(bs, "copy offloading")

    def co_pwrite_zeroes(
        self, bs: BlockDriverState, offset: int, nbytes: int, flags: int
    ) -> Awaitable[None]:
        """Writes zeroes in a better way than by writing; ENOTSUP means there is none here."""
        raise self._unsupported(bs, "efficient zero writes")

    def co_pdiscard(self, bs: BlockDriverState, offset: int, nbytes: int) -> Awaitable[None]:
        """Tells that the content of a range is not needed any more (bdrv_co_pdiscard)."""
        raise self._unsupported(bs, "discard")

    def co_flush(self, bs: BlockDriverState) -> Awaitable[None]:
        """Flushes in the driver's own way, its children too (bdrv_co_flush).

        A driver that writes it is asked neither for co_flush_to_os nor for co_flush_to_disk.
        """
        raise self._unsupported(bs, "flush")

    async def co_flush_to_os(self, bs: BlockDriverState) -> None:
        """Hands the driver's own caches to the layer below (bdrv_co_flush_to_os)."""

    async def co_flush_to_disk(self, bs: BlockDriverState) -> None:
        """Makes what was written durable, here (bdrv_co_flush_to_disk)."""

    # -- what is where

    def co_block_status(
        self, bs: BlockDriverState, want_zero: bool, offset: int, nbytes: int
    ) -> Awaitable[tuple[int, int, int, BlockDriverState | None]]:
        """Returns (BDRV_BLOCK_* flags, bytes they hold for, offset in file, file).

        `want_zero` False: only the allocation is asked for, so zeroes need not be looked
        for (bdrv_co_block_status).
        """
        raise self._unsupported(bs, "block status")

    def co_block_statuses(
        self, bs: BlockDriverState, offset: int, nbytes: int
    ) -> Awaitable[list[tuple[int, int, int, BlockDriverState | None]]]:
        """As co_block_status with want_zero, for as many extents in a row as are known at once.

        Of no more than is asked for. An empty list: co_block_status shall be asked. Whoever has
        short extents answers a walk over the whole disk much faster so (no hook of QEMU's).
        """
        raise self._unsupported(bs, "block status")

    # -- the disk's length, and a machine's state beside it

    def co_truncate(
        self, bs: BlockDriverState, offset: int, exact: bool, prealloc: str, flags: int
    ) -> Awaitable[None]:
        """Makes the image `offset` bytes long (bdrv_co_truncate)."""
        raise self._unsupported(bs, "resize")

    def co_save_vmstate(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov
    ) -> Awaitable[None]:
        """Writes a part of a machine's state, which no disk offset reaches (bdrv_save_vmstate)."""
        raise self._unsupported(bs, "VM state")

    def co_load_vmstate(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov
    ) -> Awaitable[None]:
        """Reads a part of a machine's state (bdrv_load_vmstate)."""
        raise self._unsupported(bs, "VM state")

    # -- debug events (debug.py)

    async def debug_event(self, bs: BlockDriverState, event: str) -> None:
        """Hears of what the next request is for; may stop the coroutine (bdrv_debug_event)."""

    def debug_breakpoint(self, bs: BlockDriverState, event: str, tag: str) -> None:
        """Stops the next coroutine that raises the event (bdrv_debug_breakpoint)."""

    def debug_remove_breakpoint(self, bs: BlockDriverState, tag: str) -> None:
        """Takes break points away, and resumes (bdrv_debug_remove_breakpoint)."""

    def debug_resume(self, bs: BlockDriverState, tag: str) -> None:
        """Lets a stopped coroutine go on (bdrv_debug_resume)."""

    def debug_is_suspended(self, bs: BlockDriverState, tag: str) -> bool:
        """Says whether one is stopped there (bdrv_debug_is_suspended)."""
        return False
