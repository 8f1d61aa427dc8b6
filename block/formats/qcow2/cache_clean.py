# SPDX-License-Identifier: GPL-2.0-only
"""The timer that empties the caches of what nobody uses (cache_clean_timer_cb).

A guest that reads through its whole disk once leaves 32 MiB of tables behind. Every
cache-clean-interval seconds of the guest's time, tables go that were not asked for since the
last time and are as the file has them. 0: no timer.

R1  The timer belongs to the node's context: deleted in detach, made anew in attach.
Who may call it: at home in the node's context, or in the main thread while the image is opened,
reopened or closed.
"""

from __future__ import annotations

from block.aio.world import ClockType
from block.lean import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.context import AioContext
    from block.formats.qcow2.state import Qcow2State

SECOND_NS = 1_000_000_000


def start(s: Qcow2State, ctx: AioContext) -> None:
    """Arms the timer, in a context (cache_clean_timer_init)."""
    assert s.clean_timer is None, "R1: attached twice"
    if s.clean_interval:
        s.clean_timer = ctx.timer_new(ClockType.VIRTUAL, partial(_clean, s), owner=s.bs)
        _arm(s)


def stop(s: Qcow2State) -> None:
    """Takes it away (cache_clean_timer_del)."""
    if s.clean_timer is not None:
        s.clean_timer.delete()
        s.clean_timer = None


def _arm(s: Qcow2State) -> None:
    timer = s.clean_timer
    assert timer is not None, "R1: armed while detached"
    timer.mod(timer.ctx.clock_ns(timer.clock) + s.clean_interval * SECOND_NS)


def _clean(s: Qcow2State) -> None:
    s.l2_cache.clean_unused()
    s.refcount_cache.clean_unused()
    _arm(s)
