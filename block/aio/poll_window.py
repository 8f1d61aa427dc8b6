# SPDX-License-Identifier: GPL-2.0-only
"""How long a loop looks before it sleeps, and whether looking pays at all (aio-posix.c).

A loop that looks again and again at what it waits for ("polling") needs not be woken, and who
brings the work need not ring. It costs a processor's time meanwhile. Two judges decide:

    PollWindow   how long: QEMU's, made for traffic. It grows while work comes soon, and shrinks
                 when a wait was longer than we would ever look.
    Trial        whether: made for the machine. It compares how long the same work takes with
                 looking and without, in rounds, and lets the better one go on.

R1  A loop that has nothing to do looks at nothing: one long wait takes the window away.
R2  Looking goes on only while the same work takes a tenth less time than it usually does. It may
    not: where somebody else wants the processor, the thread that looks takes the time of the one
    it waits for; and where work comes in heaps, looking takes it piece by piece, and each piece
    costs an answer. "Usually" leaves out the hiccups of the machine, so that they do not make
    sleeping look bad; but to looking each one counts.
R3  A round of looking ends as soon as it has lost, and each loss in a row makes four times as many
    rounds without. So in the long run a trial costs one wait in a hundred.
R4  A wait of more than IDLE_NS says nothing about the machine, and is not told to the trial.

Discussion of R3: one could say instead "a look in vain was a loss". But on a busy machine most
looks still find something, and the few others cost a time slice each, as much as twenty waits.
Only the sum tells.
"""

from __future__ import annotations

START_NS = 4_000
ROUND = 32  # cycles of work and waiting
HICCUP = 4  # times longer than the cycle in the middle
MOST_ROUNDS = 128
IDLE_NS = 10_000_000


class PollWindow:
    """How long to look (AioContext.poll_ns and its parameters).

    max_ns  at most so long; 0: never
    grow    by what it is multiplied, 0: by 2
    shrink  by what it is divided, 0: at once to nothing
    """

    __slots__ = ("grow", "max_ns", "ns", "shrink")

    def __init__(self, max_ns: int = 0, grow: int = 0, shrink: int = 0) -> None:
        self.ns = 0
        self.max_ns = max_ns
        self.grow = grow or 2
        self.shrink = shrink

    def adjust(self, wait_ns: int) -> None:
        """Takes note of how long a wait was, looking and sleeping together."""
        if wait_ns <= self.ns:
            return
        if wait_ns > self.max_ns:
            self.ns = self.ns // self.shrink if self.shrink else 0
        elif self.ns < self.max_ns and wait_ns < self.max_ns:
            self.ns = min(self.ns * self.grow if self.ns else START_NS, self.max_ns)


class Trial:
    """Whether looking pays, by experience.

    measure a round without -> look, round by round -> (lost) -> rounds without -> measure
                                   `-> (after a while) -> measure
    """

    __slots__ = (
        "_budget_ns", "_cycles", "_losses", "_measuring", "_rounds", "_spent_ns", "_target",
        "_work", "looking",
    )  # fmt: skip

    def __init__(self) -> None:
        self.looking = False
        self._measuring = True
        self._target = 0  # the work of a round with looking
        self._budget_ns = 0  # what it may take
        self._cycles: list[tuple[int, int]] = []  # of this round: (nanoseconds, work)
        self._spent_ns = self._work = 0  # their sums
        self._rounds = 0  # to go until the next measurement
        self._losses = 1  # rounds without looking, after the next loss

    def note(self, ns: int, work: int) -> None:
        """Takes note of a cycle: some work, and the wait for more. How long, and how much."""
        self._spent_ns += ns
        self._work += work
        self._cycles.append((ns, work))
        if self.looking:
            over = self._work >= self._target or self._spent_ns > self._budget_ns
        else:
            over = len(self._cycles) == ROUND
        if over:
            self._end_round()
            self._cycles.clear()
            self._spent_ns = self._work = 0

    def _end_round(self) -> None:
        self._rounds -= 1
        if self._measuring:
            self._look()
        elif self.looking and self._spent_ns > self._budget_ns:
            self.looking = False
            self._rounds = self._losses
            self._losses = min(4 * self._losses, MOST_ROUNDS)
        elif self.looking:
            self._losses = max(self._losses // 2, 1)
        if self._rounds <= 0:
            self._measuring, self.looking = True, False

    def _look(self) -> None:
        """Begins to look: as much work as in this round, in nine tenths of the usual time."""
        usual = sorted(self._cycles)[ROUND // 2][0]
        cycles = [cycle for cycle in self._cycles if cycle[0] <= HICCUP * usual]
        work = sum(work for _, work in cycles)
        if not work:  # what this loop waits for is not of the kind that can be looked at
            return
        self._measuring, self.looking = False, True
        self._target = max(self._work, ROUND)
        self._budget_ns = sum(ns for ns, _ in cycles) * self._target // work * 9 // 10
        self._rounds = MOST_ROUNDS
