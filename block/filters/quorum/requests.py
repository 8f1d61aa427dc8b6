# SPDX-License-Identifier: GPL-2.0-only
"""Requests of a quorum: all children are asked side by side, then their answers are counted.

    read         each child reads into a buffer of its own; the answer with most votes is handed up
    read, fifo   one child after the other until one does not fail; nothing is compared
    write        every child writes; it succeeded if at least vote-threshold children did
    flush        as a write
    status       zeroes where all children say so, else data

R1  Fewer successes than vote-threshold: the request fails with the error that most children have.
    Enough successes but no version with so many votes: EIO. Both are a QUORUM_FAILURE.
R2  A child that failed or was outvoted is told of in a QUORUM_REPORT_BAD; that alone fails nothing.
R3  What is compared is what is handed up and what a repair writes: the private buffers. A guest
    that changes its memory meanwhile changes none of the three.
R4  With rewrite-corrupted a version that lost is overwritten by the winner. Writes are kept out
    for so long, and the votes are counted again when they are out: a copy that is merely behind,
    since a write is on its way to it, is not damaged, and must not get old bytes after new ones.
Who may call it: the driver, in coroutines of the node.

What once went wrong: QEMU repairs without R4. A write that reaches a child between the vote and
the repair is lost there, although the guest was told that it is done.
"""

from __future__ import annotations

import errno

from block.aio.co_parallel import co_parallel
from block.core import flags as f
from block.core.align import blockalign
from block.core.error import BlockError, errno_of
from block.core.iov import iov_difference, iov_from_bytes
from block.core.status import co_block_status_above
from block.core.verify import mismatch
from block.filters.quorum import vote
from block.filters.quorum.tell import report_bad, report_failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.iov import Iov
    from block.core.node import BlockDriverState
    from block.core.status import Status
    from block.filters.quorum.state import QuorumState


class Ballot:
    """What the children answered to one read: a buffer each, and who failed."""

    __slots__ = ("answers", "failures", "nbytes", "offset")

    def __init__(self, offset: int, nbytes: int, count: int) -> None:
        self.offset = offset
        self.nbytes = nbytes
        self.answers = [blockalign(nbytes) for _ in range(count)]
        self.failures: list[OSError | None] = []

    def voters(self) -> list[int]:
        """Returns the children that answered."""
        return [index for index, error in enumerate(self.failures) if error is None]

    def agree(self) -> bool:
        """Whether all answers are the same."""
        first, *others = (bytes(self.answers[index]) for index in self.voters())
        return all(other == first for other in others)


# -- reads


async def read_quorum(bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> None:
    """Reads from all children and hands up what most of them say (read_quorum_children)."""
    s: QuorumState = bs.opaque
    ballot = await _ask(s, offset, nbytes)
    if s.rewrite and ballot.voters() and not ballot.agree():
        async with s.repairs.writing():  # R4
            ballot = await _ask(s, offset, nbytes)
            elected = _elect(bs, ballot)
            await _repair(s, ballot, elected)
    else:
        elected = _elect(bs, ballot)
    iov_from_bytes(qiov, 0, ballot.answers[elected[0]])


async def _ask(s: QuorumState, offset: int, nbytes: int) -> Ballot:
    ballot = Ballot(offset, nbytes, len(s.children))
    ballot.failures = await co_parallel(
        *(
            child.co_preadv(offset, nbytes, [buffer])
            for child, buffer in zip(s.children, ballot.answers, strict=True)
        )
    )
    return ballot


def _elect(bs: BlockDriverState, ballot: Ballot) -> list[int]:
    """Returns the children whose answer counts, or raises (quorum_vote)."""
    s: QuorumState = bs.opaque
    _check_enough(bs, "read", ballot.offset, ballot.nbytes, ballot.failures)
    if s.is_blkverify:
        _compare(bs, ballot)
        return [0]
    if ballot.agree():
        return ballot.voters()
    counted = vote.versions((index, bytes(ballot.answers[index])) for index in ballot.voters())
    _, elected = vote.winner(counted)
    if len(elected) < s.threshold:
        report_failure(bs, ballot.offset, ballot.nbytes)
        message = (
            f"quorum: at most {len(elected)} of {len(s.children)} children say the same at offset "
            f"{ballot.offset}, vote-threshold is {s.threshold}"
        )
        raise BlockError(errno.EIO, message, bs.node_name, "quorum", ballot.offset)
    for _, losers in counted:
        if losers != elected:
            for index in reversed(losers):
                report_bad("read", ballot.offset, ballot.nbytes, s.children[index])
    return elected


def _compare(bs: BlockDriverState, ballot: Ballot) -> None:
    """In blkverify mode two answers are the same, or the process is asked (quorum_compare)."""
    first, second = ballot.answers
    difference = iov_difference([first], [second])
    if difference >= 0:
        where = ballot.offset + difference
        message = (
            f"quorum: offset={ballot.offset} bytes={ballot.nbytes} "
            f"contents mismatch at offset {where}"
        )
        raise mismatch(message, bs.node_name, "quorum", where)


async def _repair(s: QuorumState, ballot: Ballot, elected: list[int]) -> None:
    """Overwrites what was outvoted; a child that cannot be repaired stays as it is
    (quorum_rewrite_bad_versions, R4)."""
    right = [ballot.answers[elected[0]]]
    wrong = [index for index in ballot.voters() if index not in elected]
    await co_parallel(
        *(s.children[index].co_pwritev(ballot.offset, ballot.nbytes, right) for index in wrong)
    )


async def read_fifo(bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> None:
    """Reads from the first child that can; if none can, the last error counts (read_fifo_child)."""
    s: QuorumState = bs.opaque
    for child in s.children:
        try:
            await child.co_preadv(offset, nbytes, qiov)
        except OSError as error:
            report_bad("read", offset, nbytes, child, error)
            failure = error
        else:
            return
    raise failure


# -- writes


async def write(
    bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov | None, flags: int
) -> None:
    """Writes to all children; a vector of None means zeroes (quorum_co_pwritev)."""
    s: QuorumState = bs.opaque
    if s.rewrite:
        async with s.repairs.reading():  # R4
            await _write(bs, offset, nbytes, qiov, flags)
    else:
        await _write(bs, offset, nbytes, qiov, flags)


async def _write(
    bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov | None, flags: int
) -> None:
    s: QuorumState = bs.opaque
    failures = await co_parallel(
        *(
            child.co_pwrite_zeroes(offset, nbytes, flags)
            if qiov is None
            else child.co_pwritev(offset, nbytes, qiov, flags)
            for child in s.children
        )
    )
    _check_enough(bs, "write", offset, nbytes, failures)


async def flush(bs: BlockDriverState) -> None:
    """Flushes all children (quorum_co_flush); no QUORUM_FAILURE, as in QEMU."""
    s: QuorumState = bs.opaque
    failures = await co_parallel(*(child.co_flush() for child in s.children))
    _report_failed(s, "flush", 0, 0, failures)
    if failures.count(None) < s.threshold:
        raise _most_frequent(failures)


# -- counting failures


def _check_enough(
    bs: BlockDriverState, kind: str, offset: int, nbytes: int, failures: list[OSError | None]
) -> None:
    """Raises where fewer children than the threshold succeeded (quorum_has_too_much_io_failed)."""
    s: QuorumState = bs.opaque
    _report_failed(s, kind, offset, nbytes, failures)
    if failures.count(None) < s.threshold:
        report_failure(bs, offset, nbytes)
        raise _most_frequent(failures)


def _report_failed(
    s: QuorumState, kind: str, offset: int, nbytes: int, failures: list[OSError | None]
) -> None:
    for child, error in zip(s.children, failures, strict=True):
        if error is not None:
            report_bad(kind, offset, nbytes, child, error)


def _most_frequent(failures: list[OSError | None]) -> OSError:
    """Returns the error that most children have; the votes are their errnos (quorum_vote_error)."""
    failed = {index: error for index, error in enumerate(failures) if error is not None}
    votes = ((index, errno_of(error)) for index, error in failed.items())
    _, voters = vote.winner(vote.versions(votes))
    return failed[voters[0]]


# -- status


async def block_status(bs: BlockDriverState, want_zero: bool, offset: int, nbytes: int) -> Status:
    """Zeroes, as far as all children say so; else data, as far as one says so
    (quorum_co_block_status)."""
    s: QuorumState = bs.opaque
    zeroes, data = nbytes, 0
    for child in s.children:
        try:
            ret, pnum, _, _ = await co_block_status_above(child.bs, None, want_zero, offset, nbytes)
        except OSError as error:
            report_bad("read", offset, nbytes, child, error)
            data = nbytes
            break
        if ret & f.BDRV_BLOCK_ZERO:
            zeroes = min(zeroes, pnum)
        else:
            data = max(data, pnum)
    if data:
        return f.BDRV_BLOCK_DATA, data, 0, None
    return f.BDRV_BLOCK_ZERO, zeroes, 0, None
