# SPDX-License-Identifier: GPL-2.0-only
"""As it was before a076972a4d: only a poll took deleted bottom halves out of the list."""

from __future__ import annotations

from block.aio.context import AioContext


def close(self: AioContext) -> None:
    if self.closed:
        return
    assert self._current() == self._home, self.stranger()
    if self._thread_pool is not None:
        self._thread_pool.close()
    for bh in list(self._bh_registry):
        bh.delete()
    for timer in list(self._timer_registry):
        timer.delete()
    self.fds.close()
    self._notifier.close()
    self._maker = self._home = self._awake = 0
    self.closed = True


FORMS = {"block.aio.context:AioContext.close": close}
