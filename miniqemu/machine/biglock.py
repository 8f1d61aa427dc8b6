# SPDX-License-Identifier: GPL-2.0-only
"""The big lock: one lock for everything that belongs to no loop (QEMU's BQL, "iothread mutex").

Rules:
R1. A vCPU thread holds it while it touches a device's registers, never while the guest runs.
R2. The main loop holds it always, but gives it away while it waits for events.
R3. A data-plane request takes it nowhere: `counts` says for each thread how often it did.
R4. It is not recursive; a second acquire by its holder is a bug and is asserted.

Who may call it: any thread. `_owner` and `counts` are written only by the holder;
`held()` of a thread that does not hold it may read a stale owner, but never its own name.
"""

from __future__ import annotations

from types import TracebackType

from block.aio.world import World, the_world


class BigLock:
    """The lock that vCPU threads and the main loop share (QEMU's qemu_global_mutex)."""

    __slots__ = ("_lock", "_owner", "_world", "counts")

    def __init__(self, world: World | None = None) -> None:
        self._world = world or the_world()
        self._lock = self._world.new_lock()
        self._owner: int | None = None
        self.counts: dict[int, int] = {}  # thread identity (World.current()) -> acquisitions

    def acquire(self) -> None:
        """Waits for the lock and takes it (qemu_mutex_lock_iothread)."""
        me = self._world.current()
        assert self._owner != me, "R4: this thread already holds the big lock"
        self._lock.acquire()
        self._owner = me
        self.counts[me] = self.counts.get(me, 0) + 1

    def release(self) -> None:
        """Gives the lock away (qemu_mutex_unlock_iothread)."""
        assert self.held(), "only the holder may release the big lock"
        self._owner = None
        self._lock.release()

    def held(self) -> bool:
        """Whether the running thread holds it (qemu_mutex_iothread_locked)."""
        return self._owner == self._world.current()

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
