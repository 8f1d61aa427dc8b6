# SPDX-License-Identifier: GPL-2.0-only
"""How long a loop looks before it sleeps, and whether looking pays at all (aio-posix.c).

A loop that looks again and again at what it waits for ("polling") needs not be woken, and who
brings the work need not ring. It costs a processor's time meanwhile. Two judges decide:

    PollWindow   how long: QEMU's, made for traffic. It grows while work comes soon, and shrinks
                 when a wait was longer than we would ever look.
    Trial        whether: made for the machine. It compares how long waits take with looking and
                 without, in rounds, and lets the better one go on.

R1  A loop that has nothing to do looks at nothing: one long wait takes the window away.
R2  Looking goes on only while it makes waits a tenth shorter than they usually are. Where somebody
    else wants the processor, it does not: the thread that looks then takes the time of the one it
    waits for. "Usually" is the median, so one hiccup of the machine does not make sleeping look
    bad; but to looking each hiccup counts.
R3  A round of looking ends as soon as it has lost, and each loss in a row makes four times as many
    rounds without. So in the long run a trial costs one wait in a hundred.

Discussion of R3: one could say instead "a look in vain was a loss". But on a busy machine most
looks still find something, and the few others cost a time slice each, as much as twenty waits.
Only the sum tells.
"""

from __future__ import annotations

START_NS = 4_000
ROUND = 32  # waits
MOST_ROUNDS = 128
IDLE_NS = 10_000_000  # a longer wait says nothing about the machine


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

    __slots__ = ("_budget_ns", "_losses", "_measuring", "_rounds", "_spent_ns", "_waits", "looking")

    def __init__(self) -> None:
        self.looking = False
        self._measuring = True
        self._budget_ns = 0  # of a round with looking
        self._waits: list[int] = []  # of this round
        self._spent_ns = 0
        self._rounds = 0  # to go until the next measurement
        self._losses = 1  # rounds without looking, after the next loss

    def note(self, wait_ns: int) -> None:
        """Takes note of how long a wait was."""
        if wait_ns > IDLE_NS:
            return
        self._spent_ns += wait_ns
        self._waits.append(wait_ns)
        if len(self._waits) == ROUND or (self.looking and self._spent_ns > self._budget_ns):
            self._end_round()
            self._waits.clear()
            self._spent_ns = 0

    def _end_round(self) -> None:
        self._rounds -= 1
        if self._measuring:
            self._measuring, self.looking = False, True
            self._budget_ns = ROUND * sorted(self._waits)[ROUND // 2] * 9 // 10
            self._rounds = MOST_ROUNDS
        elif self.looking and self._spent_ns > self._budget_ns:
            self.looking = False
            self._rounds = self._losses
            self._losses = min(4 * self._losses, MOST_ROUNDS)
        elif self.looking:
            self._losses = max(self._losses // 2, 1)
        if not self._rounds:
            self._measuring, self.looking = True, False
