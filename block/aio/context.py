# SPDX-License-Identifier: GPL-2.0-only
"""The event loop (AioContext; async.c and aio-posix.c).

A context holds bottom halves, timers and handlers of file descriptors. `poll` waits until
there is something to do and does it.

    home.py        who may touch it
    wakeup.py      sleeping, and being woken
    polling.py     looking for a while before the sleep
    defer_call.py  what waits until a batch is complete
    bh.py          bottom halves, and the queues of them
    this           what there is to do, and one pass of doing it

R1  Rule 5 of the design: any thread may call bh.schedule, bh_schedule_oneshot, co_schedule,
    notify, acquire and release. All else is for the thread at home (home.py).
R2  poll(True) does not sleep while a bottom half is pending, and sleeps no longer than until
    the first timer. What another thread schedules meanwhile wakes it.
R3  poll returns True if a callback ran. A mere wake-up, and an idle bottom half, are none.
R4  Every callback may call poll again (a nested poll).
R5  A callback's exception leaves poll; what had not run yet runs in the next poll.

State that several threads write: _bhs, _idle_bhs, see bh.py; and what wakeup.py and home.py name.

Discussion: a function that an object holds as an attribute is put into a variable before it is
called (`current`, `look`). Python 3.11 is 30 ns faster then than with `self._current()`.

What went wrong here once:
    21a03d17f2 (2015)  the notifier was cleared after the callbacks, so a nested poll ate the
                       wake-up. It is accepted right after the wait, before any callback.
    b37548fcd1 (2018)  a poll of another thread took the notify away. Only home may poll.
    a076972a4d (2015)  deleted bottom halves stayed in the list of a context that was never
                       polled again. `close` empties the lists.
"""

from __future__ import annotations

from block.aio.audit import Registration, note_coroutine, registrations_of
from block.aio.bh import BH, SCHEDULED, BhQueues
from block.aio.fd_handler import FdHandler
from block.aio.poll_window import PollWindow
from block.aio.poller import READABLE
from block.aio.polling import Polling
from block.aio.timer import Timer, TimerList
from block.aio.world import ClockType, World, the_world
from block.lean import MethodType, partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from block.aio.coroutine import Coroutine
    from block.aio.notifier import EventNotifier
    from block.aio.polling import PollHandler
    from block.aio.thread_pool import ThreadPool

IDLE_BH_TIMEOUT_NS = 10_000_000
MAX_SKIPPED_WAITS = 32


class AioContext(BhQueues):
    """An event loop (aio_context_new).

    name   what messages call it
    world  where time, threads and descriptors come from; default: the real one
    """

    __slots__ = (
        "__weakref__", "_skipped_waits", "_thread_pool", "_timer_lists", "_timer_registry",
        "_timers_armed", "polling",
    )  # fmt: skip

    def __init__(self, name: str = "ctx", world: World | None = None) -> None:
        world = world or the_world()
        super().__init__(name, world)
        self._timer_lists = tuple(TimerList(world.clock_reader(clock)) for clock in ClockType)
        self._timers_armed: list[TimerList] = []  # all that hold anything, perhaps others
        self._timer_registry: dict[Timer, None] = {}
        self._thread_pool: ThreadPool | None = None
        self._skipped_waits = 0
        self.polling = self.fds.polling = Polling(self)

    def __repr__(self) -> str:
        return f"<AioContext {self.name}>"

    @property
    def n_passes(self) -> int:
        """How often `poll` has looked for work. What ends in the pass it began in did not wait."""
        return self.fds.pass_number

    def poll(self, blocking: bool) -> bool:
        """Waits if it may, runs what is ready, and says whether anything ran (aio_poll)."""
        current, bhs, fds = self._current, self._bhs, self.fds
        assert current() == self._home, self.stranger()

        # Wait. A loop that is busy with bottom halves looks at descriptors only now and then,
        # and one that is busy with descriptors need not prepare for a sleep.
        ready: Iterable[tuple[int, int]] = ()
        if bhs and self._skipped_waits < MAX_SKIPPED_WAITS:
            self._skipped_waits += 1
        else:
            self._skipped_waits = 0
            look = fds.poller.look
            ready = look(0)
            if blocking and not ready:
                ready = self._wait()
            elif self.polling.started:
                ready = [*ready, *self.polling.look()]
        fds.pass_number = this_pass = fds.pass_number + 1

        # Accept the wake-up before any callback runs: what is scheduled later notifies again.
        if self._notified:
            self._accept_notify()

        # Bottom halves: those that are there now. A nested poll takes over what we have left.
        progress = False
        if bhs:
            for _ in self._take_bhs():
                bh = bhs.popleft()
                if type(bh) is tuple:
                    progress = True
                    bh[0]()
                elif bh.state == SCHEDULED:
                    bh.state = 0
                    progress = True
                    bh.callback()
        if self._idle_bhs:
            self._run_idle_bhs()

        # Descriptors, then timers.
        enabled = fds.enabled
        for fd, events in ready:
            handler = enabled.get(fd)
            if handler is None or handler.pass_number > this_pass:
                continue
            handler.pass_number = this_pass
            reader = handler.reader
            if reader is not None and events & READABLE:
                progress = True
                reader()
            elif fds.call(handler, events, this_pass):
                progress = True
        if self._timers_armed and self._run_timers():
            progress = True
        return progress

    def _wait(self) -> Iterable[tuple[int, int]]:
        """Waits for descriptors, a notify, or the first timer: looks for a while, or sleeps."""
        timeout_ns = self.timeout_ns()
        polling = self.polling
        if timeout_ns == 0 or self._notified:
            return polling.look() if polling.started else ()
        if polling.active and polling.window.max_ns:
            return polling.wait(timeout_ns)
        return self.sleep(timeout_ns)

    def timeout_ns(self) -> int:
        """Returns how long a poll may sleep, -1 for ever (aio_compute_timeout). Home only."""
        if self._bhs:
            return 0
        timeout = IDLE_BH_TIMEOUT_NS if self._idle_bhs else -1
        for timers in self._timers_armed:
            deadline = timers.timeout_ns()
            if timeout < 0 or 0 <= deadline < timeout:
                timeout = deadline
        return timeout

    def _run_timers(self) -> bool:
        """Fires what is due, if anything is (timerlistgroup_run_timers)."""
        for timers in self._timers_armed:
            heap = timers.heap
            if not heap or heap[0][0] <= timers.now() or timers.runs:
                return self._fire_timers()
        return False

    def _fire_timers(self) -> bool:
        progress = False
        for timers in self._timer_lists:
            if timers.is_due():
                progress = timers.run() or progress
        # What a callback armed is in a heap now.
        self._timers_armed = [each for each in self._timer_lists if each.heap or each.left_over]
        return progress

    def bh_new(self, callback: Callable[[], None], *, owner: object = None) -> BH:
        """Makes a bottom half, which must be deleted in the end (aio_bh_new)."""
        assert self._current() == self._home, self.stranger()
        return BH(self, callback, owner)

    def timer_new(
        self, clock: ClockType, callback: Callable[[], None], *, owner: object = None
    ) -> Timer:
        """Makes a timer, which is not armed, and must be deleted in the end (aio_timer_new)."""
        assert self._current() == self._home, self.stranger()
        timer = Timer(self, clock, callback, owner)
        self._timer_registry[timer] = None
        return timer

    def clock_ns(self, clock: ClockType) -> int:
        """Reads a clock of the context's world (qemu_clock_get_ns)."""
        return self.world.clock_ns(clock)

    def set_fd_handler(
        self,
        fd: int,
        on_read: Callable[[], None] | None,
        on_write: Callable[[], None] | None,
        *,
        owner: object = None,
        is_external: bool = False,
    ) -> None:
        """Calls one function when fd is readable, another when writable (aio_set_fd_handler).

        Replaces what was set for fd; None for both removes it. Remove before you close fd.
        """
        assert self._current() == self._home, self.stranger()
        if on_read is None and on_write is None:
            self.fds.remove(fd)
        else:
            handler = FdHandler(fd, on_read, on_write, owner, is_external)
            self.fds.set(handler, self.world.audit)
        self._wake()

    def set_event_notifier(
        self,
        notifier: EventNotifier,
        handler: Callable[[EventNotifier], None] | None,
        *,
        owner: object = None,
        is_external: bool = False,
        poll: PollHandler | None = None,
    ) -> None:
        """Calls handler(notifier) while it is set (aio_set_event_notifier).

        The handler clears it. None for the handler removes it. `poll`: how to see the work without
        it (aio_set_event_notifier_poll; see polling.py).
        """
        assert self._current() == self._home, self.stranger()
        fd = notifier.fileno()
        if handler is None:
            self.fds.remove(fd)
        else:
            on_read: Callable[[], None] = MethodType(handler, notifier)
            if poll is not None:
                on_read = partial(self.polling.rung, fd, poll, on_read)
            entry = FdHandler(fd, on_read, None, owner, is_external)
            entry.kind = "notifier"
            entry.poll = poll
            self.fds.set(entry, self.world.audit)
        self._wake()

    def set_poll_params(self, max_ns: int, grow: int = 0, shrink: int = 0) -> None:
        """Says how long to look before a sleep (aio_context_set_poll_params); 0: not at all."""
        assert self._current() == self._home, self.stranger()
        self.polling.end()
        self.polling.window = PollWindow(max_ns, grow, shrink)

    def disable_external(self) -> None:
        """Stops watching external handlers until enable_external (aio_disable_external)."""
        assert self._current() == self._home, self.stranger()
        self.fds.disable_external()

    def enable_external(self) -> None:
        """Ends one disable_external (aio_enable_external)."""
        assert self._current() == self._home, self.stranger()
        self.fds.enable_external()
        self._wake()

    @property
    def external_disabled(self) -> bool:
        """Whether external handlers are off (aio_external_disabled)."""
        return self.fds.n_disabled > 0

    @property
    def thread_pool(self) -> ThreadPool:
        """The context's worker threads, started when there is work (aio_get_thread_pool)."""
        if self._thread_pool is None:
            from block.aio.thread_pool import ThreadPool

            assert self._current() == self._home, self.stranger()
            self._thread_pool = ThreadPool(self)
        return self._thread_pool

    def co_schedule(self, co: Coroutine) -> None:
        """Enters a coroutine in this context's next pass; any thread (aio_co_schedule)."""
        if self.world.audit:
            note_coroutine(co, self)
        co.mark_scheduled(self)
        self.bh_schedule_oneshot(co.run_scheduled, owner=co)

    def co_enter(self, co: Coroutine) -> None:
        """Enters a coroutine here: now if at home and in no coroutine, else soon (aio_co_enter)."""
        co.ctx = self
        if self.world.audit:
            note_coroutine(co, self)
        co.wake()

    def fileno(self) -> int | None:
        """Returns a descriptor that is readable when a handler has work; None: see watched()."""
        return self.fds.poller.fileno()

    def prepare(self) -> int:
        """Says how long a foreign loop may sleep for us, in ns, -1 for ever (aio_ctx_prepare).

        From here to `dispatch` nobody counts as awake, so every change notifies.
        """
        assert self._current() == self._home, self.stranger()
        self.polling.end()
        if self.begin_prepare() or self.fds.poller.always_ready:
            return 0
        return self.timeout_ns()

    def dispatch(self) -> bool:
        """Runs what is ready after the foreign loop's sleep (aio_ctx_dispatch)."""
        self.end_prepare()
        return self.poll(False)

    def registrations(self, owner: object = None) -> list[Registration]:
        """Returns what the context holds, for one owner or for all (see audit.py). Home only."""
        assert self._current() == self._home, self.stranger()
        return [each for each in registrations_of(self) if owner is None or each.owner is owner]

    def close(self) -> None:
        """Ends the context: nothing it held is left behind (aio_ctx_finalize). Home only.

        Waits for the thread pool's workers. Bottom halves and timers are deleted, not run.
        """
        if self.closed:
            return
        assert self._current() == self._home, self.stranger()
        if self._thread_pool is not None:
            self._thread_pool.close()
        for bh in list(self._bh_registry):
            bh.delete()
        for timer in list(self._timer_registry):
            timer.delete()
        self._bhs.clear()
        self._idle_bhs.clear()
        self.fds.close()
        self._notifier.close()
        self._maker = self._home = self._awake = 0
        self.closed = True


def _demo() -> None:
    import threading

    from block.aio.demo import Timeline

    say = Timeline()
    ctx = AioContext("demo")
    timer = ctx.timer_new(ClockType.REALTIME, lambda: say("5: the timer fires"))
    timer.mod(ctx.clock_ns(ClockType.REALTIME) + 20_000_000)
    wake = threading.Timer(0.01, lambda: ctx.bh_schedule_oneshot(lambda: say("3: its BH runs")))
    wake.start()
    say("1: a timer in 20 ms, another thread in 10 ms")
    say(f"2: poll sleeps {ctx.timeout_ns() / 1e6:.1f} ms, unless it is woken")
    ctx.poll(True)
    say(f"4: poll sleeps {ctx.timeout_ns() / 1e6:.1f} ms")
    while timer.pending:  # on a busy machine it may have fired by now
        ctx.poll(True)
    wake.join()
    ctx.close()


if __name__ == "__main__":
    _demo()
