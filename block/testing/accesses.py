# SPDX-License-Identifier: GPL-2.0-only
"""What a step touches, as numbers: (thing << 2) | kind.

A *thing* is an attribute of an object, the content of a container, a lock, a notifier, a global
variable. Two steps of different threads that touch no common thing, or only read it, can be
swapped and nobody sees the difference. All that the explorer leaves out rests on this.

R1  In two runs that differ only in the order of steps that can be swapped, the same thing has the
    same number. So an object is named by the thread that touched it first and by a count of
    that thread's own; a container, by the object and the attribute that it was found in.
R2  No number is used for two things in one run, so objects are kept alive until its end (`id` would
    be used again). Two containers that the same attribute has held one after the other share
    one: that makes fewer steps independent, never more.
R3  What cannot be told apart is one thing: the kernel's buffers behind sockets; all memory that
    is seen through memoryviews, two of which may be of the same bytes.
"""

from __future__ import annotations

from block.lean import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

READ = 0
WRITE = 1
RELEASE = 2  # ends a time in which others could not: unlock, the end of a thread
TRY = 3  # a read that does not wait for the release

CONTAINERS = (list, dict, set, deque, bytearray)
KERNEL = "kernel"
MEMORY = "memory"


class Names:
    """The numbers of things. The table lives as long as a search; the objects, for one run."""

    def __init__(self) -> None:
        self._table: dict[Hashable, int] = {}
        self.current: Callable[[], int] = lambda: 0
        self._numbers: dict[int, int] = {}  # id of an object -> its number
        self._kept: list[object] = []
        self._counts: dict[int, int] = {}

    def begin(self, current: Callable[[], int]) -> None:
        """A run begins: forgets the objects of the last one."""
        self.forget()
        self.current = current

    def forget(self) -> None:
        """Lets the objects of a run go."""
        self._numbers.clear()
        self._kept.clear()
        self._counts.clear()

    def of(self, name: Hashable) -> int:
        """Returns the number of what has a name."""
        number = self._table.get(name)
        if number is None:
            number = self._table[name] = len(self._table) + 1
        return number

    def new(self) -> int:
        """Returns a number for something that the running thread has made (R1)."""
        thread = self.current()
        count = self._counts[thread] = self._counts.get(thread, 0) + 1
        return self.of((thread, count))

    def number(self, thing: object) -> int:
        """Returns the number of an object."""
        number = self._numbers.get(id(thing))
        if number is None:
            number = self.new()
            self.give(thing, number)
        return number

    def knows(self, thing: object) -> bool:
        """Whether an object has a number."""
        return id(thing) in self._numbers

    def give(self, thing: object, number: int) -> None:
        """Gives an object a number, for this run."""
        self._numbers[id(thing)] = number
        self._kept.append(thing)
