# SPDX-License-Identifier: GPL-2.0-only
"""Worker threads for system calls that block (thread-pool.c).

R1  Submitting and cancelling is for the thread at home in the context; so are the callbacks.
R2  At most 64 workers. One is started only when none is idle; an idle one ends after 10 s.
R3  A callback runs from a bottom half, never inside submit (rule 4 of the design). One pass
    completes all that is done.
R4  Work that no worker has begun can be cancelled; its callback gets -ECANCELED. Work that has
    begun goes on to its end.
R5  Work that computes, and does not wait, is done by as many workers at once as there are
    processors (`max_computing`). More of them would only take turns, and each turn costs. Such
    work has a queue of its own, so that calls that wait overtake it.

State that several threads write: all fields marked so below, under `_lock`. A request belongs
to home while it is made, to the worker from QUEUED to DONE, then to home again; the lock hands
it over.

Discussion: an idle worker sleeps at a gate of its own, a lock used as a binary semaphore. The one
that became idle last is woken first: its memory is still warm, and the others' time runs out. A
condition variable, written in Python, makes two more calls to the kernel for each request, and
holds the interpreter while the loop that the worker has just woken wants it.
"""

from __future__ import annotations

import errno

from block.aio.audit import Registration, caller
from block.aio.coroutine import co_yield, current
from block.lean import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from block.aio.context import AioContext
    from block.aio.coroutine import Coroutine
    from block.aio.world import ThreadHandle

MAX_THREADS = 64
IDLE_SECONDS = 10.0

QUEUED, ACTIVE, DONE = range(3)
STATES = ("queued", "active", "done")


class PoolRequest:
    """One piece of work (ThreadPoolElement)."""

    __slots__ = ("__weakref__", "callback", "computes", "error", "func", "owner", "pool", "ret",
                 "state", "where")  # fmt: skip

    def __init__(
        self,
        pool: ThreadPool,
        func: Callable[[], int],
        callback: Callable[[int], None] | None,
        owner: object,
        computes: bool,
    ) -> None:
        self.pool = pool
        self.func = func
        self.callback = callback
        self.owner = owner
        self.computes = computes
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
        finally:
            del self.func  # a worker that waits for more work keeps no buffer alive

    def cancel(self) -> None:
        """Takes the work back if no worker has begun it (thread_pool_cancel, R4)."""
        self.pool.cancel(self)


class Worker:
    """One worker thread."""

    __slots__ = ("ended", "gate", "pool", "request", "thread")

    def __init__(self, pool: ThreadPool) -> None:
        self.pool = pool
        self.gate = pool.ctx.world.new_lock()  # closed while there is nothing to do
        self.gate.acquire()
        self.thread: ThreadHandle | None = None
        self.request: PoolRequest | None = None  # its own thread's, as is the next
        self.ended = False

    def work(self) -> None:
        """Serves requests until the pool needs it no more.

        While it waits it refers to no request: that would keep the request's buffers alive.
        """
        pool = self.pool
        pool.next_request(self)
        while self.request is not None:
            self.request.run()
            pool.next_request(self)


class ThreadPool:
    """The worker threads of one context (ThreadPool); made by ctx.thread_pool."""

    def __init__(self, ctx: AioContext) -> None:
        self.ctx = ctx
        self.max_threads = MAX_THREADS
        self.max_computing = ctx.world.processors()
        self.idle_seconds = IDLE_SECONDS
        self._lock = ctx.world.new_lock()
        self._completion_bh = ctx.bh_new(self._complete, owner=self)
        self._in_flight: dict[PoolRequest, None] = {}  # home only
        # The rest is written by all threads, under _lock.
        self._queue: deque[PoolRequest] = deque()
        self._computations: deque[PoolRequest] = deque()  # a queue of their own (R5)
        self._computing = 0  # how many workers are at it
        self._done: deque[PoolRequest] = deque()
        self._workers: dict[Worker, None] = {}
        self._idle: list[Worker] = []  # asleep, and nobody has opened their gates
        self._stopping = False

    def submit_aio(
        self,
        func: Callable[[], int],
        callback: Callable[[int], None] | None = None,
        *,
        owner: object = None,
        computes: bool = False,
    ) -> PoolRequest:
        """Runs func() in a worker, then callback(ret) at home (thread_pool_submit_aio).

        func returns a number >= 0, or raises OSError, which arrives as -errno. `computes`: it
        keeps a processor busy, and does so without the interpreter's lock (R5).
        """
        assert self.ctx.is_home(), self.ctx.stranger()
        request = PoolRequest(self, func, callback, owner, computes)
        self._in_flight[request] = None
        with self._lock:
            self._queue_of(request).append(request)
            if computes and self._computing + len(self._computations) > self.max_computing:
                return request  # who computes now, or has been woken to, comes to it
            if self._idle:
                self._idle.pop().gate.release()
            elif len(self._workers) < self.max_threads:
                self._start_worker()
        return request

    async def submit_co(
        self, func: Callable[[], int], *, owner: object = None, computes: bool = False
    ) -> int:
        """Runs func() in a worker and returns its number, or -errno (thread_pool_submit_co)."""
        waiter = _CoWaiter()
        self.submit_aio(func, waiter.complete, owner=owner, computes=computes)
        await co_yield()
        return waiter.ret

    @property
    def n_threads(self) -> int:
        """How many workers there are."""
        return len(self._workers)

    def cancel(self, request: PoolRequest) -> None:
        """Completes a request with -ECANCELED if no worker has begun it (R4)."""
        assert self.ctx.is_home(), self.ctx.stranger()
        with self._lock:
            if request.state != QUEUED:
                return
            self._queue_of(request).remove(request)
            request.ret = -errno.ECANCELED
            request.state = DONE
            self._done.append(request)
        self._completion_bh.schedule()

    def _queue_of(self, request: PoolRequest) -> deque[PoolRequest]:
        return self._computations if request.computes else self._queue

    def _start_worker(self) -> None:
        """Starts a worker; with the lock held."""
        worker = Worker(self)
        if not self._workers:
            self.ctx.world.shorten_switch_interval()
        self._workers[worker] = None
        name = f"worker of {self.ctx.name}"
        worker.thread = self.ctx.world.start_thread(name, worker.work)

    def next_request(self, worker: Worker) -> None:
        """Takes from a worker what it has done, and waits for more; None: it shall end."""
        done = worker.request is not None
        with self._lock:
            if worker.request is not None:
                worker.request.state = DONE
                self._computing -= worker.request.computes
                self._done.append(worker.request)
            self._give_request(worker)
        if done:
            self._completion_bh.schedule()
        while worker.request is None and not worker.ended:
            if not worker.gate.acquire(timeout=self.idle_seconds) and self._retire(worker):
                return
            with self._lock:
                self._give_request(worker)

    def _give_request(self, worker: Worker) -> None:
        """Hands out the next request; without one the worker is idle, or ends. With the lock."""
        worker.request = None
        if self._queue:
            worker.request = self._queue.popleft()
            worker.request.state = ACTIVE
        elif self._computations and self._computing < self.max_computing:
            worker.request = self._computations.popleft()
            worker.request.state = ACTIVE
            self._computing += 1
        elif self._stopping:
            self._end_worker(worker)
        else:
            self._idle.append(worker)

    def _retire(self, worker: Worker) -> bool:
        """Ends a worker whose time is up, unless its gate is being opened just now."""
        with self._lock:
            if worker in self._idle:
                self._idle.remove(worker)
                self._end_worker(worker)
                return True
        worker.gate.acquire()
        return False

    def _end_worker(self, worker: Worker) -> None:
        """Takes a worker out; with the lock held."""
        worker.ended = True
        del self._workers[worker]
        if not self._workers:
            self.ctx.world.restore_switch_interval()

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
            what = repr(getattr(request, "func", "done"))
            yield Registration("aio", request.owner, request.where, what)

    def end_workers(self) -> None:
        """Waits for the workers to end, after what they do; new work starts new ones."""
        with self._lock:
            self._stopping = True
            workers = list(self._workers)
            for worker in self._idle:
                worker.gate.release()
            self._idle.clear()
        for worker in workers:
            if worker.thread is not None:
                worker.thread.join()
        self._stopping = False

    def close(self) -> None:
        """Waits for the workers to end (thread_pool_free). Nothing may be in flight."""
        assert not self._in_flight, f"thread pool of {self.ctx.name}: work in flight at close"
        self.end_workers()
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


def _demo() -> None:
    import time

    from block.aio.context import AioContext
    from block.aio.demo import Timeline

    say = Timeline()
    ctx = AioContext("demo")
    rets: list[int] = []

    def work(ms: int) -> int:
        time.sleep(ms / 1000)
        say(f"a call that blocks for {ms} ms is done")
        return ms

    for demo_ms in (20, 10):
        ctx.thread_pool.submit_aio(lambda ms=demo_ms: work(ms), rets.append)  # type: ignore[misc]  # a lambda's default
    say("submitted")
    while len(rets) < 2:
        ctx.poll(True)
        say(f"completed so far: {rets}")
    ctx.close()


if __name__ == "__main__":
    _demo()
