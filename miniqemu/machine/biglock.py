# SPDX-License-Identifier: GPL-2.0-only
"""The big lock: one lock for everything that belongs to no loop (QEMU's BQL, "iothread mutex").

Rules:
R1  A vCPU thread holds it while it touches a device's registers, never while the guest runs.
R2  The main loop holds it always, but gives it away while it waits for events.
R3  A data-plane request takes it nowhere: `counts` says for each thread how often it did.
R4  It is not recursive; a second acquire by its holder is a bug and is asserted.
R5  It is fair: `release` hands it to whoever has waited longest.

Who may call it: any thread. `_owner` and `_queue` change under `_mutex`, `counts` under the big
lock itself. `held()` reads `_owner` without a lock: another thread may find a stale name there,
but never its own.

What once went wrong here: with a plain lock a busy main loop, which releases and takes the lock
within a microsecond, starved the vCPUs: the one that was woken came too late each time. (QEMU
had the same and raised thread priorities, then batched; a queue is simpler.)
"""

from __future__ import annotations

from block.aio.world import World, the_world
from block.lean import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from block.aio.world import Lock


class BigLock:
    """The lock that vCPU threads and the main loop share (QEMU's qemu_global_mutex)."""

    __slots__ = ("_current", "_mutex", "_owner", "_queue", "_world", "counts")

    def __init__(self, world: World | None = None) -> None:
        self._world = world or the_world()
        self._current = self._world.current
        self._mutex = self._world.new_lock()
        self._owner = 0
        self._queue: deque[tuple[Lock, int]] = deque()  # a closed gate for each who waits
        self.counts: dict[int, int] = {}  # thread identity (World.current()) -> acquisitions

    def acquire(self) -> None:
        """Waits for the lock and takes it (qemu_mutex_lock_iothread)."""
        me = self._current()
        assert self._owner != me, "R4: this thread already holds the big lock"
        gate = None
        with self._mutex:
            if self._owner:
                gate = self._world.new_lock()
                gate.acquire()
                self._queue.append((gate, me))
            else:
                self._owner = me
        if gate is not None:
            gate.acquire()  # opened by `release`, which has made us the owner
        self.counts[me] = self.counts.get(me, 0) + 1

    def release(self) -> None:
        """Gives the lock away, to the longest waiter if there is one (R5)."""
        assert self._owner == self._current(), "only the holder may release the big lock"
        with self._mutex:
            if self._queue:
                gate, self._owner = self._queue.popleft()
                gate.release()
            else:
                self._owner = 0

    def held(self) -> bool:
        """Whether the running thread holds it (qemu_mutex_iothread_locked)."""
        return self._owner == self._current()

    def taken_by(self, thread: int) -> int:
        """How often a thread (its `World.current()`) has taken the lock."""
        return self.counts.get(thread, 0)

    def __enter__(self) -> BigLock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
