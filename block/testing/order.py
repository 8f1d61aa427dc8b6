# SPDX-License-Identifier: GPL-2.0-only
"""What must come before what in a run, and which steps could as well have come the other way round.

An *event* is a step of a thread together with what it touches. Two events *conflict* if they are
of different threads and touch the same thing, and one of them changes it. One event *precedes*
another if both are of one thread, in that order, or if they conflict, in that order; or by
several such steps. Runs with the same events that precede each other in the same way are
*equivalent*: each can be had from the other by swapping neighbours that do not conflict, and
nobody sees a difference.

    clocks       for each thread, how many events of each thread precede its next one
    fingerprint  a number that equivalent runs share: the sum of a hash of each event,
                 which holds what it read: the hashes of those it conflicts with
    races        pairs of conflicting events: the other order may be possible, and lead elsewhere

R1  Whoever releases a lock lets another one in; the other order is not possible. So a release
    precedes what comes next, and is in no race, except with a try (accesses.py).
R2  When the clocks have jumped, all that was precedes all that comes: they jump only when nobody
    can go on.

Fingerprints are sums of 61-bit hashes; that two different ones are equal by chance is less likely
than an error of the machine. They are the same in each process: only whole numbers are hashed.
"""

from __future__ import annotations

from block.testing.accesses import RELEASE, TRY, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from block.testing.report import Row
    from block.testing.search import Node

MASK = (1 << 61) - 1


class Event:
    """A step that has touched something."""

    __slots__ = ("first", "last", "node", "row", "thread", "time", "turn")

    def __init__(self, thread: int, time: int) -> None:
        self.thread = thread
        self.time = time  # its number among the thread's events
        self.node: Node | None = None  # where it could be decided otherwise; None: nowhere
        self.turn: Node | None = None  # the same for the first event of the thread's present turn
        self.first = self.last = 0  # the nodes from the second event of that turn up to this one
        self.row: Row | None = None  # where it is noted, if it is


class _Thing:
    """What has been done with one thing in this run.

    only  the one thread that has touched it, 0 if there are several. Most things are of that kind:
          such a thread knows what it has done itself, and is in no race.
    """

    __slots__ = ("clock", "hash", "only", "reads", "reads_clock", "reads_hash", "releases",
                 "writes")  # fmt: skip

    def __init__(self, thread: int) -> None:
        self.only = thread
        self.hash = 1  # of the last change
        self.clock: dict[int, int] = {}  # what precedes those who read it next
        self.reads_hash = 0  # of the reads since
        self.reads_clock: dict[int, int] = {}
        self.writes: dict[int, Event] = {}  # each thread's last
        self.reads: dict[int, Event] = {}
        self.releases: dict[int, Event] = {}


class Order:
    """The events of one run."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A run begins."""
        self.fingerprint = 0
        self.clocks: list[dict[int, int]] = [{}, {}]
        self._hashes = [0, 1]
        self._times = [0, 0]
        self._things: dict[int, _Thing] = {}

    def started(self, parent: int, child: int) -> None:
        """A thread starts another: all that the parent did precedes it."""
        assert child == len(self.clocks)
        clock = dict(self.clocks[parent])
        clock[parent] = self._times[parent]
        self.clocks.append(clock)
        self._hashes.append(hash((self._hashes[parent], child)))
        self._times.append(0)
        self._add_to_fingerprint(self._hashes[child])

    def picked(self, thread: int, which: int) -> None:
        """A thread was given something else than what it would have got."""
        self._hashes[thread] = hash((self._hashes[thread], 7, which))
        self._add_to_fingerprint(self._hashes[thread])

    def waited(self) -> None:
        """The clocks have jumped (R2)."""
        everything = {thread: time for thread, time in enumerate(self._times) if time}
        for thread, clock in enumerate(self.clocks):
            clock.update(everything)
            self._hashes[thread] = hash((self._hashes[thread], self.fingerprint))
        self._add_to_fingerprint(hash((self.fingerprint, 11)))

    def _add_to_fingerprint(self, number: int) -> None:
        self.fingerprint = (self.fingerprint + number) & MASK

    def next_time(self, thread: int) -> int:
        """Returns the number of a thread's next event."""
        return self._times[thread] + 1

    def add(self, event: Event, accesses: list[int]) -> None:
        """An event has happened."""
        thread = event.thread
        self._times[thread] = time = event.time
        clock = self.clocks[thread]
        parts = [self._hashes[thread]]
        things = []
        for access in accesses:
            thing = self._things.get(access >> 2)
            if thing is None:
                thing = self._things[access >> 2] = _Thing(thread)
            kind = access & 3
            changes = kind in (WRITE, RELEASE)
            if thing.only != thread:
                thing.only = 0
                _join(clock, thing.clock)
                if changes:
                    _join(clock, thing.reads_clock)
            parts += (access, thing.hash)
            if changes:
                parts.append(thing.reads_hash)
            things.append((kind, thing))
        mine = self._hashes[thread] = hash(tuple(parts))
        self._add_to_fingerprint(mine)
        snapshot = {**clock, thread: time}
        for kind, thing in things:
            if kind in (WRITE, RELEASE):
                thing.hash = mine
                thing.clock = snapshot
                thing.reads_hash = 0
                thing.reads_clock = {}
                (thing.writes if kind == WRITE else thing.releases)[thread] = event
            else:
                thing.reads_hash = (thing.reads_hash + mine) & MASK
                if thing.only:
                    thing.reads_clock = snapshot
                else:
                    thing.reads_clock = dict(thing.reads_clock)  # it may be somebody's snapshot
                    _join(thing.reads_clock, snapshot)
                thing.reads[thread] = event

    def races(self, thread: int, access: int) -> Sequence[Event]:
        """Returns the last event of each other thread that this access is in a race with.

        To be asked before the access is added. (Without a limit on preemptions one would leave out
        those that precede it for another reason, too. With a limit that loses orders.)
        """
        thing = self._things.get(access >> 2)
        kind = access & 3
        if thing is None or thing.only == thread or kind == RELEASE:
            return ()
        tables = [thing.writes]
        if kind == WRITE:
            tables.append(thing.reads)
        elif kind == TRY:
            tables.append(thing.releases)
        return [event for table in tables for other, event in table.items() if other != thread]

    def precedes(self, event: Event, thread: int) -> bool:
        """Whether an event comes before all that a thread will do."""
        return self.clocks[thread].get(event.thread, 0) >= event.time


def _join(clock: dict[int, int], other: dict[int, int]) -> None:
    for thread, time in other.items():
        if clock.get(thread, 0) < time:
            clock[thread] = time
