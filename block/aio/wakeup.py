# SPDX-License-Identifier: GPL-2.0-only
"""Sleeping, and being woken (async.c: aio_notify, aio_notify_accept; aio-posix.c).

How a wake-up is not lost (2015, in the form of 2020). notify() first sets `_notified`, then asks
for `_notify_me`; whoever sleeps first raises `_notify_me`, then asks for `_notified`, and does not
sleep if it is set. Whoever comes second sees the other. The thread at home needs no wake-up for
what it does itself, so it saves the whole business: it is `_awake`.

R1  notify may be called from any thread; all else is for home.
R2  A notify that comes before the sleep ends it as well.
R3  Between `prepare` and `end_prepare` a foreign loop sleeps for us, and nobody counts as awake.

State that several threads write: `_notified`, `_notify_me`, `_kicked`, under `_notify_lock`.
_notify_me is written only by home, which needs the lock to raise it, not to lower it: whoever
still sees it up sets the notifier in vain. Its bit 0 is the foreign loop's.

What went wrong here once:
    eabc977973 (2015)  one flag, "dispatching", let notify be skipped while another thread slept
                       in poll. `_notify_me` says that somebody sleeps, not that somebody runs.
    ca96ac44dc (2015)  a notify was dropped because nobody slept yet; the holder then slept
                       without knowing of the thread that wanted the lock. `_notified` stays
                       set until a poll returns.
"""

from __future__ import annotations

from block.aio.fd_handler import FdHandlers
from block.aio.home import Home
from block.aio.world import World

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class WakeUp(Home):
    """A sleep that any thread can end."""

    __slots__ = ("_kicked", "_notified", "_notifier", "_notify_lock", "fds")

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name, world)
        self.fds = FdHandlers(world.new_poller())
        self._notify_lock = world.new_lock()
        self._notified = False
        self._kicked = False
        self._notifier = world.new_notifier()
        self.fds.watch_notifier(self._notifier)

    def notify(self) -> None:
        """Makes the next or the present poll(True) return; any thread (aio_notify)."""
        with self._notify_lock:
            self._notified = True
            if self._notify_me and not self._kicked:
                self._kicked = True
                self._notifier.set()

    def sleep(self, timeout_ns: int) -> Iterable[tuple[int, int]]:
        """Waits for descriptors or a notify, in ns, -1 for ever."""
        with self._notify_lock:
            self._notify_me += 2
            if self._notified:
                timeout_ns = 0
        try:
            return self.fds.poller.wait(timeout_ns)
        finally:
            self._notify_me -= 2

    def _accept_notify(self) -> None:
        """Takes note of all notifies so far (aio_notify_accept)."""
        with self._notify_lock:
            self._notified = False
            if self._kicked:
                self._kicked = False
                self._notifier.test_and_clear()
            if not self._notify_me & 1:
                self._awake = self._home

    def _wake(self) -> None:
        """Lets a foreign loop that sleeps in our stead look again."""
        if self._awake != self._current():
            self.notify()

    def begin_prepare(self) -> bool:
        """A foreign loop will sleep for us; whether it must not, because we were notified."""
        with self._notify_lock:
            self._notify_me |= 1
            notified = self._notified
        self._awake = 0
        return notified

    def end_prepare(self) -> None:
        """The foreign loop does not sleep for us any more, and will not dispatch."""
        assert self._current() == self._home, self.stranger()
        self._awake = self._home
        with self._notify_lock:
            self._notify_me &= ~1
