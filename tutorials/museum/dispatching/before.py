# SPDX-License-Identifier: GPL-2.0-only
"""As it was before eabc977973: one flag says "somebody is dispatching, so nobody must be woken".

The flag is the context's, but two threads can be in one context: while the main loop sleeps, it
does not hold the lock, and a vCPU may poll.
"""

from __future__ import annotations

from collections.abc import Iterable

from block.aio.bh import SCHEDULED
from block.aio.context import MAX_SKIPPED_WAITS, AioContext
from block.aio.poller import READABLE
from block.aio.wakeup import WakeUp

_dispatching: dict[WakeUp, bool] = {}  # ctx->dispatching


def notify(self: WakeUp) -> None:
    if not _dispatching.get(self):
        self._notifier.set()


def poll(self: AioContext, blocking: bool) -> bool:
    current, bhs, fds = self._current, self._bhs, self.fds
    assert current() == self._home, self.stranger()
    # If we do not sleep, all will be looked at before the next sleep.
    was_dispatching = _dispatching.get(self, False)
    _dispatching[self] = not blocking

    # Wait. A loop that is busy with bottom halves looks at descriptors only now and then,
    # and one that is busy with descriptors need not prepare for a sleep.
    ready: Iterable[tuple[int, int]] = ()
    if bhs and self._skipped_waits < MAX_SKIPPED_WAITS:
        self._skipped_waits += 1
    else:
        self._skipped_waits = 0
        look = fds.poller.look
        ready = look(0)
        if blocking and not ready:
            ready = self._wait()
        elif self.polling.started:
            ready = [*ready, *self.polling.look()]
    fds.pass_number = this_pass = fds.pass_number + 1

    _dispatching[self] = True
    self._notifier.test_and_clear()

    # Bottom halves: those that are there now. A nested poll takes over what we have left.
    progress = False
    if bhs:
        for _ in self._take_bhs():
            bh = bhs.popleft()
            if type(bh) is tuple:
                progress = True
                bh[0]()
            elif bh.state == SCHEDULED:
                bh.state = 0
                progress = True
                bh.callback()
    if self._idle_bhs:
        self._run_idle_bhs()

    # Descriptors, then timers.
    enabled = fds.enabled
    for fd, events in ready:
        handler = enabled.get(fd)
        if handler is None or handler.pass_number > this_pass:
            continue
        handler.pass_number = this_pass
        reader = handler.reader
        if reader is not None and events & READABLE:
            progress = True
            reader()
        elif fds.call(handler, events, this_pass):
            progress = True
    if self._timers_armed and self._run_timers():
        progress = True
    _dispatching[self] = was_dispatching
    return progress


def begin_prepare(self: WakeUp) -> bool:
    self._awake = 0
    return False


def end_prepare(self: WakeUp) -> None:
    self._awake = self._home


def sleep(self: WakeUp, timeout_ns: int) -> Iterable[tuple[int, int]]:
    return self.fds.poller.wait(timeout_ns)


FORMS = {
    "block.aio.wakeup:WakeUp.notify": notify,
    "block.aio.wakeup:WakeUp.sleep": sleep,
    "block.aio.wakeup:WakeUp.begin_prepare": begin_prepare,
    "block.aio.wakeup:WakeUp.end_prepare": end_prepare,
    "block.aio.context:AioContext.poll": poll,
}
