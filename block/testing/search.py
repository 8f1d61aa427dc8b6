# SPDX-License-Identifier: GPL-2.0-only
"""The search through the orders of a scenario: the decider of its runs (see explore.py).

The present run is a *path* of nodes: points where it could have gone on otherwise. After a run, the
last node that has something left to try is taken, what comes behind it is dropped, and the
next run is the same up to there: depth first.

What is left out, and why it may be:

  * Orders that are equivalent to one that was run (order.py). After a run, each race in it says
    where another order could lead elsewhere: there, and only there, the other thread is tried
    (dynamic partial-order reduction; Flanagan and Godefroid, 2005). With a limit on preemptions
    that is not enough, since the same order may be had for less if the other thread comes in
    where the first one's turn began. So it is tried there too (Coons, Musuvathi and
    McKinley, 2013).
  * What comes after a state that was seen already, with as many preemptions left. Two runs
    with the same fingerprint, and the same thread running, are in the same state. What was found
    there about races with earlier events is remembered with the state (`touched`, `cut_in`),
    and applied to the present run.

R1  A run that repeats the beginning of another one meets the same points, or it is Diverged.
R2  A point belongs to the event that follows it. Where nothing is touched there is no event, and
    no point: to switch there is the same as to switch a little later.
R3  A thread that is given its turn and blocks at once could not go on in truth; then whoever can
    is tried.
R4  What happens in one order (DeterministicWorld.in_one_order) is no event and has no points: all
    that comes behind it is preceded by it.

tests/block/testing/test_search.py compares it with a search that leaves nothing out, on thousands
of random programs.
"""

from __future__ import annotations

import sys

from block.testing.accesses import Names
from block.testing.choices import candidates
from block.testing.failures import Diverged
from block.testing.order import Event, Order
from block.testing.report import Row, place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from block.testing.scheduler import Scheduler


class Seen:
    """A state that was reached, and what the search found behind it."""

    __slots__ = ("budget", "cut_in", "touched")

    def __init__(self, budget: int) -> None:
        self.budget = budget  # preemptions that were left
        self.touched = 0  # what was done there, as bits (Search._bit)
        self.cut_in = 0  # who must also be tried where the present turn began


class Node:
    """A point of the present run at which it could go on otherwise."""

    __slots__ = ("at", "chosen", "default", "done", "early", "index", "is_pick", "ready", "running",
                 "seen", "todo", "touched", "used")  # fmt: skip

    def __init__(
        self, at: int, ready: int, running: int, chosen: int, used: int, seen: Seen | None
    ) -> None:
        self.at = at  # the number of the step
        self.ready = ready
        self.early = 0  # those of them whose time would be up before it is
        self.running = running
        self.default = self.chosen = chosen
        self.used = used  # preemptions before it
        self.seen = seen
        self.todo = 0
        self.done = 1 << chosen
        self.touched = 0
        self.index = 0
        self.is_pick = False

    def cost(self, choice: int) -> int:
        """Returns the preemptions that a choice takes."""
        if self.is_pick:
            return int(choice != 0)
        if self.early >> choice & 1:
            return 1
        return int(self.running != 0 and choice != self.running)

    def add(self, thread: int) -> None:
        """A thread shall be tried here; if it cannot go on, then whoever can."""
        self.todo |= 1 << thread if self.ready >> thread & 1 else self.ready


class Search:
    """A search through the orders of a scenario: the decider of its runs."""

    def __init__(self) -> None:
        self.names = Names()
        self.order = Order()
        self.bound = 0
        self.path: list[Node] = []
        self.points = 0
        self.tracing = False
        self.rows: list[Row] = []
        self._seen: dict[tuple[int, int], Seen] = {}
        self._bits: dict[tuple[int, int], int] = {}
        self._bit_list: list[tuple[int, int]] = []
        self._plan: dict[int, int] = {}
        self._planned = 0
        self.scheduler: Scheduler

    # -- one run

    def begin(self, scheduler: Scheduler) -> None:
        """A run begins."""
        self.scheduler = scheduler
        self.order.begin()
        self.rows = []
        self._at = 0
        self._depth = 0  # nodes of the path that were passed
        self._used = 0
        self._thread = 1
        self._accesses: list[int] = []
        self._point: Node | None = None  # before the present event
        self._node: Node | None = None  # the same, if it is on the path
        self._turn: Node | None = None  # the point at which the present turn began
        self._turn_first = 0
        self._turn_begins = False
        self._last_key = (-1, -1)
        scheduler.touch = self._accesses.append

    def touch(self, access: int) -> None:
        self._accesses.append(access)

    def started(self, number: int) -> None:
        self.order.started(self._thread, number)

    def waited(self) -> None:
        self._end_event()
        self.order.waited()

    def settled(self) -> None:
        self._accesses.clear()
        self._point = self._node = self._turn = None
        self._turn_begins = False
        self.order.waited()

    def thread(self, ready: int, running: int) -> int:
        if self.scheduler.quiet:
            self._accesses.clear()
            self._thread = running or (ready & -ready).bit_length() - 1
            return self._thread
        if self._accesses:
            self._end_event()
        self._at = at = self._at + 1
        others = ready & ~self.scheduler.early
        chosen = running or (others & -others).bit_length() - 1
        if at in self._plan:
            chosen = self._plan[at]
            if not ready >> chosen & 1:
                raise Diverged(f"step {at}: thread {chosen} could go on before, and cannot now")
        # A turn that began and has touched nothing yet may still be given to others freely.
        if not self._turn_begins or running != self._thread or chosen != running:
            self._new_point(at, ready, running, chosen)
        if self.tracing:
            self._trace(chosen, running)
        self._thread = chosen
        return chosen

    def _new_point(self, at: int, ready: int, running: int, chosen: int) -> None:
        """The next event begins here."""
        seen = self._look_up(running) if ready & (ready - 1) and at > self._planned else None
        self._point = point = Node(at, ready, running, chosen, self._used, seen)
        point.early = self.scheduler.early
        self._node = None
        self._turn_begins = chosen != running
        self._used += point.cost(chosen)

    def blocked(self, accesses: Iterable[int]) -> None:
        self._end_event()
        if self.scheduler.quiet:
            return
        point = self._point
        if point is not None and self._node is None and point.ready & (point.ready - 1):
            # It was given its turn, and could not do a thing.
            self._node = node = self._on_path(point)
            if node.chosen != node.default:
                node.todo |= node.ready
        if self._at >= self._planned:
            self._find_races(self._thread, accesses)
        if self.tracing and self.rows:
            self._mark_races(self.rows[-1], self._thread, accesses)

    def ended(self) -> None:
        self._end_event()

    def pick(self, n: int) -> int:
        if self.scheduler.quiet:
            return 0
        self._end_event()
        self._at = at = self._at + 1
        chosen = self._plan.get(at, 0)
        node = Node(at, (1 << n) - 1, 0, chosen, self._used, None)
        node.is_pick = True
        node.default = 0
        node.todo = node.ready
        self._on_path(node)
        if chosen:
            self._used += 1
            self.order.picked(self._thread, chosen)
        return chosen

    def _on_path(self, node: Node) -> Node:
        """Appends a point to the path, or finds it there if this part is a repetition."""
        if self._depth < len(self.path):
            old = self.path[self._depth]
            if old.at != node.at or old.ready != node.ready:
                raise Diverged(f"step {node.at}: other threads can go on than before")
            node = old
        else:
            node.index = len(self.path)
            self.path.append(node)
            self.points += 1
        self._depth += 1
        return node

    def _end_event(self) -> None:
        """What the running thread has touched since the last point is an event (R4)."""
        if not self._accesses:
            return
        if self.scheduler.quiet:
            self._accesses.clear()
            return
        accesses = list(dict.fromkeys(self._accesses))
        self._accesses.clear()
        thread, order, point = self._thread, self.order, self._point
        if point is not None and self._node is None and point.ready & (point.ready - 1):
            self._node = self._on_path(point)
        if self._turn_begins:
            self._turn = self._node
            self._turn_first = self._depth
            self._turn_begins = False
        event = Event(thread, order.next_time(thread))
        event.node, event.turn = self._node, self._turn
        event.first, event.last = self._turn_first, self._depth
        if self._at >= self._planned:
            self._find_races(thread, accesses)
        if self.tracing and self.rows:
            event.row = self.rows[-1]
            self._mark_races(event.row, thread, accesses)
        order.add(event, accesses)

    def _mark_races(self, row: Row, thread: int, accesses: Iterable[int]) -> None:
        """Notes for the table which lines are in a race that nothing else decides."""
        for access in accesses:
            for event in self.order.races(thread, access):
                if event.row is not None and not self.order.precedes(event, thread):
                    event.row.in_race = row.in_race = True

    def _find_races(self, thread: int, accesses: Iterable[int]) -> None:
        touched = 0
        for access in accesses:
            touched |= self._bit(thread, access)
            for event in self.order.races(thread, access):
                self._reverse(event, thread)
        if self._depth:
            self.path[self._depth - 1].touched |= touched

    def _bit(self, thread: int, access: int) -> int:
        number = self._bits.get((thread, access))
        if number is None:
            number = self._bits[thread, access] = len(self._bit_list)
            self._bit_list.append((thread, access))
        return 1 << number

    def _reverse(self, event: Event, thread: int) -> None:
        """A thread shall be tried before an event, and where the event's turn began."""
        if event.node is not None:
            event.node.add(thread)
        if event.turn is not event.node:
            if event.turn is not None:
                event.turn.add(thread)
            self._cut_in(1 << thread, event.first, event.last)

    def _cut_in(self, threads: int, first: int, last: int) -> None:
        for node in self.path[first:last]:
            if node.seen is not None:
                node.seen.cut_in |= threads

    # -- states that were seen

    def _look_up(self, running: int) -> Seen | None:
        """Leaves the run if its state was seen; else notes that it is now."""
        key = (self.order.fingerprint, running)
        budget = self.bound - self._used
        seen = self._seen.get(key)
        if key == self._last_key:
            return seen
        self._last_key = key
        if seen is None or seen.budget < budget:
            seen = self._seen[key] = Seen(budget)
            return seen
        self._apply(seen, running)
        self.scheduler.abandon()

    def _apply(self, seen: Seen, running: int) -> None:
        """What was found behind a state, as if it had been found in this run."""
        for number in candidates(seen.touched):
            thread, access = self._bit_list[number]
            for event in self.order.races(thread, access):
                self._reverse(event, thread)
        if self.path:
            self.path[-1].touched |= seen.touched
        if running and seen.cut_in:
            if self._turn is not None:
                for thread in candidates(seen.cut_in):
                    self._turn.add(thread)
            self._cut_in(seen.cut_in, self._turn_first, self._depth)

    # -- the next run

    def restart(self, bound: int) -> None:
        """Begins a search with so many preemptions at most."""
        self.bound = bound
        self.path.clear()
        self._seen.clear()
        self._plan = {}
        self._planned = 0

    def plan(self) -> dict[int, int]:
        """Returns the present run's choices, where they differ from what is expected."""
        return {node.at: node.chosen for node in self.path if node.chosen != node.default}

    def next(self) -> bool:
        """Plans the next run; False: there is none."""
        path = self.path
        while path:
            node = path[-1]
            for choice in candidates(node.todo & ~node.done):
                node.done |= 1 << choice
                if node.used + node.cost(choice) <= self.bound:
                    node.chosen = choice
                    self._plan = self.plan()
                    self._planned = node.at
                    return True
            path.pop()
            if node.seen is not None:
                node.seen.touched |= node.touched
            if path:
                path[-1].touched |= node.touched
        return False

    def used(self) -> int:
        """Returns how many preemptions the present run has taken."""
        return self._used

    def replay(self, plan: dict[int, int]) -> None:
        """Plans one run with these choices, of which rows are kept."""
        self.path.clear()
        self._seen.clear()
        self._plan = plan
        self._planned = sys.maxsize
        self.tracing = True

    def _trace(self, chosen: int, running: int) -> None:
        """Notes the line that begins."""
        thread = self.scheduler.threads[chosen]
        file, line = place(thread, chosen == self._thread)
        early = bool(self.scheduler.early & thread.bit)
        forced = early or (running != 0 and chosen != running)
        label = "its time is up" if early else thread.label
        self.rows.append(Row(chosen, file, line, label, forced))
