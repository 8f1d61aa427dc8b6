# SPDX-License-Identifier: GPL-2.0-only
"""preallocate: a filter that lets a file grow in large steps (block/preallocate.c).

    a write beyond the end of the file, to `end`:

    |== data ==|                                      the file before
    |== data ==|~~~~~~~~~~~~~ zeroes ~~~~~~~~~~~~~|   one request for many megabytes of room
    |== data ==|=write=|~~~~~~~~~ zeroes ~~~~~~~~~|   then the write
                       ^ data_end                 ^ file_end

A file system that gives room in large pieces lays a file out better, and the next writes find
their room there already. Of the room above nothing is seen: the node ends at data_end, and when
the filter is closed, or nobody writes any more, the file is cut there.

Options: prealloc-size (128 MiB), how much; prealloc-align (1 MiB), what the file's length is
rounded up to then.

R1  It works only while it has WRITE and RESIZE on the child, and shares neither: nobody else
    then changes the file's length. Without them all three positions are None.
R2  Before the permissions go, the rest is cut off: in check_perm, since in set_perm they are gone.
R3  Preallocation is a favour: where it fails, the write is done all the same.
R4  It waits for nobody (REQ_NO_WAIT): two writes at the end do not wait for each other's favours.
Who may call it: block.core.

What goes wrong in QEMU, as its source reads: a write of data into zeroes that are part of the room
does not move zero_start. Zeroes written over it later, and beyond it, seem to be there already.
"""

from __future__ import annotations

from block.core import flags as f
from block.core import io, permissions, wait
from block.core.error import failed
from block.core.filter import FilterDriver, filtered, pass_try_preadv
from block.core.options import Option, invalid, take_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable

    from block.core.edge import BdrvChild
    from block.core.iov import Iov
    from block.core.node import BlockDriverState

_MIB = 1 << 20
_WRITE_RESIZE = f.BLK_PERM_WRITE | f.BLK_PERM_RESIZE
_FAVOUR = f.REQ_NO_FALLBACK | f.REQ_SERIALISING | f.REQ_NO_WAIT


class PreallocateState:
    """What a preallocate node knows (BDRVPreallocateState); offsets in bytes, None: unknown.

    data_end    where the node ends: the file's length at first, then the end of the last write
    zero_start  from here to file_end the file holds zeroes that nobody has written to
    file_end    where the file ends
    """

    __slots__ = ("align", "data_end", "file_end", "size", "zero_start")

    def __init__(self, size: int, align: int) -> None:
        self.size = size
        self.align = align
        self.forget()

    def forget(self) -> None:
        """Nothing is known any more."""
        self.set_ends(None)

    def set_ends(self, length: int | None) -> None:
        """The file ends where the data end."""
        self.data_end: int | None = length
        self.zero_start: int | None = length
        self.file_end: int | None = length


def _can_write_resize(perm: int) -> bool:
    return perm & _WRITE_RESIZE == _WRITE_RESIZE


def _has_permissions(bs: BlockDriverState) -> bool:
    """Says whether the filter may preallocate now (has_prealloc_perms, R1)."""
    child = filtered(bs)
    if _can_write_resize(child.perm):
        assert not child.shared_perm & _WRITE_RESIZE, "R1: shared with others"
        return True
    assert bs.opaque.data_end is None, "R1: positions without permissions"
    return False


class PreallocateDriver(FilterDriver):
    """The driver `preallocate` (bdrv_preallocate_filter)."""

    format_name = "preallocate"
    runtime_opts = (
        Option("prealloc-align", "size", "what the length is rounded up to on preallocation", _MIB),
        Option("prealloc-size", "size", "how much to preallocate", 128 * _MIB),
    )
    mutable_opts = ("prealloc-align", "prealloc-size")
    try_preadv = pass_try_preadv

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        bs.opaque = PreallocateState(*self._take_steps(options))
        super().open(bs, options, flags)
        self._check_align(bs, bs.opaque.align)

    def _take_steps(self, options: dict[str, object]) -> tuple[int, int]:
        """Returns how much to preallocate, and up to where."""
        taken = take_options(options, self.runtime_opts)
        return taken["prealloc-size"], taken["prealloc-align"]

    def _check_align(self, bs: BlockDriverState, align: int) -> None:
        """Raises unless the child can end there."""
        what = "prealloc-align parameter of preallocate filter is not aligned to"
        if align % f.SECTOR_SIZE:
            raise invalid(f"{what} {f.SECTOR_SIZE}")
        below = filtered(bs).bs.bl.request_alignment
        if align % below:
            raise invalid(f"{what} underlying node request alignment ({below})")

    def close(self, bs: BlockDriverState) -> None:
        """Cuts off what nobody has written to; a failure has nobody to go to."""
        if bs.opaque.data_end is not None:
            try:
                _truncate_to_real_size(bs)
            except OSError:
                return

    def getlength(self, bs: BlockDriverState) -> int:
        state: PreallocateState = bs.opaque
        if state.data_end is not None:
            return state.data_end
        length = filtered(bs).bs.getlength()
        if _has_permissions(bs):
            state.set_ends(length)
        return length

    def child_resized(self, bs: BlockDriverState, child: BdrvChild) -> None:
        """While the filter has its permissions, it is what changes the length."""
        if bs.opaque.data_end is None:
            bs.length_changed()

    def reopen_prepare(
        self, bs: BlockDriverState, options: dict[str, object], flags: int
    ) -> tuple[int, int]:
        """Looks whether the file could grow in these steps (preallocate_reopen_prepare)."""
        size, align = self._take_steps(options)
        self._check_align(bs, align)
        return size, align

    def reopen_commit(self, bs: BlockDriverState, prepared: object) -> None:
        """The next step is such a one; room that there is stays (preallocate_reopen_commit)."""
        assert isinstance(prepared, tuple), "as reopen_prepare made it"
        bs.opaque.size, bs.opaque.align = prepared

    # -- permissions

    def child_perm(
        self, bs: BlockDriverState, child: BdrvChild | None, role: int, perm: int, shared: int
    ) -> tuple[int, int]:
        needed, shared = permissions.default_perms(bs, role, perm, shared)
        if _can_write_resize(perm):
            shared &= ~_WRITE_RESIZE
        return needed, shared

    def check_perm(self, bs: BlockDriverState, perm: int, shared: int) -> None:
        if bs.opaque.data_end is not None and not _can_write_resize(perm):
            _truncate_to_real_size(bs)

    def set_perm(self, bs: BlockDriverState, perm: int, shared: int) -> None:
        state: PreallocateState = bs.opaque
        if not _can_write_resize(perm):
            state.forget()
        elif state.data_end is None:
            state.set_ends(filtered(bs).bs.getlength())

    # -- requests

    def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        zero_start = bs.opaque.zero_start
        if zero_start is not None and offset + nbytes <= zero_start:
            return io.co_pwritev(filtered(bs), offset, nbytes, qiov, flags)
        return _pwritev_at_end(bs, offset, nbytes, qiov, flags)

    async def co_pwrite_zeroes(
        self, bs: BlockDriverState, offset: int, nbytes: int, flags: int
    ) -> None:
        merge = not flags & ~(f.REQ_ZERO_WRITE | f.REQ_NO_FALLBACK)
        if not await _handle_write(bs, offset, nbytes, merge):
            await filtered(bs).co_pwrite_zeroes(offset, nbytes, flags)

    async def co_truncate(
        self, bs: BlockDriverState, offset: int, exact: bool, prealloc: str, flags: int
    ) -> None:
        state: PreallocateState = bs.opaque
        if state.data_end is not None and offset > state.data_end:
            if await _grow_within_room(bs, state, offset, prealloc):
                return
            state.data_end = offset
        try:
            await filtered(bs).co_truncate(offset, exact, prealloc, flags)
        except BaseException:
            state.forget()
            raise
        if _has_permissions(bs):
            state.set_ends(offset)


async def _pwritev_at_end(
    bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
) -> None:
    await _handle_write(bs, offset, nbytes, False)
    await io.co_pwritev(filtered(bs), offset, nbytes, qiov, flags)


async def _handle_write(bs: BlockDriverState, offset: int, nbytes: int, merge: bool) -> bool:
    """Makes room where a write needs it (handle_write, R3).

    `merge`: the write is one of zeroes, and may be part of the room. True: it is, and done.
    """
    state: PreallocateState = bs.opaque
    end = offset + nbytes
    if not _has_permissions(bs):
        return False
    try:
        if state.data_end is None:
            state.data_end = filtered(bs).bs.getlength()
            if state.file_end is None:
                state.file_end = state.data_end
        if end <= state.data_end:
            if not merge and state.zero_start is not None:
                state.zero_start = max(state.zero_start, end)
            return False
        state.data_end = end
        if state.zero_start is None or not merge:
            state.zero_start = end
        if state.file_end is None:
            state.file_end = filtered(bs).bs.getlength()
        if end <= state.file_end:
            return merge and offset >= state.zero_start
        return await _make_room(bs, state, offset, end, merge)
    except OSError:
        state.file_end = None
        return False


async def _make_room(
    bs: BlockDriverState, state: PreallocateState, offset: int, end: int, merge: bool
) -> bool:
    """Lets the file grow by a large step; may raise. True: the write is part of it."""
    child = filtered(bs)
    assert state.file_end is not None
    block = child.bs.bl.request_alignment
    align = max(state.align, block)
    start = min(offset, state.file_end) if merge else state.file_end
    start = -(-start // block) * block
    stop = -(-(max(start, end) + state.size) // align) * align
    await child.co_pwrite_zeroes(start, stop - start, _FAVOUR)
    state.file_end = stop
    return merge and start <= offset


async def _grow_within_room(
    bs: BlockDriverState, state: PreallocateState, offset: int, prealloc: str
) -> bool:
    """Prepares for a longer node. True: there is room already, and that is what was asked for.

    Else the room is given up: to grow without preallocation shall not take any, and with
    `full` it shall be written to.
    """
    assert state.data_end is not None
    if state.file_end is None:
        try:
            state.file_end = filtered(bs).bs.getlength()
        except OSError as error:
            raise failed("failed to get file length", error, bs.node_name) from error
    if prealloc == "falloc":
        if offset <= state.file_end:
            state.data_end = offset
            return True
    elif state.file_end > state.data_end:
        try:
            await filtered(bs).co_truncate(state.data_end, True, "off", 0)
        except OSError as error:
            state.file_end = None
            what = "preallocate-filter: failed to drop write-zero preallocation"
            raise failed(what, error, bs.node_name) from error
        state.file_end = state.data_end
    return False


def _truncate_to_real_size(bs: BlockDriverState) -> None:
    """Cuts off the room that nobody has written to, and waits (R2)."""
    state: PreallocateState = bs.opaque
    child = filtered(bs)
    data_end = state.data_end
    assert data_end is not None
    if state.file_end is None:
        try:
            state.file_end = child.bs.getlength()
        except OSError as error:
            raise failed("Failed to get file length", error, bs.node_name) from error
    if data_end >= state.file_end:
        return
    try:
        wait.run_sync(bs.aio_context, lambda: child.co_truncate(data_end, True, "off", 0))
    except OSError as error:
        state.file_end = None
        raise failed("Failed to drop preallocation", error, bs.node_name) from error
    state.file_end = data_end
