# SPDX-License-Identifier: GPL-2.0-only
"""Raw images: the disk is the file, or a part of it (block/raw-format.c).

R1  Without `offset` and `size` the node is as good as a filter: requests go down unchanged.
R2  With `size` a request beyond it is refused; with `offset` everything is shifted.
R3  Where the format was guessed, the first sector may not be made to look like another
    format: the next guess would believe it, and the guest could read any file of the host.
Who may call it: block.core.

What once went wrong: R3 is CVE-2008-2004.
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core import io, permissions
from block.core.align import blockalign
from block.core.debug import READ_AIO, WRITE_AIO, debug_event
from block.core.driver import BlockDriver, BlockDriverInfo
from block.core.error import BlockError
from block.core.io import try_preadv
from block.core.iov import iov_size, iov_slice, iov_to_bytes
from block.core.limits import inherit_supported_flags
from block.core.open import open_child
from block.core.options import Option, take_options
from block.core.registry import PROBE_BUF_SIZE, find_protocol, probe_all
from block.core.report import to_stderr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable

    from block.core.copy_range import CopyRange
    from block.core.edge import BdrvChild
    from block.core.iov import Iov
    from block.core.node import BlockDriverState


class RawState:
    """What a raw node knows; `size` is None where the image reaches to the end of the file."""

    __slots__ = ("offset", "plain", "size")

    def __init__(self, offset: int, size: int | None) -> None:
        self.offset = offset
        self.size = size
        self.plain = offset == 0 and size is None


def _file(bs: BlockDriverState) -> BdrvChild:
    assert bs.file is not None
    return bs.file


def _refused(bs: BlockDriverState, number: int, message: str) -> BlockError:
    return BlockError(number, message, bs.node_name, "raw")


class RawDriver(BlockDriver):
    """The driver `raw` (bdrv_raw)."""

    format_name = "raw"
    runtime_opts = (
        Option("offset", "size", "offset in the disk where the image starts", 0),
        Option("size", "size", "virtual disk size"),
    )
    create_opts = (Option("size", "size", "Virtual disk size"),)
    strong_runtime_opts = ("offset", "size")
    mutable_opts = ("offset", "size")

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        taken = take_options(options, self.runtime_opts)
        offset, size = taken["offset"], taken["size"]
        whole = not offset and size is None
        role = f.BDRV_CHILD_FILTERED if whole else f.BDRV_CHILD_DATA
        bs.opaque = RawState(offset, size)
        bs.file = open_child(None, options, "file", bs, role | f.BDRV_CHILD_PRIMARY)
        below = _file(bs).bs
        inherit_supported_flags(bs, below)
        _check_range(bs, offset, size, below.getlength())
        if bs.probed and not bs.read_only:
            to_stderr(GUESSED.format(name=below.filename))

    def create(self, filename: str, options: dict[str, object]) -> None:
        """A raw image is whatever the protocol makes (raw_co_create_opts)."""
        find_protocol(filename).create(filename, options)

    def measure(self, options: dict[str, object], in_bs: BlockDriverState | None) -> dict[str, int]:
        """The length, holes included (raw_measure)."""
        size = options.get("size", 0) if in_bs is None else in_bs.getlength()
        assert isinstance(size, int)
        size = -(-size // f.SECTOR_SIZE) * f.SECTOR_SIZE
        return {"required": size, "fully-allocated": size}

    def child_perm(
        self, bs: BlockDriverState, child: BdrvChild | None, role: int, perm: int, shared: int
    ) -> tuple[int, int]:
        """As every parent of data, but writes and resizes only where its own parents do."""
        new_perm, new_shared = permissions.default_perms(bs, role, perm, shared)
        changes = f.BLK_PERM_WRITE | f.BLK_PERM_RESIZE
        return new_perm & ~changes | perm & changes, new_shared

    def reopen_prepare(
        self, bs: BlockDriverState, options: dict[str, object], flags: int
    ) -> RawState:
        """Looks whether another part of the file could be the image (raw_reopen_prepare)."""
        taken = take_options(options, self.runtime_opts)
        _check_range(bs, taken["offset"], taken["size"], _file(bs).bs.getlength())
        return RawState(taken["offset"], taken["size"])

    def reopen_commit(self, bs: BlockDriverState, prepared: object) -> None:
        """From now on it is (raw_reopen_commit)."""
        assert isinstance(prepared, RawState), "as reopen_prepare made it"
        before, bs.opaque = bs.opaque, prepared
        if (before.offset, before.size) != (prepared.offset, prepared.size):
            bs.length_changed()

    def refresh_limits(self, bs: BlockDriverState) -> None:
        bs.bl.fast_read = _file(bs).bs.bl.fast_read
        if bs.probed:
            bs.bl.request_alignment = max(bs.bl.request_alignment, PROBE_BUF_SIZE)

    def getlength(self, bs: BlockDriverState) -> int:
        state: RawState = bs.opaque
        room = max(0, _file(bs).bs.getlength() - state.offset)
        return room if state.size is None else min(room, state.size)

    def get_info(self, bs: BlockDriverState) -> BlockDriverInfo | None:
        return _file(bs).bs.get_info()

    def has_zero_init(self, bs: BlockDriverState) -> bool:
        below = _file(bs).bs
        return below.drv is not None and below.drv.has_zero_init(below)

    def child_resized(self, bs: BlockDriverState, child: BdrvChild) -> None:
        bs.length_changed()

    # -- requests

    def try_preadv(self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> int | None:
        child = bs.file
        if child is None or not bs.opaque.plain:
            return None
        return try_preadv(child, offset, nbytes, qiov)

    def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        if not bs.opaque.plain:
            offset = _shift(bs, offset, nbytes, errno.EINVAL)
        child = _file(bs)
        if child.bs.debugged:
            return _announced(child, READ_AIO, io.co_preadv(child, offset, nbytes, qiov, flags))
        return io.co_preadv(child, offset, nbytes, qiov, flags)

    def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        if bs.probed and offset < PROBE_BUF_SIZE and nbytes:
            qiov = _guard_first_sector(bs, nbytes, qiov)
        offset = _shift(bs, offset, nbytes, errno.ENOSPC)
        child = _file(bs)
        if child.bs.debugged:
            return _announced(child, WRITE_AIO, io.co_pwritev(child, offset, nbytes, qiov, flags))
        return io.co_pwritev(child, offset, nbytes, qiov, flags)

    def co_copy_range_from(self, bs: BlockDriverState, copy: CopyRange) -> Awaitable[None]:
        from block.core.copy_range import co_copy_range_from

        offset = _shift(bs, copy.offset, copy.nbytes, errno.EINVAL)
        return co_copy_range_from(copy.from_child(_file(bs), offset))

    def co_copy_range_to(self, bs: BlockDriverState, copy: CopyRange) -> Awaitable[None]:
        from block.core.copy_range import co_copy_range_to, refuse

        if bs.probed and copy.to < PROBE_BUF_SIZE:
            raise refuse(bs)  # R3: what is written there is looked at first
        to = _shift(bs, copy.to, copy.nbytes, errno.ENOSPC)
        return co_copy_range_to(copy.to_child(_file(bs), to))

    def co_pwrite_zeroes(
        self, bs: BlockDriverState, offset: int, nbytes: int, flags: int
    ) -> Awaitable[None]:
        offset = _shift(bs, offset, nbytes, errno.ENOSPC)
        return _file(bs).co_pwrite_zeroes(offset, nbytes, flags)

    def co_pdiscard(self, bs: BlockDriverState, offset: int, nbytes: int) -> Awaitable[None]:
        return _file(bs).co_pdiscard(_shift(bs, offset, nbytes, errno.ENOSPC), nbytes)

    async def co_block_status(
        self, bs: BlockDriverState, want_zero: bool, offset: int, nbytes: int
    ) -> tuple[int, int, int, BlockDriverState | None]:
        place = f.BDRV_BLOCK_RAW | f.BDRV_BLOCK_OFFSET_VALID
        return place, nbytes, offset + bs.opaque.offset, _file(bs).bs

    async def co_truncate(
        self, bs: BlockDriverState, offset: int, exact: bool, prealloc: str, flags: int
    ) -> None:
        state: RawState = bs.opaque
        if state.size is not None:
            raise _refused(bs, errno.ENOTSUP, "Cannot resize fixed-size raw disks")
        if offset > f.INT64_MAX - state.offset:
            raise _refused(bs, errno.EINVAL, "Disk size too large for the chosen offset")
        await _file(bs).co_truncate(offset + state.offset, exact, prealloc, flags)


GUESSED = (
    "WARNING: Image format was not specified for '{name}' and probing guessed raw.\n"
    "         Automatically detecting the format is dangerous for raw images, write operations"
    " on block 0 will be restricted.\n"
    "         Specify the 'raw' format explicitly to remove the restrictions.\n"
)


def _announced(child: BdrvChild, event: str, request: Awaitable[None]) -> Awaitable[None]:
    """Tells the node below what a request is for before it begins (debug.py)."""
    from block.aio.co_parallel import co_then

    return co_then(debug_event(child.bs, event), request)


def _check_range(bs: BlockDriverState, offset: int, size: int | None, file_length: int) -> None:
    """Raises where `offset` and `size` do not fit into the file (raw_apply_options)."""
    if offset > file_length:
        message = (
            f"Offset ({offset}) cannot be greater than size of the containing file ({file_length})"
        )
        raise _refused(bs, errno.EINVAL, message)
    if size is None:
        return
    if file_length - offset < size:
        message = (  # with QEMU's two spaces
            f"The sum of offset ({offset}) and size ({size}) has to be smaller or equal to the "
            f" actual size of the containing file ({file_length})"
        )
        raise _refused(bs, errno.EINVAL, message)
    if size % f.SECTOR_SIZE:
        message = f"Specified size is not multiple of {f.SECTOR_SIZE}"
        raise _refused(bs, errno.EINVAL, message)


def _shift(bs: BlockDriverState, offset: int, nbytes: int, number: int) -> int:
    """Returns where a request goes in the file, or raises `number` (raw_adjust_offset, R2)."""
    state: RawState = bs.opaque
    if state.size is not None and (offset > state.size or nbytes > state.size - offset):
        raise _refused(bs, number, f"Request beyond the size of {state.size} bytes")
    if offset > f.INT64_MAX - state.offset:
        raise _refused(bs, errno.EINVAL, f"Request at offset {offset}")
    return offset + state.offset


def _guard_first_sector(bs: BlockDriverState, nbytes: int, qiov: Iov) -> Iov:
    """Refuses a first sector that looks like another format (R3).

    The guest can change its memory meanwhile, so what was looked at is what is written.
    """
    size = min(nbytes, PROBE_BUF_SIZE)
    bounce = blockalign(size)
    bounce[:] = iov_to_bytes(qiov, 0, size)
    if probe_all(bytes(bounce)) != "raw":
        message = "Writing this to block 0 would change the guessed format of the image"
        raise _refused(bs, errno.EPERM, message)
    return [bounce, *iov_slice(qiov, size, iov_size(qiov) - size)]
