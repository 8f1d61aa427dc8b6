# SPDX-License-Identifier: GPL-2.0-only
"""The scheduler: fake threads, one of which runs at a time (no counterpart in QEMU).

A fake thread is a greenlet. It runs until it comes to a *step*; there it is decided who goes on.
Steps are at the doors between threads (locks, conditions, gates, notifiers, waits, the start and
the end of threads), and with line steps also between two lines (lines.py).

    running      the one that runs
    ready        those that can go on, as bits
    sleeping     those that wait for descriptors: whether they can go on must be asked
    deadlines    those that wait no longer than until then
    hurried      those whose wait may end before its time, as bits (R6)
    early        those of them that can go on at the present point for no other reason
    quiet        what happens now is not explored (DeterministicWorld.in_one_order)

R1  Nothing happens between two steps but what one thread does. So a run is determined by the
    choices, as long as the code asks its World for time, threads and locks.
R2  The clocks stand still while anybody can go on. When nobody can, they jump to the first
    deadline; if there is none, it is a Deadlock.
R3  The main fake thread is whoever made the scheduler. It has number 1 and runs what it runs
    in any case: a test, or what `explore` calls. 0 is nobody.
R4  A thread that looks again and again and finds nothing gives way to others, at no price;
    and when there are none, a microsecond passes.
R5  When a run is decided, `dying` is set. From then on each step raises, in every thread, so
    that its stack unwinds. When all have, the doors do nothing any more: a coroutine that was
    left suspended may still unwind, when it is collected.
R6  A machine may be so busy that a thread's time is up before another has taken its next step. With
    `early_timeouts` that is a choice: whoever waits for a lock, and not for ever, may be given its
    turn, and finds its time up. The clocks do not move for that; and when nobody else can go on,
    R2 holds as ever.
"""

from __future__ import annotations

from typing import NoReturn

from greenlet import GreenletExit, getcurrent, greenlet

from block.testing.failures import Aborted, Deadlock, Livelock, ThreadDied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from block.testing.choices import Decider

START_NS = 1_000_000_000
SPIN_NS = 1_000
EMPTY_LOOKS = 4
MOST_STEPS = 200_000
MAIN = 1


class FakeThread:
    """A thread that the scheduler runs."""

    __slots__ = ("bit", "ended", "greenlet", "joiners", "label", "name", "number", "target",
                 "waits_for")  # fmt: skip

    def __init__(self, number: int, name: str, target: Callable[[], None] | None) -> None:
        self.number = number
        self.name = name
        self.bit = 1 << number
        self.target = target
        self.greenlet: greenlet = getcurrent()
        self.ended = False
        self.joiners: list[FakeThread] = []
        self.waits_for = ""
        self.label = ""  # the door it is at

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Scheduler:
    """Who takes the next step; see the head of the module."""

    def __init__(self, decider: Decider) -> None:
        self.decider = decider
        self.touch: Callable[[int], None] = decider.touch
        main = FakeThread(MAIN, "main", None)
        self.threads: list[FakeThread] = [FakeThread(0, "nobody", None), main]
        self.running = main
        self.ready = main.bit
        self.sleeping: dict[FakeThread, Callable[[], bool]] = {}
        self.deadlines: dict[FakeThread, int] = {}
        self.giving_way = 0  # those of R4, as bits
        self.hurried = self.early = 0
        self.early_timeouts = False
        self.now_ns = START_NS
        self.n_steps = 0
        self.most_steps = MOST_STEPS
        self.dying = self.closed = self.quiet = False
        self.abort: type[BaseException] = Aborted  # what each step raises then
        self.failure: BaseException | None = None
        self._empty_looks = 0

    def current(self) -> int:
        """Returns the number of the thread that runs."""
        return self.running.number

    # -- steps

    def step(self, label: str) -> None:
        """The running thread comes to a door."""
        me = self.running
        me.label = label
        if self.dying:
            if self.closed:
                return
            raise self.abort
        self.n_steps += 1
        if self.n_steps > self.most_steps:
            self.fail(Livelock(f"more than {self.most_steps} steps; {self.describe()}"))
        if self.giving_way & ~me.bit:
            self.giving_way = self._empty_looks = 0
        chosen = self._choose(me)
        if chosen is not me:
            self._switch(chosen)

    def _choose(self, me: FakeThread) -> FakeThread:
        """Returns who goes on; lets time pass if nobody can."""
        while True:
            if self.sleeping:
                self._ask_sleepers()
            ready = self.ready & ~self.giving_way
            if ready:
                self.early = 0 if self.quiet else self.hurried & ~self.ready
                running = me.number if ready & me.bit else 0
                return self.threads[self.decider.thread(ready | self.early, running)]
            self._wait()

    def _ask_sleepers(self) -> None:
        for thread, has_work in self.sleeping.items():
            if has_work() or self.deadlines.get(thread, self.now_ns + 1) <= self.now_ns:
                self.ready |= thread.bit
            else:
                self.ready &= ~thread.bit

    def _wait(self) -> None:
        """Nobody can go on: lets time pass (R2, R4)."""
        if self.giving_way:
            self.now_ns += SPIN_NS
            self.giving_way = 0
        elif self.deadlines:
            self.now_ns = max(self.now_ns, min(self.deadlines.values()))
        else:
            self.fail(Deadlock(f"nobody can go on: {self.describe()}"))
        self.decider.waited()
        for thread, deadline_ns in self.deadlines.items():
            if deadline_ns <= self.now_ns:
                self.ready |= thread.bit

    def _switch(self, chosen: FakeThread) -> None:
        self.running = chosen
        chosen.greenlet.switch()
        if self.dying:
            raise Aborted

    def others_can_go_on(self) -> bool:
        """Whether a thread besides the running one can."""
        self._ask_sleepers()
        return bool(self.ready & ~self.running.bit)

    def give_way(self) -> None:
        """The running thread does not go on before another has taken a step."""
        self.giving_way = self.running.bit

    def look_was_empty(self) -> None:
        """The running thread has looked for work and found nothing (R4)."""
        self._empty_looks += 1
        if self._empty_looks >= EMPTY_LOOKS:
            self.give_way()

    # -- waiting

    def block(
        self,
        waits_for: str,
        accesses: Iterable[int],
        deadline_ns: int = -1,
        has_work: Callable[[], bool] | None = None,
        early: bool = False,
    ) -> None:
        """Lets the others go on until `wake`, the deadline, or until has_work() says so.

        accesses  what the thread will touch when it goes on
        early     whether the deadline may come at any time (R6)
        """
        me = self.running
        if self.dying:
            raise self.abort
        me.waits_for = waits_for
        self.decider.blocked(accesses)
        self.ready &= ~me.bit
        if deadline_ns >= 0:
            self.deadlines[me] = deadline_ns
        if has_work is not None:
            self.sleeping[me] = has_work
        if early:
            self.hurried |= me.bit
        chosen = self._choose(me)
        if chosen is not me:
            self._switch(chosen)
        self.deadlines.pop(me, None)
        self.sleeping.pop(me, None)
        self.hurried &= ~me.bit
        self.ready |= me.bit

    def wake(self, thread: FakeThread) -> None:
        """A blocked thread can go on."""
        self.ready |= thread.bit

    # -- threads

    def start(self, name: str, target: Callable[[], None]) -> FakeThread:
        """Makes a thread that can go on from now on."""
        self.step("start a thread")
        thread = FakeThread(len(self.threads), name, target)
        thread.greenlet = greenlet(lambda *_: self._run(thread), self.threads[MAIN].greenlet)
        self.threads.append(thread)
        self.ready |= thread.bit
        self.decider.started(thread.number)
        return thread

    def _run(self, me: FakeThread) -> None:
        """Is what a fake thread runs."""
        assert me.target is not None
        try:
            try:
                me.target()
            except Exception as error:
                if self.dying:
                    return  # it was left in the middle of something, which no longer holds (R5)
                died = ThreadDied(f"{me.name}: {error!r}")
                died.__cause__ = error
                self.fail(died)
            self._end(me)
        except (Aborted, GreenletExit):
            pass

    def _end(self, me: FakeThread) -> None:
        """A thread has ended: hands over to another, when its greenlet returns."""
        me.ended = True
        self.ready &= ~me.bit
        for joiner in me.joiners:
            self.wake(joiner)
        chosen = self._choose(me)
        self.running = chosen
        me.greenlet.parent = chosen.greenlet

    # -- the end of a run

    def describe(self) -> str:
        """Says who waits for what."""
        return "; ".join(
            f"{thread.name} " + (f"waits for {thread.waits_for}" if not self.ready & thread.bit
                                 else "can go on")
            for thread in self.threads[1:]
            if not thread.ended
        )  # fmt: skip

    def fail(self, error: BaseException) -> NoReturn:
        """Ends the run with a failure, which the main thread raises."""
        self.decider.ended()
        self.dying = True
        if self.failure is None:
            self.failure = error
        main = self.threads[MAIN]
        if self.running is main:
            raise error
        self.running = main
        main.greenlet.throw(error)
        raise Aborted

    def abandon(self) -> NoReturn:
        """Ends the run: there is nothing new to see in it."""
        self.dying = True
        main = self.threads[MAIN]
        if self.running is not main:
            self.running = main
            main.greenlet.throw(Aborted)
        raise Aborted

    def close(self) -> None:
        """Unwinds all threads but the main one, which calls this after its end."""
        self.dying = True
        for thread in self.threads[MAIN + 1 :]:
            if thread.greenlet and not thread.greenlet.dead:
                self.running = thread
                thread.greenlet.throw(Aborted)
        self.running = self.threads[MAIN]
        self.closed = True
