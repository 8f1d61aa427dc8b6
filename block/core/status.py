# SPDX-License-Identifier: GPL-2.0-only
"""Block status: where a range's bytes are, and whether they read as zeroes (block.h, io.c).

    DATA ZERO OFFSET_VALID
     t    t        t       read as zero, and the file holds zeroes at the offset
     t    f        t       read as what the file holds at the offset
     f    t        t       preallocated: read as zero whatever the file holds
     f    f        t       preallocated, but read from the backing file
     t    t        f       preallocated, read as zero, at an unknown offset
     t    f        f       data in an unknown place
     f    t        f       not allocated or nobody knows where; read as zero
     f    f        f       not allocated; read from the backing file

    ALLOCATED  this layer decides what is read there (set by the core)
    EOF        the answer reaches the end of this layer (set by the core)
    RAW        from a driver: ask the returned file at the returned offset instead
    RECURSE    from a driver: ask the file whether it knows more about zeroes

R1  An answer holds for at least one byte, except at the end: there it is (EOF, 0).
R2  A backing file that is shorter than its overlay reads as zeroes beyond its end, and
    those count as allocated in it.
R3  The last sector of a node may reach beyond the end of its file (raw with an odd offset). What
    is there reads as zeroes.
Who may call it: coroutines in the node's context; the tree must not change meanwhile.
"""

from __future__ import annotations

from block.core import flags as f

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from block.core.edge import BdrvChild
    from block.core.node import BlockDriverState

# (BDRV_BLOCK_* flags, bytes, offset in file, file)
Status: TypeAlias = "tuple[int, int, int, BlockDriverState | None]"

_DECIDED = f.BDRV_BLOCK_DATA | f.BDRV_BLOCK_ZERO
_PLACED = f.BDRV_BLOCK_DATA | f.BDRV_BLOCK_OFFSET_VALID


def filter_or_cow_child(bs: BlockDriverState) -> BdrvChild | None:
    """Returns the edge that reads go on through where this layer has nothing."""
    if bs.drv is None:
        return None
    if bs.drv.is_filter:
        return bs.file or bs.backing
    return bs.backing


def filter_or_cow_bs(bs: BlockDriverState) -> BlockDriverState | None:
    """Returns the node at the end of that edge (bdrv_filter_or_cow_bs)."""
    child = filter_or_cow_child(bs)
    return child.bs if child is not None else None


def skip_filters(bs: BlockDriverState) -> BlockDriverState:
    """Returns the first node from here down that is no filter (bdrv_skip_filters)."""
    while bs.drv is not None and bs.drv.is_filter and (below := filter_or_cow_bs(bs)) is not None:
        bs = below
    return bs


async def co_block_status(
    bs: BlockDriverState, want_zero: bool, offset: int, nbytes: int
) -> Status:
    """Asks one layer about `nbytes` bytes at most (bdrv_co_block_status).

    `want_zero` False: only ALLOCATED matters, and long answers are better than exact ones.
    """
    total = bs.getlength()
    if offset >= total:
        return f.BDRV_BLOCK_EOF, 0, 0, None
    if nbytes == 0:
        return 0, 0, 0, None
    nbytes = min(nbytes, total - offset)
    bs.in_flight += 1
    try:
        ret, pnum, where, file = await _ask_driver(bs, want_zero, offset, nbytes)
    finally:
        bs.in_flight -= 1
    if offset + pnum == total:
        ret |= f.BDRV_BLOCK_EOF
    return ret, pnum, where, file


async def co_block_statuses(bs: BlockDriverState, offset: int, nbytes: int) -> list[Status]:
    """As co_block_status with want_zero, for one extent or for many in a row."""
    drv = bs.drv
    nbytes = min(nbytes, bs.getlength() - offset)
    if drv is not None and nbytes > 0 and "co_block_statuses" in drv.hooks:
        bs.in_flight += 1
        try:
            answers = await drv.co_block_statuses(bs, offset, nbytes)
        finally:
            bs.in_flight -= 1
        if answers:
            return await _complete_all(bs, offset, answers)
    return [await co_block_status(bs, True, offset, nbytes)]


async def _complete_all(bs: BlockDriverState, offset: int, answers: list[Status]) -> list[Status]:
    finished: list[Status] = []
    zeroes: _Zeroes | None = None
    allocated = f.BDRV_BLOCK_ALLOCATED
    for ret, pnum, where, file in answers:
        if ret & f.BDRV_BLOCK_RECURSE and file is not None:
            zeroes = zeroes or _Zeroes(file)
            finished += await zeroes.divide(ret & ~f.BDRV_BLOCK_RECURSE | allocated, pnum, where)
        elif ret & _DECIDED:
            finished.append((ret | allocated, pnum, where, file))
        else:
            finished.append((_complete(bs, True, offset, ret), pnum, where, file))
        offset += pnum
    return finished


class _Zeroes:
    """What a file has said of zeroes last: its extents are often longer than those that it is
    asked about, one after the other."""

    def __init__(self, file: BlockDriverState) -> None:
        self._file = file
        self._start = self._end = 0
        self._zero = False

    async def divide(self, ret: int, nbytes: int, where: int) -> list[Status]:
        """Divides data into what the file says are zeroes, and what not."""
        pieces: list[Status] = []
        while nbytes:
            if not self._start <= where < self._end:
                await self._ask(where, nbytes)
            size = min(nbytes, self._end - where)
            zero = f.BDRV_BLOCK_ZERO if self._zero else 0
            pieces.append((ret | zero, size, where, self._file))
            where, nbytes = where + size, nbytes - size
        return pieces

    async def _ask(self, where: int, nbytes: int) -> None:
        """Asks as far as the file goes; behind its end there are zeroes. A failure only means:
        nobody knows."""
        total = self._file.getlength()
        self._start, self._end, self._zero = where, where + nbytes, where >= total
        if where >= total:
            return
        try:
            ret, size, _, _ = await co_block_status(self._file, True, where, total - where)
        except OSError:
            return
        self._end, self._zero = where + size, bool(ret & f.BDRV_BLOCK_ZERO)


async def _ask_driver(bs: BlockDriverState, want_zero: bool, offset: int, nbytes: int) -> Status:
    drv = bs.drv
    assert drv is not None
    if "co_block_status" in drv.hooks:
        start = offset // bs.bl.request_alignment * bs.bl.request_alignment
        end = -(-(offset + nbytes) // bs.bl.request_alignment) * bs.bl.request_alignment
        answer = await drv.co_block_status(bs, want_zero, start, end - start)
        ret, pnum, where, file = _clamp(bs, answer, offset - start, nbytes)
    elif drv.is_filter and (child := filter_or_cow_child(bs)) is not None:
        ret, pnum, where, file = _RAW, nbytes, offset, child.bs
    else:
        ret = f.BDRV_BLOCK_DATA | f.BDRV_BLOCK_ALLOCATED
        if drv.protocol_name is None:
            return ret, nbytes, 0, None
        return ret | f.BDRV_BLOCK_OFFSET_VALID, nbytes, offset, bs
    if ret & f.BDRV_BLOCK_RAW:
        assert ret & f.BDRV_BLOCK_OFFSET_VALID, "RAW needs a place"
        assert file is not None, "RAW needs a file"
        ret, size, where, file = await co_block_status(file, want_zero, where, pnum)
        if not size:  # behind its end, though not behind ours (R3)
            return f.BDRV_BLOCK_ZERO | f.BDRV_BLOCK_ALLOCATED, pnum, 0, None
        return ret & ~f.BDRV_BLOCK_EOF, size, where, file
    ret = _complete(bs, want_zero, offset, ret)
    recurse = want_zero and ret & f.BDRV_BLOCK_RECURSE and not ret & f.BDRV_BLOCK_ZERO
    if recurse and ret & _PLACED == _PLACED and file is not None and file is not bs:
        ret, pnum = await _look_for_zeroes(file, where, ret, pnum)
    return ret & ~f.BDRV_BLOCK_RECURSE, pnum, where, file


_RAW = f.BDRV_BLOCK_RAW | f.BDRV_BLOCK_OFFSET_VALID


def _clamp(bs: BlockDriverState, answer: Status, skipped: int, nbytes: int) -> Status:
    """Cuts an aligned answer back to what was asked."""
    ret, pnum, where, file = answer
    assert pnum > skipped, "R1: an empty answer"
    assert pnum % bs.bl.request_alignment == 0, "an answer that is not aligned"
    if ret & f.BDRV_BLOCK_OFFSET_VALID:
        where += skipped
    return ret, min(pnum - skipped, nbytes), where, file


def _complete(bs: BlockDriverState, want_zero: bool, offset: int, ret: int) -> int:
    """Adds what the core knows: ALLOCATED, and zeroes where no backing file has anything."""
    assert bs.drv is not None
    if ret & (f.BDRV_BLOCK_DATA | f.BDRV_BLOCK_ZERO):
        return ret | f.BDRV_BLOCK_ALLOCATED
    if not (want_zero and bs.drv.supports_backing):
        return ret
    if bs.backing is None or offset >= bs.backing.bs.getlength():
        ret |= f.BDRV_BLOCK_ZERO
    return ret


async def _look_for_zeroes(
    file: BlockDriverState, where: int, ret: int, pnum: int
) -> tuple[int, int]:
    """Asks the file whether data are zeroes there; a failure only means: nobody knows."""
    try:
        ret2, file_pnum, _, _ = await co_block_status(file, True, where, pnum)
    except OSError:
        return ret, pnum
    if ret2 & f.BDRV_BLOCK_EOF and (not file_pnum or ret2 & f.BDRV_BLOCK_ZERO):
        return ret | f.BDRV_BLOCK_ZERO, pnum
    return ret | ret2 & f.BDRV_BLOCK_ZERO, file_pnum


async def co_block_status_above(
    bs: BlockDriverState,
    base: BlockDriverState | None,
    want_zero: bool,
    offset: int,
    nbytes: int,
    include_base: bool = False,
) -> Status:
    """Asks layer after layer, down to `base`, until one decides (bdrv_co_block_status_above)."""
    ret, pnum, where, file = await co_block_status(bs, want_zero, offset, nbytes)
    if pnum == 0 or ret & f.BDRV_BLOCK_ALLOCATED or (bs is base and include_base):
        return ret, pnum, where, file
    end = offset + pnum if ret & f.BDRV_BLOCK_EOF else -1
    below = filter_or_cow_bs(bs)
    while below is not None and (below is not base or include_base):
        nbytes = pnum
        ret, pnum, where, file = await co_block_status(below, want_zero, offset, nbytes)
        if pnum == 0:
            ret = f.BDRV_BLOCK_ZERO | f.BDRV_BLOCK_ALLOCATED
            pnum, where, file = nbytes, 0, below
            break
        ret &= ~f.BDRV_BLOCK_EOF
        if ret & f.BDRV_BLOCK_ALLOCATED or below is base:
            break
        below = filter_or_cow_bs(below)
    if offset + pnum == end:
        ret |= f.BDRV_BLOCK_EOF
    return ret, pnum, where, file


async def co_is_allocated(bs: BlockDriverState, offset: int, nbytes: int) -> tuple[bool, int]:
    """Says whether this layer alone decides a range, and for how far (bdrv_is_allocated)."""
    ret, pnum, _, _ = await co_block_status_above(bs, bs, False, offset, nbytes, True)
    return bool(ret & f.BDRV_BLOCK_ALLOCATED), pnum


async def co_is_allocated_above(
    top: BlockDriverState,
    base: BlockDriverState | None,
    include_base: bool,
    offset: int,
    nbytes: int,
) -> tuple[bool, int]:
    """Says whether a layer from `top` down to `base` decides (bdrv_is_allocated_above)."""
    ret, pnum, _, _ = await co_block_status_above(top, base, False, offset, nbytes, include_base)
    return bool(ret & f.BDRV_BLOCK_ALLOCATED), pnum
