# SPDX-License-Identifier: GPL-2.0-only
"""Where the scheduler's choices come from: a seed, or a recording of earlier ones.

At a *point* several threads can go on, or several descriptors are ready. Whoever decides gets
the candidates and returns one of them. There are three such deciders, these two and the explorer
(explore.py).

R1  A decider is asked at each step, even if there is one candidate: the explorer counts steps.
R2  Only points with at least two candidates are recorded. A recording is complete: with it, a
    run needs no seed.
R3  A replay that meets other candidates than the recording has says so (Diverged), and when.

Discussion: a thread goes on with three chances in four. If each step were a coin toss, threads
would go in lockstep, and the long runs of one thread that bugs need would hardly occur.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from block.testing.failures import Diverged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Protocol

    class Decider(Protocol):
        """What owns the choices of a run."""

        def thread(self, ready: int, running: int) -> int:
            """Returns who takes the next step.

            ready    the threads that can go on, as bits: 1 << number
            running  the number of the one that has taken the last step, 0 if it cannot go on
            """

        def pick(self, n: int) -> int:
            """Returns which of n things comes first; 0 is as the system has them."""

        def touch(self, access: int) -> None:
            """The running thread reads or changes something (accesses.py)."""

        def started(self, number: int) -> None:
            """The running thread has started that one."""

        def blocked(self, accesses: Iterable[int]) -> None:
            """The running thread would touch this, if it could go on."""

        def ended(self) -> None:
            """The run is decided."""

        def waited(self) -> None:
            """All were idle, and the clocks have jumped."""

        def settled(self) -> None:
            """A part of the run that is not explored is over, and the others are idle."""


STAY = 0.75


def candidates(ready: int) -> list[int]:
    """Returns the numbers of the threads in a mask."""
    return [number for number in range(ready.bit_length()) if ready >> number & 1]


class Chooser:
    """What a seed and a recording share: they need not know what a step does."""

    def __init__(self) -> None:
        self.made: list[tuple[int, int]] = []  # (how many candidates, which) at each point

    def thread(self, ready: int, running: int) -> int:
        if not ready & (ready - 1):
            return ready.bit_length() - 1
        numbers = candidates(ready)
        first = numbers.index(running) if running in numbers else 0
        return numbers[self._make(len(numbers), first)]

    def pick(self, n: int) -> int:
        return self._make(n, 0)

    def _make(self, n: int, first: int) -> int:
        choice = self.choose(n, first)
        self.made.append((n, choice))
        return choice

    def choose(self, n: int, first: int) -> int:
        """Returns one of n; `first` is what a person would expect."""
        return first

    def touch(self, access: int) -> None:
        pass

    def started(self, number: int) -> None:
        pass

    def blocked(self, accesses: Iterable[int]) -> None:
        pass

    def ended(self) -> None:
        pass

    def waited(self) -> None:
        pass

    def settled(self) -> None:
        pass


class Seeded(Chooser):
    """Choices by a generator of random numbers."""

    def __init__(self, seed: int | str) -> None:
        super().__init__()
        self.seed = seed
        self._random = random.Random(seed)

    def choose(self, n: int, first: int) -> int:
        if self._random.random() < STAY:
            return first
        return self._random.randrange(n)


class Replayed(Chooser):
    """The choices of an earlier run, exactly; then, if the run goes on, as a person expects."""

    def __init__(self, choices: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.choices = choices

    def choose(self, n: int, first: int) -> int:
        number = len(self.made)
        if number >= len(self.choices):
            return first
        n_then, choice = self.choices[number]
        if n_then != n:
            raise Diverged(f"choice {number} has {n} candidates, and had {n_then} when recorded")
        return choice


def save(path: Path, test: str, seed: object, choices: Sequence[tuple[int, int]]) -> None:
    """Writes a recording: whose it is, the seed it came from, and the choices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = {"test": test, "seed": seed, "choices": [list(choice) for choice in choices]}
    path.write_text(json.dumps(text) + "\n")


def load(path: Path) -> tuple[str, object, list[tuple[int, int]]]:
    """Reads a recording: (test, seed, choices). Raises ValueError with what is wrong."""
    try:
        text = json.loads(path.read_text())
        return text["test"], text["seed"], [(int(n), int(which)) for n, which in text["choices"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a recording of choices: {error!r}") from error
