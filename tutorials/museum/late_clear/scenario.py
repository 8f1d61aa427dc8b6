# SPDX-License-Identifier: GPL-2.0-only
"""A vCPU polls until its write is done; a worker ends that write and a request of the main loop."""

from __future__ import annotations

from block.testing.failures import Deadlock
from block.testing.world import DeterministicWorld
from tutorials.museum.main_loop import MainLoop

FIX = "21a03d17f2"
DATE = "2015-07-21"
MISTAKE = "the notifier was cleared after the bottom halves had run, not before"
SEEN = "the main loop sleeps for ever, though a request has come back"
FAILS_WITH = Deadlock
SHOWN = ("scenario",)
STEPS = ("block.aio", "tutorials.museum.main_loop")


def scenario(world: DeterministicWorld) -> None:
    loop = MainLoop(world)
    written: list[bool] = []

    def vcpu() -> None:
        with loop.big_lock, loop.ctx:
            while not written:
                loop.ctx.poll(True)

    def worker() -> None:
        loop.ctx.bh_schedule_oneshot(lambda: written.append(True))
        loop.ctx.bh_schedule_oneshot(loop.request_is_done)

    threads = [world.start_thread("vCPU", vcpu), world.start_thread("worker", worker)]
    while not loop.answered:
        loop.iteration()
    for thread in threads:
        thread.join()
    loop.close()
