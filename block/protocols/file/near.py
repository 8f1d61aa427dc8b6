# SPDX-License-Identifier: GPL-2.0-only
"""A worker thread that rides on the processor of its loop, for calls of a few microseconds.

A call that is done in 4 us should not cost two wake-ups of a sleeping processor. Measured on two
virtual CPUs, 4 KiB pwrite handed to a thread and back: 75 us where the kernel puts the two threads
on two processors (as it does, because the loop still runs when it wakes the worker), 15 us where
both are on one. So this worker is bound to the processor on which the loop runs, and follows it.
And the loop gives way once, right after it has handed the work over: mostly the work is done
when it comes back, and the loop neither goes to sleep nor must be woken.

R1  Only the worker is bound, never the thread of the loop: that belongs to the program.
R2  One worker, and work only while it is idle (`busy`): whoever finds it busy goes to the thread
    pool, so one call that waits after all holds up nobody else.
R3  Where processors cannot be asked or bound (not Linux), it is an ordinary worker.

Submitting belongs to the thread at home in the context. `_thread_id` is written once by the
worker, and read at home.
"""

from __future__ import annotations

import errno
import os
from _thread import get_native_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.aio.context import AioContext
    from block.aio.world import ThreadHandle


def load_current_cpu() -> Callable[[], int]:
    """Returns what tells on which processor the calling thread runs; -1 where nobody can."""
    import ctypes

    # PyDLL keeps the interpreter's lock: the call takes 0.1 us.
    function = getattr(ctypes.PyDLL(None), "sched_getcpu", None)
    if function is None or not hasattr(os, "sched_setaffinity"):
        return lambda: -1
    getcpu: Callable[[], int] = function
    return getcpu


def load_give_way() -> Callable[[], int]:
    """Returns what lets another thread have this processor, and the interpreter, first."""
    import ctypes

    # CDLL gives the interpreter's lock away; os.sched_yield of Python 3.11 keeps it.
    yield_: Callable[[], int] | None = getattr(ctypes.CDLL(None), "sched_yield", None)
    return yield_ or (lambda: 0)


class NearWorker:
    """One worker thread of a context; see the module's head."""

    def __init__(self, ctx: AioContext) -> None:
        self.busy = False
        self._ctx = ctx
        self._gate = ctx.world.new_gate()
        self._current_cpu = load_current_cpu()
        self._give_way = load_give_way()
        self._bh = ctx.bh_new(self._complete, owner=self)
        self._func: Callable[[], int] | None = None
        self._callback: Callable[[int], None] | None = None
        self._ret = 0
        self._error: BaseException | None = None
        self._thread: ThreadHandle | None = None
        self._cpu = -1
        self._thread_id = 0

    def submit(self, func: Callable[[], int], callback: Callable[[int], None]) -> None:
        """Runs func() in the worker, then callback(ret) at home, as ThreadPool.submit_aio."""
        assert not self.busy, "R2"
        self.busy = True
        self._func, self._callback = func, callback
        self._follow()
        self._gate.open()
        if self._thread is None:
            name = f"near worker of {self._ctx.name}"
            self._thread = self._ctx.world.start_thread(name, self._work)
        self._give_way()

    def _work(self) -> None:
        self._thread_id = get_native_id()
        while True:
            self._gate.wait()
            func, self._func = self._func, None
            if func is None:
                return
            try:
                self._ret = func()
            except OSError as error:
                self._ret = -(error.errno or errno.EIO)
            except BaseException as error:  # a mistake in the program: home shall see it
                self._ret, self._error = -errno.EIO, error
            # An idle worker keeps no request's memory alive.
            func = None
            self._bh.schedule()

    def _complete(self) -> None:
        callback, self._callback = self._callback, None
        self.busy = False
        if self._error is not None:
            raise self._error
        assert callback is not None, "completed twice"
        callback(self._ret)

    def _follow(self) -> None:
        """Binds the worker to the processor that this thread is on now (R1, R3)."""
        cpu = self._current_cpu()
        if cpu == self._cpu or cpu < 0 or not self._thread_id:
            return
        try:
            os.sched_setaffinity(self._thread_id, {cpu})
        except OSError:
            return
        self._cpu = cpu

    def close(self) -> None:
        """Ends the worker and waits for that; nothing may be in flight."""
        assert not self.busy, "closed with work in flight"
        if self._thread is not None:
            self._gate.open()
            self._thread.join()
        self._gate.close()
        self._bh.delete()
