# SPDX-License-Identifier: GPL-2.0-only
"""Work that a vCPU's register write causes, but that belongs to the main thread.

Starting and stopping a device moves its tree between contexts and drains it. Trees move in the
main thread only (design, rule 3), while the write to the status register arrives in a vCPU's.
So the vCPU hands the work over and waits; the store completes when the work is done.

Rules:
R1  The big lock is given away while a vCPU waits: the main thread needs it to do the work.
R2  One piece of work at a time, in order. Draining polls, and a poll may find the next piece:
    it is left in the queue for the loop that is already running.
R3  `_jobs` and `_busy` are touched under the big lock only.
R4  The main thread never blocks on a vCPU without polling its context, or both wait for ever.

(QEMU does this work in the vCPU's thread, where the big lock makes it as good as the main one.)
"""

from __future__ import annotations

from block.aio.world import World, the_world
from block.lean import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.aio.context import AioContext
    from block.aio.world import Lock
    from miniqemu.machine.biglock import BigLock


class _Job:
    """One piece of work, and the vCPU that waits for it."""

    __slots__ = ("done", "error", "work")

    def __init__(self, work: Callable[[], None], done: Lock) -> None:
        self.work = work
        self.done = done  # held until the work is done
        self.error: BaseException | None = None


class MainThread:
    """Runs callables in the main thread for whoever asks (cf. aio_wait_bh_oneshot)."""

    __slots__ = ("_big_lock", "_busy", "_context", "_jobs", "_world")

    def __init__(self, context: AioContext, big_lock: BigLock, world: World | None = None) -> None:
        self._context = context
        self._big_lock = big_lock
        self._world = world or the_world()
        self._jobs: deque[_Job] = deque()
        self._busy = False

    def run(self, work: Callable[[], None]) -> None:
        """Runs `work` in the main thread; returns when it is done.

        The exception: in the main thread itself, from inside another piece of work, it
        returns at once and the work follows the one that runs (R2).
        """
        job = _Job(work, self._world.new_lock())
        job.done.acquire()
        self._jobs.append(job)
        if self._context.is_home():
            self._drain_jobs()
        else:
            self._context.bh_schedule_oneshot(self._drain_jobs, owner=self)
            self._wait(job)
        if job.error is not None:
            raise job.error

    def _wait(self, job: _Job) -> None:
        held = self._big_lock.held()
        if held:
            self._big_lock.release()
        job.done.acquire()
        if held:
            self._big_lock.acquire()

    def _drain_jobs(self) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            while self._jobs:
                job = self._jobs.popleft()
                try:
                    job.work()
                except Exception as error:
                    job.error = error
                job.done.release()
        finally:
            self._busy = False
