# SPDX-License-Identifier: GPL-2.0-only
"""The main loop sleeps, a vCPU polls its context meanwhile, and a third thread brings work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from block.aio.context import AioContext
from block.aio.poller import READ
from block.testing.failures import Deadlock
from block.testing.world import DeterministicWorld

if TYPE_CHECKING:
    from block.aio.world import Lock

FIX = "eabc977973"
DATE = "2015-07-21"
MISTAKE = "a flag of the context said that somebody is awake there, while another thread slept"
SEEN = "the guest hangs until somebody presses a key; on one kind of machine only"
FAILS_WITH = Deadlock


class MainLoop:
    """A foreign loop (GLib's) with a context in it; it sleeps without the big lock."""

    def __init__(self, world: DeterministicWorld) -> None:
        self.ctx = AioContext("main", world)
        self.big_lock: Lock = world.new_lock()
        self.world = world
        self.answer = world.new_notifier()
        self.answered = False

    def request_is_done(self) -> None:
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


def scenario(world: DeterministicWorld) -> None:
    loop = MainLoop(world)

    def vcpu() -> None:
        with loop.big_lock, loop.ctx:
            loop.ctx.poll(False)

    def worker() -> None:
        loop.ctx.bh_schedule_oneshot(loop.request_is_done)

    threads = [world.start_thread("vCPU", vcpu), world.start_thread("worker", worker)]
    while not loop.answered:
        loop.iteration()
    for thread in threads:
        thread.join()
    loop.close()
