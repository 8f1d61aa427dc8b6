# SPDX-License-Identifier: GPL-2.0-only
"""As it was before 21a03d17f2: the notifier is one descriptor among others; its handler clears it.

Handlers run after the bottom halves. Whoever schedules one between the two rings a bell that is
silenced at once.
"""

from __future__ import annotations

from collections.abc import Iterable

from block.aio.bh import SCHEDULED
from block.aio.context import MAX_SKIPPED_WAITS, AioContext
from block.aio.poller import READABLE


def poll(self: AioContext, blocking: bool) -> bool:
    current, bhs, fds = self._current, self._bhs, self.fds
    assert current() == self._home, self.stranger()

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

    # Descriptors, then timers. The notifier is a descriptor like others.
    if self._notified:
        self._accept_notify()
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
    return progress


FORMS = {"block.aio.context:AioContext.poll": poll}
