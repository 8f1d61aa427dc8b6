# SPDX-License-Identifier: GPL-2.0-only
"""A flag that a poller can wait for (EventNotifier).

On Linux it is an eventfd, elsewhere a pipe. Setting it twice before it is cleared is the
same as setting it once.

R1  `set` may be called from any thread, and from a signal handler: it is one `write`.
R2  `test_and_clear` belongs to whoever waits for the notifier.
R3  A closed notifier is gone: both calls raise UsedAfterFree.
"""

from __future__ import annotations

import os

from block.aio.errors import UsedAfterFree


class EventNotifier:
    """A flag with a file descriptor (event_notifier_init); by an eventfd."""

    __slots__ = ("__weakref__", "_fd")

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """Returns the descriptor that becomes readable (event_notifier_get_fd)."""
        return self._fd

    @property
    def write_fd(self) -> int:
        """The descriptor that the kernel may signal (for irqfd, ioeventfd and AIO: the same)."""
        return self._fd

    def set(self) -> None:
        """Raises the flag; any thread (event_notifier_set)."""
        try:
            os.eventfd_write(self._fd, 1)
        except BlockingIOError:
            return  # the counter is full, so the flag is up
        except (OSError, ValueError) as error:
            raise self._gone() from error

    def test_and_clear(self) -> bool:
        """Lowers the flag and says whether it was up (event_notifier_test_and_clear)."""
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return False
        except (OSError, ValueError) as error:
            raise self._gone() from error
        return True

    def close(self) -> None:
        """Gives the descriptor back (event_notifier_cleanup). Twice is harmless."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _gone(self) -> Exception:
        return UsedAfterFree(f"{type(self).__name__}: used after close()")


class PipeNotifier(EventNotifier):
    """The same by a pipe, where the system has no eventfd."""

    __slots__ = ("_write_fd",)

    def __init__(self) -> None:
        self._fd, self._write_fd = os.pipe()
        os.set_blocking(self._fd, False)
        os.set_blocking(self._write_fd, False)

    @property
    def write_fd(self) -> int:
        """The end that `set` writes to."""
        return self._write_fd

    def set(self) -> None:
        """Raises the flag; any thread (event_notifier_set)."""
        try:
            os.write(self._write_fd, b"\1")
        except BlockingIOError:
            return  # the pipe is full, so the flag is up
        except (OSError, ValueError) as error:
            raise self._gone() from error

    def test_and_clear(self) -> bool:
        """Lowers the flag and says whether it was up (event_notifier_test_and_clear)."""
        was_set = False
        try:
            while os.read(self._fd, 512):
                was_set = True
        except BlockingIOError:
            return was_set
        except (OSError, ValueError) as error:
            raise self._gone() from error
        return was_set

    def close(self) -> None:
        """Gives both descriptors back (event_notifier_cleanup). Twice is harmless."""
        super().close()
        fd, self._write_fd = self._write_fd, -1
        if fd >= 0:
            os.close(fd)


def _demo() -> None:
    from block.aio.context import AioContext
    from block.aio.demo import Timeline

    say = Timeline()
    ctx = AioContext("demo")
    notifier = ctx.world.new_notifier()
    ctx.set_event_notifier(notifier, lambda e: say(f"set: {e.test_and_clear()}"))
    notifier.set()
    notifier.set()
    say("set twice, which is the same as once")
    while ctx.poll(False):
        say("-- end of a pass --")
    ctx.set_event_notifier(notifier, None)
    notifier.close()
    ctx.close()


if __name__ == "__main__":
    _demo()
