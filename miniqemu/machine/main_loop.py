# SPDX-License-Identifier: GPL-2.0-only
"""The main loop: the main context, polled with the big lock given away (util/main-loop.c).

An AioContext's own `poll` would sleep with the big lock held, and every vCPU that touches a
device would wait for it. So the sleep is done from the outside, as a foreign loop does it:

    prepare -> release the big lock -> sleep -> take the big lock -> dispatch

Rules:
R1  The main thread only, which holds the big lock before and after.
R2  May be nested: whoever must wait for vCPUs in the main thread iterates meanwhile, because a
    vCPU may wait for a callback of the main context or for the big lock.
"""

from __future__ import annotations

from block.aio.poller import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.aio.context import AioContext
    from miniqemu.machine.biglock import BigLock


class MainLoop:
    """Runs the main context (main_loop_wait)."""

    def __init__(self, context: AioContext, big_lock: BigLock) -> None:
        self._context, self._big_lock = context, big_lock
        self.depth = 0  # how many passes are under way: more than 0 inside a callback
        self._poller = context.world.new_poller()
        fd = context.fileno()
        self._stands_for_all = fd is not None
        if fd is not None:
            self._poller.update(fd, READ)

    def iterate(self) -> bool:
        """Sleeps until there is something to do, and does it; True if a callback ran."""
        assert self._big_lock.held(), "R1"
        timeout = self._context.prepare()
        self._big_lock.release()
        try:
            if timeout:
                self._sleep(timeout)
        finally:
            self._big_lock.acquire()
        self.depth += 1
        try:
            return self._context.dispatch()
        finally:
            self.depth -= 1

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Iterates until `condition()`; who makes it true notifies the main context (R2)."""
        while not condition():
            self.iterate()

    def _sleep(self, timeout_ns: int) -> None:
        if self._stands_for_all:
            self._poller.wait(timeout_ns)
            return
        watched = dict(self._context.fds.poller.watched())
        for fd, events in watched.items():
            self._poller.update(fd, events)
        self._poller.wait(timeout_ns)
        for fd in watched:
            self._poller.remove(fd)

    def close(self) -> None:
        """Gives its descriptor back; the context lives on."""
        self._poller.close()
