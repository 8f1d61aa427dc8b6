# SPDX-License-Identifier: GPL-2.0-only
"""The explorer: runs a scenario in every order that matters.

    result = explore(scenario, preemptions=2, seconds=30)
    assert result.failure is None, result.failure

`scenario(world)` is called anew for each order, in the main fake thread of a new
DeterministicWorld. It may start threads and IOThreads in that world, ends them, and asserts what
must hold. An exception, in any thread, is a failure; so are Deadlock and Livelock.

A *preemption* takes a thread's turn away although it could go on. Where a thread blocks or ends,
somebody else goes on in any case, and who does is a free choice. Nearly all bugs of this
kind need one or two preemptions (Musuvathi and Qadeer, 2007). So the search goes by their
number: first all orders with none, then with one, and so on. The first failure it finds needs
the fewest. Where none is expected, it may begin with the limit (`fewest_first=False`): the orders
with at most two hold those with at most one. Serving ready descriptors in another order than the
system's counts as a preemption, too.

Of the many orders only those are run that can lead elsewhere; search.py says how.

R1  If the search is `complete`, each order with at most so many preemptions is equivalent to one
    that was run; for threads that touch common things only through rewritten code and the
    World's doors. What `steps` does not name has no steps between lines, and what neither
    `steps` nor `watched` names touches things unseen: between two doors only, but races on
    them are not looked for.
R2  Orders of whole steps are tried, not those of a weak memory model: Python has none. Time passes
    only when nobody can go on. With `early_timeouts` a lock's time-out may come before; that is
    nothing one would expect, and counts as a preemption.
R3  A descriptor or a clock that somebody outside changes makes runs diverge, which is reported.
R4  What a scenario does `with world.in_one_order():` is not explored. To build up and to clear away
    takes most of its steps, and is the same in all of them.
R5  The same search gives the same numbers in each process.
"""

from __future__ import annotations

import gc
import inspect
import sys
import threading
import time
import traceback
import warnings

from block.aio.world import set_world
from block.testing.failures import Aborted, Deadlock, Diverged, Livelock
from block.testing.lines import Lines, Recorder
from block.testing.report import rows_that_matter, table, until
from block.testing.search import Search
from block.testing.state import State
from block.testing.world import DeterministicWorld

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from block.testing.choices import Chooser
    from block.testing.report import Row

    Scenario = Callable[[DeterministicWorld], object]

STEPS_OF_A_RUN = 50_000
COLLECT_EVERY = 100
UNSEEN = ("block.aio.world", "block.aio.demo", "block.aio.audit", "block.aio.thread",
          "block.aio.poller", "block.aio.notifier", "block.aio.gate",
          "block.aio.switch_interval")  # fmt: skip


class Failure:
    """A run that has failed, with what is needed to see why and to have it again."""

    def __init__(
        self, error: BaseException, plan: dict[int, int], preemptions: int, n_steps: int
    ) -> None:
        self.error = error
        self.plan = plan  # at which step who goes on, where nobody would expect it
        self.preemptions = preemptions
        self.n_steps = n_steps
        self.threads: list[str] = []
        self.rows: list[Row] = []  # those that matter
        self.all_rows: list[Row] = []

    def __str__(self) -> str:
        return (
            f"{type(self.error).__name__}: {self.error}\n"
            f"{self.n_steps} steps, of which {self.preemptions} by force:\n\n{self.table()}"
        )

    def table(self) -> str:
        """Returns the lines that matter, a column for each thread (report.py)."""
        return table(self.threads, self.rows)

    def data(self) -> dict[str, object]:
        """Returns the same for JSON and for pictures."""
        return {"error": f"{type(self.error).__name__}: {self.error}",
                "preemptions": self.preemptions, "steps": self.n_steps,
                "threads": self.threads, "rows": [row.data() for row in self.rows]}  # fmt: skip


class Result:
    """What a search has found."""

    def __init__(self) -> None:
        self.failure: Failure | None = None
        self.interleavings = 0  # runs to their end
        self.pruned = 0  # runs left because what follows had been seen
        self.points = 0  # places where a run could go on otherwise
        self.steps = 0  # of all runs
        self.threads = 0
        self.preemptions = 0  # as far as the search came to its end
        self.seconds = 0.0
        self.complete = False  # nothing is left within the limit of preemptions

    @property
    def tried(self) -> int:
        """How many orders were begun."""
        return self.interleavings + self.pruned

    def __str__(self) -> str:
        space = "all" if self.complete else "not all"
        return (
            f"{self.interleavings} interleavings and {self.pruned} beginnings of others, {space} "
            f"with at most {self.preemptions} preemptions; {self.points} points, "
            f"{self.steps} steps, {self.threads} threads, {self.seconds:.1f} s"
        )


class Exploration:
    """One call of explore."""

    def __init__(
        self,
        scenario: Scenario,
        lines: Lines,
        state: State,
        seconds: float,
        early_timeouts: bool = False,
    ) -> None:
        self.scenario = scenario
        self.lines = lines
        self.state = state
        self.end = time.monotonic() + seconds
        self.early_timeouts = early_timeouts
        self.search = Search()
        self.result = Result()
        self.reported: list[BaseException] = []

    def run(self, bounds: Iterable[int], shorten: float) -> None:
        """Searches with at most so many preemptions, one bound after the other."""
        search, result = self.search, self.result
        for bound in bounds:
            search.restart(bound)
            more = True
            while more and time.monotonic() < self.end:
                failed = self.once()
                if failed is not None and (
                    result.failure is None or failed.n_steps < result.failure.n_steps
                ):
                    if result.failure is None:
                        self.end = min(self.end, time.monotonic() + shorten)
                    result.failure = failed
                more = search.next()
            result.complete = not more
            result.preemptions = bound
            if more or result.failure is not None:
                break
        result.points = search.points

    def once(self) -> Failure | None:
        """Runs the scenario once, as planned; returns its failure."""
        search = self.search
        world = DeterministicWorld(search, search.names)
        search.begin(world.scheduler)
        world.scheduler.most_steps = STEPS_OF_A_RUN
        world.scheduler.early_timeouts = self.early_timeouts
        before = set_world(world)
        self.state.names(search.names)
        self.lines.recorder.begin(world)
        error: BaseException | None = None
        try:
            self.scenario(world)
        except Aborted:
            pass
        except Exception as raised:
            error = raised
        scheduler = world.scheduler
        if not scheduler.dying:
            search.ended()
        abandoned = scheduler.dying and scheduler.failure is None
        error = next(iter(self.reported), None) or scheduler.failure or error
        n_steps = scheduler.n_steps
        world.close()
        self.lines.recorder.end()
        self.reported.clear()
        self.state.restore()
        set_world(before)
        return self._count(error, abandoned, n_steps, len(scheduler.threads) - 1)

    def _count(
        self, error: BaseException | None, abandoned: bool, n_steps: int, threads: int
    ) -> Failure | None:
        result = self.result
        result.steps += n_steps
        result.threads = max(result.threads, threads)
        if isinstance(error, Diverged):
            raise error
        if abandoned:
            result.pruned += 1
            return None
        result.interleavings += 1
        if (result.interleavings + result.pruned) % COLLECT_EVERY == 0:
            gc.collect()
        if error is None:
            return None
        return Failure(error, self.search.plan(), self.search.used(), n_steps)

    def trace(self, failure: Failure) -> None:
        """Runs a failing order again, and keeps its rows."""
        search = self.search
        search.replay(failure.plan)
        again = self.once()
        rows = search.rows
        if again is not None and not isinstance(again.error, Deadlock | Livelock):
            rows = until(rows, again.error)
        failure.all_rows, failure.rows = rows, rows_that_matter(rows)
        failure.threads = [thread.name for thread in search.scheduler.threads[1:]]

    def forget(self) -> None:
        """Lets go what the last run, and a failing one, have left."""
        self.search.names.forget()
        self.search = Search()
        failure = self.result.failure
        error = None if failure is None else failure.error
        while error is not None:
            traceback.clear_frames(error.__traceback__)
            error = error.__cause__ or error.__context__


def explore(
    scenario: Scenario,
    preemptions: int = 2,
    seconds: float = 30.0,
    *,
    steps: Iterable[str] = ("block.aio",),
    watched: Iterable[str] = (),
    shorten: float = 2.0,
    early_timeouts: bool = False,
    fewest_first: bool = True,
) -> Result:
    """Runs a scenario in every order that matters, up to so many preemptions.

    preemptions     how often a thread may lose its turn in one run
    seconds         when to give up; the result says whether it was `complete`
    steps           modules, or packages, that have steps between lines; the scenario's is one
    watched         modules in which nobody comes in between, but what they touch is noted
    shorten         after a failure: how long to look for one with fewer steps, in seconds
    early_timeouts  whether a wait for a lock may end before its time (R2)
    fewest_first    whether to begin with no preemption; then a failure needs as few as can be
    """
    recorder = Recorder()
    lines = Lines(recorder)
    own = inspect.unwrap(scenario).__module__
    modules = dict.fromkeys(loaded(watched), False)
    modules |= dict.fromkeys([*loaded(steps), own], True)
    state = State(dict.fromkeys([*loaded(("block",)), *modules]))
    exploration = Exploration(scenario, lines, state, seconds, early_timeouts)
    start = time.monotonic()
    hook, threading.excepthook = (
        threading.excepthook,
        lambda args: exploration.reported.append(
            args.exc_value or Livelock("an error without a name")
        ),
    )
    lines.install(modules)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        with warnings.catch_warnings():
            # A run that is left in the middle leaves coroutines that were to begin later.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            exploration.run(range(0 if fewest_first else preemptions, preemptions + 1), shorten)
            exploration.result.seconds = time.monotonic() - start
            if exploration.result.failure is not None:
                exploration.trace(exploration.result.failure)
            exploration.forget()
            gc.collect()
    finally:
        gc.enable()
        gc.unfreeze()
        lines.remove()
        threading.excepthook = hook
    return exploration.result


def run_once(scenario: Scenario, decider: Chooser) -> Result:
    """Runs a scenario in one order, which a seed or a recording chooses; without line steps."""
    result = Result()
    start = time.monotonic()
    state = State(loaded(("block",)))
    world = DeterministicWorld(decider)
    before = set_world(world)
    try:
        scenario(world)
    except Exception as error:
        result.failure = Failure(error, {}, 0, world.scheduler.n_steps)
    finally:
        world.close()
        state.restore()
        set_world(before)
    result.interleavings, result.complete = 1, True
    result.steps, result.threads = world.scheduler.n_steps, len(world.scheduler.threads) - 1
    result.seconds = time.monotonic() - start
    return result


def loaded(names: Iterable[str]) -> list[str]:
    """Returns the loaded modules of these names or in these packages, in order."""
    return sorted(
        module
        for module in sys.modules
        if module not in UNSEEN
        and getattr(sys.modules[module], "__file__", None)
        and any(module == name or module.startswith(name + ".") for name in names)
    )
