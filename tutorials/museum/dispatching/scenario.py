# SPDX-License-Identifier: GPL-2.0-only
"""The main loop sleeps, a vCPU polls its context meanwhile, and a third thread brings work."""

from __future__ import annotations

from block.testing.failures import Deadlock
from block.testing.world import DeterministicWorld
from tutorials.museum.main_loop import MainLoop

FIX = "eabc977973"
DATE = "2015-07-21"
MISTAKE = "a flag of the context said that somebody is awake there, while another thread slept"
SEEN = "the guest hangs until somebody presses a key; on one kind of machine only"
FAILS_WITH = Deadlock
SHOWN = ("scenario",)
STEPS = ("block.aio", "tutorials.museum.main_loop")


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
