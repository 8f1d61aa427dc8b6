# SPDX-License-Identifier: GPL-2.0-only
"""As it was before eabc977973: one flag says "somebody is dispatching, so nobody must be woken".

The flag is the context's, but two threads can be in one context: while the main loop sleeps, it
does not hold the lock, and a vCPU may poll.
"""

from __future__ import annotations

from collections.abc import Iterable

from block.aio.context import AioContext
from block.aio.wakeup import WakeUp

_dispatching: dict[WakeUp, bool] = {}  # ctx->dispatching


def notify(self: WakeUp) -> None:
    if not _dispatching.get(self):
        self._notifier.set()


def poll(self: AioContext, blocking: bool) -> bool:
    was_dispatching = _dispatching.get(self, False)
    # If we do not sleep, all will be looked at before the next sleep.
    _dispatching[self] = not blocking
    timeout_ns = self.timeout_ns() if blocking else 0
    ready = self.fds.poller.wait(timeout_ns)
    self.fds.pass_number = this_pass = self.fds.pass_number + 1
    _dispatching[self] = True
    self._notifier.test_and_clear()
    progress = self.run_bottom_halves()
    for fd, events in ready:
        handler = self.fds.enabled.get(fd)
        if handler is not None and handler.pass_number <= this_pass:
            handler.pass_number = this_pass
            progress = self.fds.call(handler, events, this_pass) or progress
    progress = self._run_timers() or progress
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
