# SPDX-License-Identifier: GPL-2.0-only
"""What a test takes from outside, where no seed reaches: noted while the test runs.

A program that is started, a real thread, a World with the system's clock run as fast as they run. A
test with such a part can still be had again, but for that part; so whoever repeats it is told.

R1  What is watched are the few functions through which one gets there. They do what they always do.
R2  It is noted what was taken, not whether it mattered.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from block.aio.world import World
from block.testing.replaced import owner_of, replaced

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


def _program(popen: object, args: object, *rest: object, **more: object) -> str:
    first = args if isinstance(args, str | bytes | os.PathLike) else next(iter(args))  # type: ignore[call-overload]  # a sequence
    return f"a program ({Path(os.fsdecode(first)).name.split()[0]})"


def _process(*args: object, **more: object) -> str:
    return "a process"


def _thread(*args: object, **more: object) -> str:
    return "a real thread"


def _world(made: World, *args: object, **more: object) -> str:
    own_clock = type(made).clock_ns is not World.clock_ns
    return "" if own_clock else "a World with the system's clock"


WAYS_OUT: dict[str, Callable[..., str]] = {
    "subprocess:Popen.__init__": _program,
    "os:fork": _process,
    "os:forkpty": _process,
    "os:posix_spawn": _process,
    "threading:Thread.start": _thread,
    "block.aio.thread:RealThread.__init__": _thread,
    "block.aio.world:World.__init__": _world,
}


class Outside:
    """Notes what the present test takes from outside."""

    def __init__(self) -> None:
        self.taken: dict[str, None] = {}
        self.ways = dict(WAYS_OUT)

    def begin(self) -> None:
        """A test begins."""
        self.taken = {}

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watches the ways out, from now to the end."""
        with replaced({key: self._noting(key, what) for key, what in self.ways.items()}):
            yield

    def _noting(self, key: str, what: Callable[..., str]) -> Callable[..., Any]:
        owner, name = owner_of(key)
        real = getattr(owner, name)

        def noting(*args: Any, **more: Any) -> Any:
            text = what(*args, **more)
            if text:
                self.taken[text] = None
            return real(*args, **more)

        return noting
