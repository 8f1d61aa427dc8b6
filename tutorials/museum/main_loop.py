# SPDX-License-Identifier: GPL-2.0-only
"""A main loop as QEMU has it: GLib sleeps, and our context is one of the things it looks after.

For pieces in which a vCPU polls the main context while the main loop sleeps. That can be, since the
main loop sleeps without the big lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from block.aio.context import AioContext
from block.aio.poller import READ
from block.testing.world import DeterministicWorld

if TYPE_CHECKING:
    from block.aio.world import Lock


class MainLoop:
    """A foreign loop with a context in it; it ends when a request is done."""

    def __init__(self, world: DeterministicWorld) -> None:
        self.ctx = AioContext("main", world)
        self.big_lock: Lock = world.new_lock()
        self.world = world
        self.answer = world.new_notifier()
        self.answered = False

    def request_is_done(self) -> None:
        """What the loop waits for; in its thread, or in a vCPU's."""
        self.answered = True
        self.answer.set()

    def iteration(self) -> None:
        """One pass (g_main_context_iteration)."""
        with self.big_lock:
            timeout_ns = self.ctx.prepare()
        poller = self.world.new_poller()
        for fd, events in self.ctx.fds.poller.watched().items():
            poller.update(fd, events)
        poller.update(self.answer.fileno(), READ)
        poller.wait(timeout_ns)
        poller.close()
        with self.big_lock:
            self.ctx.dispatch()

    def close(self) -> None:
        self.ctx.close()
        self.answer.close()
