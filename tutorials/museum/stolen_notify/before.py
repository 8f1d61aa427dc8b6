# SPDX-License-Identifier: GPL-2.0-only
"""As it was before b37548fcd1: a poll that does not sleep accepts the notify of one that does.

Two threads can be in one loop's poll, for since 2017 an IOThread polls without the lock of its
context (`_run`, `acquire`); whoever holds the lock may poll meanwhile. A poll makes a list of what
it waits for, and what is to be watched later needs a notify (`poll`). The move of a tree is that
of March 2017 (c2b6428d38): it drains, then runs what is left in the old loop, without waiting.
"""

from __future__ import annotations

from collections.abc import Iterable

from block.aio.bh import SCHEDULED
from block.aio.context import AioContext
from block.aio.home import Home
from block.aio.iothread import IOThread
from block.aio.poller import READ
from block.aio.wakeup import WakeUp
from block.core import drain
from block.core.context import (
    _assert_main_thread,
    _tell_users,
    attach_aio_context,
    check_set_aio_context,
    detach_aio_context,
)
from block.core.edge import BdrvChild
from block.core.node import BlockDriverState


def notify(self: WakeUp) -> None:
    with self._notify_lock:
        if self._notify_me:
            self._notifier.set()
            self._notified = True


def accept_notify(ctx: AioContext) -> None:
    with ctx._notify_lock:
        if ctx._notified:
            ctx._notified = False
            ctx._notifier.test_and_clear()


def poll(self: AioContext, blocking: bool) -> bool:
    if blocking:
        self._notify_me += 2
    ready = look(self, blocking)
    if blocking:
        self._notify_me -= 2
    accept_notify(self)  # the mistake: whether it was waited for or not
    self.fds.pass_number = this_pass = self.fds.pass_number + 1
    progress = run_bottom_halves(self)
    for fd, events in ready:
        handler = self.fds.enabled.get(fd)
        if handler is not None and handler.pass_number <= this_pass:
            handler.pass_number = this_pass
            progress = self.fds.call(handler, events, this_pass) or progress
    return progress


def look(ctx: AioContext, blocking: bool) -> Iterable[tuple[int, int]]:
    """Waits for what is watched now; what is added meanwhile is not in the list (ppoll)."""
    poller = ctx.world.new_poller()
    poller.update(ctx._notifier.fileno(), READ)
    for fd, handler in list(ctx.fds.enabled.items()):
        poller.update(fd, handler.events())
    ready = poller.wait(ctx.timeout_ns() if blocking else 0)
    poller.close()
    return ready


def run_bottom_halves(ctx: AioContext) -> bool:
    """Runs those that are there now; another thread may take some of them."""
    progress = False
    for _ in range(len(ctx._bhs)):
        bh = ctx._bhs.popleft() if ctx._bhs else None
        if type(bh) is tuple:
            progress = True
            bh[0]()
        elif bh is not None and bh.state == SCHEDULED:
            bh.state = 0
            progress = True
            bh.callback()
    return progress


def acquire(self: Home) -> None:
    if self.lock.lock():
        self._home = self._current()
        self._awake = 0  # another thread may sleep here, so each change notifies


def _run(self: IOThread) -> None:
    me = self.world.current()
    self.world.contexts[me] = self.ctx
    try:
        while self._running:
            self._poll()
    finally:
        del self.world.contexts[me]


def set_aio_context(
    bs: BlockDriverState, new_context: AioContext, ignore: BdrvChild | None = None
) -> None:
    old_context = bs.aio_context
    _assert_main_thread(old_context)
    if new_context is old_context:
        return
    check_set_aio_context(bs, new_context, ignore)
    with old_context:
        drain.drain(bs)
        while old_context.poll(False):
            pass
        detach_aio_context(bs)
        with new_context:
            attach_aio_context(bs, new_context)
            _tell_users({bs: None}, new_context)


FORMS = {
    "block.aio.context:AioContext.poll": poll,
    "block.core.context:set_aio_context": set_aio_context,
    "block.aio.wakeup:WakeUp.notify": notify,
    "block.aio.home:Home.acquire": acquire,
    "block.aio.iothread:IOThread._run": _run,
}
