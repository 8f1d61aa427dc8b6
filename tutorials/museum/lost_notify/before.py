# SPDX-License-Identifier: GPL-2.0-only
"""As it was before ca96ac44dc: a notify is forgotten if nobody sleeps yet.

For a bottom half that did no harm: whoever goes to sleep looks for those after it has said so.
But who waits for the lock schedules none.
"""

from __future__ import annotations

from collections.abc import Iterable

from block.aio.context import AioContext
from block.aio.wakeup import WakeUp


def notify(self: WakeUp) -> None:
    if self._notify_me:
        self._notifier.set()


def _wait(self: AioContext) -> Iterable[tuple[int, int]]:
    self._notify_me += 2
    timeout_ns = self.timeout_ns()
    ready = self.fds.poller.wait(timeout_ns)
    self._notify_me -= 2
    self._notifier.test_and_clear()
    return ready


FORMS = {
    "block.aio.wakeup:WakeUp.notify": notify,
    "block.aio.context:AioContext._wait": _wait,
}
