# SPDX-License-Identifier: GPL-2.0-only
"""The NEED_CHECK bit of the header, and the timer that takes it away (patch 11 of the series).

Without a backing file nothing orders the writes of an allocation: after a crash an L2 entry may
point beyond the end of the file. So the header says "check me" before the first, and says
it no more when all is safe and nobody has allocated for five seconds.

    state          the bit   timer   first write comes   last write ends   timer fires   drained
    clean          off       off     set the bit         -                 -             -
    allocating     on        off     -                   arm               -             -
    idle           on        armed   disarm              -                 clear it      clear it

R1  The bit is in the file, safe, before any table is changed. It is cleared after what was written
    before is safe. (QEMU does not flush the first; a power cut could lose the bit alone.)
R2  The timer is armed only while nobody allocates, and it belongs to the node's context: it is
    deleted in detach, and made anew in attach, armed if the bit is set.
R3  With a backing file there is a flush between data and table instead (write.py), and no bit.
R4  A drain does not wait five seconds: it lets the timer fire at once, and waits for the writes.
    What ends during the drain clears the bit at once, too.
R5  Where the file cannot be made safe, the bit stays: the next allocation, or a move, arms the
    timer again. Where the bit itself cannot be taken away, it may be gone from the disk all the
    same. So nobody relies on it any more: the next allocation sets it again.
R6  An image that was opened dirty and could not be repaired keeps the bit, whoever closes it. (QEMU
    clears it all the same.)
Who may call it: at home in the node's context.

What once went wrong: before patch 11 the timer stayed in the main loop, whose thread then wrote the
header of an image that another thread was using. And here, a header that could not be written was
taken for one that still had the bit. On the disk it was gone, and the next power cut left an entry
that pointed beyond the end of the file, in an image that said it was clean (R5).
"""

from __future__ import annotations

from block.aio.coroutine import Coroutine
from block.aio.world import ClockType
from block.formats.qed.header import write_header
from block.formats.qed.layout import F_NEED_CHECK
from block.lean import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.context import AioContext
    from block.core.node import BlockDriverState
    from block.formats.qed.state import QedState

TIMEOUT_NS = 5_000_000_000


# -- the functions of patch 11


def detach_aio_context(bs: BlockDriverState) -> None:
    """The timer leaves the loop (bdrv_qed_detach_aio_context)."""
    s: QedState = bs.opaque
    assert s.need_check_timer is not None, "R2: detached twice"
    s.need_check_timer.delete()
    s.need_check_timer = None


def attach_aio_context(bs: BlockDriverState, ctx: AioContext) -> None:
    """It comes into another, armed if there is a bit to clear (bdrv_qed_attach_aio_context)."""
    s: QedState = bs.opaque
    s.need_check_timer = ctx.timer_new(
        ClockType.VIRTUAL, partial(_need_check_timer_cb, s), owner=bs
    )
    if may_be_cleared(s) and not bs.read_only:
        start_need_check_timer(s)


def start_need_check_timer(s: QedState) -> None:
    """Arms it for five seconds from now, of the guest's time (qed_start_need_check_timer)."""
    timer = s.need_check_timer
    assert timer is not None, "R2: armed while detached"
    timer.mod(timer.ctx.clock_ns(timer.clock) + TIMEOUT_NS)


def may_be_cleared(s: QedState) -> bool:
    """Whether the bit is set, for nothing but what we do ourselves (R6)."""
    return bool(s.header.features & F_NEED_CHECK) and s.sound


# -- when it fires


def _need_check_timer_cb(s: QedState) -> None:
    """Nobody has allocated for five seconds (qed_need_check_timer_cb)."""
    s.bs.in_flight += 1
    s.bs.aio_context.co_enter(Coroutine(_need_check_timer_entry(s)))


async def _need_check_timer_entry(s: QedState) -> None:
    """Takes the bit away and makes that safe (qed_need_check_timer_entry)."""
    try:
        async with s.allocating:
            await clear_need_check(s)
        await s.file.co_flush()
    except OSError:
        return  # R5
    finally:
        s.bs.in_flight -= 1


async def clear_need_check(s: QedState) -> None:
    """Makes all safe, then takes the bit away; with `allocating` (R1)."""
    if may_be_cleared(s):
        await s.file.co_flush()
        s.header.features &= ~F_NEED_CHECK
        await write_header(s)


def drain_begin(s: QedState) -> None:
    """Lets an armed timer fire now (bdrv_qed_drain_begin, R4)."""
    timer = s.need_check_timer
    if timer is not None and timer.pending:
        timer.cancel()
        _need_check_timer_cb(s)


# -- around allocating writes


def begin_allocating(s: QedState) -> None:
    """An allocating write comes: it may have to wait for others, the timer may not fire (R2)."""
    s.allocating_writes += 1
    if s.need_check_timer is not None:
        s.need_check_timer.cancel()


def end_allocating(s: QedState) -> None:
    """It is through (qed_aio_complete)."""
    s.allocating_writes -= 1
    if s.allocating_writes or not may_be_cleared(s):
        return
    if s.bs.quiesce_counter:
        _need_check_timer_cb(s)  # R4
    else:
        start_need_check_timer(s)


async def set_need_check(s: QedState) -> None:
    """Before the first change of a table; with `allocating` (qed_should_set_need_check, R1, R3)."""
    if s.bs.backing is not None or s.header.features & F_NEED_CHECK:
        return
    s.header.features |= F_NEED_CHECK
    try:
        await write_header(s)
        await s.file.co_flush()
    except OSError:
        s.header.features &= ~F_NEED_CHECK
        raise
