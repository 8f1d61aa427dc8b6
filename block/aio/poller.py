# SPDX-License-Identifier: GPL-2.0-only
"""What waits for file descriptors (fdmon-epoll.c, fdmon-poll.c).

A poller knows descriptors and event masks, no handlers. Two forms with one behaviour:
epoll where the system has it, poll elsewhere.

R1  Level-triggered: what stays ready is reported by every `wait`.
R2  `update` repairs what it finds. A library may close a descriptor and get the same number
    back, or replace the file under it by dup2; both drop it from an epoll set silently. So
    `update` never trusts its own memory: "no such entry" on a change means add, "exists"
    on an addition means change.
R3  Regular files and /dev/null cannot be polled (epoll says EPERM). They are always ready,
    and so is a guest's stdin when somebody runs it with `< /dev/null`.
R4  Timeouts are nanoseconds, negative for ever. A wait may end up to 1 ms late, never early; but
    after LONGEST_NS at the latest, as the kernel counts milliseconds in 31 bits.
"""

from __future__ import annotations

import select

from block.lean import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

READ = 0x001  # EPOLLIN, POLLIN
WRITE = 0x004  # EPOLLOUT, POLLOUT
ERROR = 0x008  # EPOLLERR, POLLERR
HANG_UP = 0x010  # EPOLLHUP, POLLHUP
INVALID = 0x020  # POLLNVAL
READABLE = READ | ERROR | HANG_UP
WRITABLE = WRITE | ERROR | HANG_UP

MAX_EVENTS = 40  # of one wait; what more is ready, the next one reports
FD_SETSIZE = 1024
PRECISE_BELOW_NS = 10_000_000
LONGEST_NS = 24 * 86_400 * 1_000_000_000  # 24 days
FEW = 8  # QEMU changes from poll to epoll at 64


class Poller:
    """The interface, and what both forms share.

    look  look(0) is the same as wait(0); an attribute, so that it can be a function written in C.
          It may report INVALID for a descriptor that was closed: then call `remove`.
    """

    look: Callable[[int], Iterable[tuple[int, int]]]

    def __init__(self) -> None:
        self._always: dict[int, int] = {}
        self.look = self.wait

    def update(self, fd: int, events: int) -> None:
        """Watches a descriptor, or changes what is watched (epoll_ctl ADD, MOD)."""
        raise NotImplementedError

    def watch_wakeup(self, fd: int) -> None:
        """Lets a descriptor end waits for good. `look` need not see it: whoever looks is awake."""
        self.update(fd, READ)

    def remove(self, fd: int) -> None:
        """Forgets a descriptor; one that was never known or is closed is no error."""
        raise NotImplementedError

    def wait(self, timeout_ns: int) -> Iterable[tuple[int, int]]:
        """Waits and returns (descriptor, events) pairs; none when time is up."""
        raise NotImplementedError

    def fileno(self) -> int | None:
        """Returns a descriptor that stands for all the others, or None if there is none."""
        return None

    def watched(self) -> dict[int, int]:
        """Returns what a foreign loop must watch in our stead where `fileno` is None."""
        return {}

    @property
    def always_ready(self) -> bool:
        """Whether a wait would return at once, whatever happens (R3)."""
        return bool(self._always)

    def close(self) -> None:
        """Gives descriptors back."""
        del self.look  # it refers to this object


class EpollPoller(Poller):
    """Waits by epoll(7); looks at few descriptors by poll(2), which is then faster."""

    def __init__(self) -> None:
        super().__init__()
        self._epoll = select.epoll()
        self._epoll_wait = self._epoll.poll
        self._fd = self._epoll.fileno()
        self._poll = select.poll()
        self._watched: set[int] = set()
        self._choose_look()

    def _choose_look(self) -> None:
        if self._always:
            self.look = self.wait
        elif len(self._watched) <= FEW:
            self.look = self._poll.poll
        else:
            self.look = partial(self._epoll_wait, maxevents=MAX_EVENTS)

    def watch_wakeup(self, fd: int) -> None:
        self._epoll.register(fd, READ)

    def update(self, fd: int, events: int) -> None:
        self._always.pop(fd, None)
        self._watched.add(fd)
        self._poll.register(fd, events)
        try:
            try:
                self._epoll.modify(fd, events)
            except FileNotFoundError:
                self._epoll.register(fd, events)
        except PermissionError:
            self._always[fd] = events
        self._choose_look()

    def remove(self, fd: int) -> None:
        if fd not in self._watched:
            return
        self._watched.remove(fd)
        self._poll.unregister(fd)
        if self._always.pop(fd, None) is None:
            try:
                self._epoll.unregister(fd)
            except OSError:
                pass  # closed or replaced behind our back: the kernel has forgotten it already
        self._choose_look()

    def wait(self, timeout_ns: int) -> Iterable[tuple[int, int]]:
        if self._always:
            return [*self._epoll_wait(0, MAX_EVENTS), *self._always.items()]
        if timeout_ns <= 0:
            return self._epoll_wait(None if timeout_ns else 0, MAX_EVENTS)
        if timeout_ns < PRECISE_BELOW_NS and self._fd < FD_SETSIZE:
            # epoll_wait counts milliseconds, select microseconds.
            select.select([self._fd], (), (), (timeout_ns + 999) // 1000 * 1e-6)
            return self._epoll_wait(0, MAX_EVENTS)
        return self._epoll_wait(min(timeout_ns, LONGEST_NS) * 1e-9, MAX_EVENTS)

    def fileno(self) -> int | None:
        return self._fd

    def close(self) -> None:
        super().close()
        self._epoll.close()


class PollPoller(Poller):
    """Waits by poll(2)."""

    def __init__(self) -> None:
        super().__init__()
        self._poll = select.poll()
        self._watched: dict[int, int] = {}
        self.look = self._poll.poll

    def update(self, fd: int, events: int) -> None:
        self._poll.register(fd, events)
        self._watched[fd] = events

    def remove(self, fd: int) -> None:
        if self._watched.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def wait(self, timeout_ns: int) -> Iterable[tuple[int, int]]:
        timeout_ns = min(timeout_ns, LONGEST_NS)
        return self._poll.poll(-1 if timeout_ns < 0 else (timeout_ns + 999_999) // 1_000_000)

    def watched(self) -> dict[int, int]:
        return self._watched
