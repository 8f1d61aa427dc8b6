# SPDX-License-Identifier: GPL-2.0-only
"""Worker threads for system calls that block (thread-pool.c).

R1  Submitting and cancelling is for the thread at home in the context; so are the callbacks.
R2  At most 64 workers. One is started only when none is idle; an idle one ends after 10 s.
R3  A callback runs from a bottom half, never inside submit (rule 4 of the design). One pass
    completes all that is done.
R4  Work that no worker has begun can be cancelled; its callback gets -ECANCELED. Work that has
    begun goes on to its end.

State that several threads write: all fields marked so below, under `_lock`. A request belongs
to home while it is made, to the worker from QUEUED to DONE, then to home again; the lock hands
it over.
"""

from __future__ import annotations

import errno
from collections import deque

from block.aio.audit import Registration, caller
from block.aio.coroutine import co_yield, current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from block.aio.context import AioContext
    from block.aio.coroutine import Coroutine
    from block.aio.world import ThreadHandle

MAX_THREADS = 64
IDLE_SECONDS = 10.0

QUEUED, ACTIVE, DONE = range(3)


class PoolRequest:
    """One piece of work (ThreadPoolElement)."""

    __slots__ = ("__weakref__", "callback", "error", "func", "owner", "pool", "ret", "state",
                 "where")  # fmt: skip

    def __init__(
        self,
        pool: ThreadPool,
        func: Callable[[], int],
        callback: Callable[[int], None] | None,
        owner: object,
    ) -> None:
        self.pool = pool
        self.func = func
        self.callback = callback
        self.owner = owner
        self.state = QUEUED
        self.ret = -errno.EINPROGRESS
        self.error: BaseException | None = None
        self.where = caller() if pool.ctx.world.audit else ""

    def run(self) -> None:
        """Does the work, in a worker thread."""
        try:
            self.ret = self.func()
        except OSError as error:
            self.ret = -(error.errno or errno.EIO)
        except BaseException as error:  # a mistake in the program: home shall see it
            self.ret = -errno.EIO
            self.error = error

    def cancel(self) -> None:
        """Takes the work back if no worker has begun it (thread_pool_cancel, R4)."""
        self.pool.cancel(self)


class ThreadPool:
    """The worker threads of one context (ThreadPool); made by ctx.thread_pool."""

    def __init__(self, ctx: AioContext) -> None:
        self.ctx = ctx
        self.max_threads = MAX_THREADS
        self.idle_seconds = IDLE_SECONDS
        self._lock = ctx.world.new_lock()
        self._work = ctx.world.new_condition(self._lock)
        self._completion_bh = ctx.bh_new(self._complete, owner=self)
        self._in_flight: dict[PoolRequest, None] = {}  # home only
        # The rest is written by all threads, under _lock.
        self._queue: deque[PoolRequest] = deque()
        self._done: deque[PoolRequest] = deque()
        self._threads: dict[int, ThreadHandle] = {}
        self._next_number = 0
        self._n_idle = 0
        self._stopping = False

    def submit_aio(
        self,
        func: Callable[[], int],
        callback: Callable[[int], None] | None = None,
        *,
        owner: object = None,
    ) -> PoolRequest:
        """Runs func() in a worker, then callback(ret) at home (thread_pool_submit_aio).

        func returns a number >= 0, or raises OSError, which arrives as -errno.
        """
        assert self.ctx.is_home(), self.ctx.stranger()
        request = PoolRequest(self, func, callback, owner)
        self._in_flight[request] = None
        with self._lock:
            self._queue.append(request)
            if self._n_idle >= len(self._queue):
                self._work.notify()
            elif len(self._threads) < self.max_threads:
                self._start_thread()
        return request

    async def submit_co(self, func: Callable[[], int], *, owner: object = None) -> int:
        """Runs func() in a worker and returns its number, or -errno (thread_pool_submit_co)."""
        waiter = _CoWaiter()
        self.submit_aio(func, waiter.complete, owner=owner)
        await co_yield()
        return waiter.ret

    @property
    def n_threads(self) -> int:
        """How many workers there are."""
        return len(self._threads)

    def cancel(self, request: PoolRequest) -> None:
        """Completes a request with -ECANCELED if no worker has begun it (R4)."""
        assert self.ctx.is_home(), self.ctx.stranger()
        with self._lock:
            if request.state != QUEUED:
                return
            self._queue.remove(request)
            request.ret = -errno.ECANCELED
            request.state = DONE
            self._done.append(request)
        self._completion_bh.schedule()

    def _start_thread(self) -> None:
        """Starts a worker; with the lock held."""
        number = self._next_number
        self._next_number += 1
        self._threads[number] = self.ctx.world.start_thread(
            f"worker {number} of {self.ctx.name}", lambda: self._worker(number)
        )

    def _worker(self, number: int) -> None:
        while (request := self._next_request(number)) is not None:
            request.run()
            with self._lock:
                request.state = DONE
                self._done.append(request)
            self._completion_bh.schedule()

    def _next_request(self, number: int) -> PoolRequest | None:
        """Waits for work; None when the worker shall end."""
        with self._lock:
            while not self._queue:
                self._n_idle += 1
                in_time = not self._stopping and self._work.wait(self.idle_seconds)
                self._n_idle -= 1
                if not self._queue and (self._stopping or not in_time):
                    del self._threads[number]
                    return None
            request = self._queue.popleft()
            request.state = ACTIVE
            return request

    def _complete(self) -> None:
        """Completes all that is done; a nested poll in a callback completes the rest."""
        while True:
            with self._lock:
                if not self._done:
                    return
                request = self._done.popleft()
                if self._done:
                    self._completion_bh.schedule()
            del self._in_flight[request]
            if request.error is not None:
                raise request.error
            if request.callback is not None:
                request.callback(request.ret)

    def registrations(self) -> Iterator[Registration]:
        """Yields what is in flight, for the audit."""
        for request in self._in_flight:
            yield Registration("aio", request.owner, request.where, repr(request.func))

    def close(self) -> None:
        """Waits for the workers to end (thread_pool_free). Nothing may be in flight."""
        assert not self._in_flight, f"thread pool of {self.ctx.name}: work in flight at close"
        with self._lock:
            self._stopping = True
            threads = list(self._threads.values())
            self._work.notify_all()
        for thread in threads:
            thread.join()
        self._completion_bh.delete()


class _CoWaiter:
    """Wakes the coroutine that waits for a request."""

    __slots__ = ("co", "ret")

    def __init__(self) -> None:
        co = current()
        assert co is not None, "only a coroutine can wait for the pool"
        self.co: Coroutine = co
        self.ret = -errno.EINPROGRESS

    def complete(self, ret: int) -> None:
        self.ret = ret
        self.co.wake()
