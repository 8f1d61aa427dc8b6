# SPDX-License-Identifier: GPL-2.0-only
"""What a start takes of Python's library, without the price of the library's modules.

A program's start pays for every module that it imports, and for all that they import in turn:
`collections` makes namedtuple for whoever wants a deque, `signal` makes an enum of each number,
`enum` needs `functools`, and that needs `collections`. The things themselves are written in C
and cost nothing. So what is needed before the first byte comes from here, and is the same object:

    from block.lean import deque, partial        # not: from collections import deque

R1  Only what starts use is here: of every command, or of one that works with qcow2. What runs later
    takes the library's own modules.
R2  Enum and IntEnum are ours: as much of the library's `enum` as a table of names needs. For
    mypy they are the library's.

docs/benchmarks.md shows where the milliseconds of a start go.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from bisect import bisect_right
    from collections import deque
    from collections.abc import Iterator
    from enum import Enum, IntEnum
    from functools import partial, reduce
    from heapq import heapify, heappop, heappush
    from operator import attrgetter, length_hint, ne, or_
    from struct import Struct
    from types import MethodType, coroutine
    from typing import Any
else:
    import _signal as signal
    from _bisect import bisect_right
    from _collections import deque
    from _functools import partial, reduce
    from _heapq import heapify, heappop, heappush
    from _operator import attrgetter, length_hint, ne, or_
    from _struct import Struct

__all__ = [
    "Enum",
    "IntEnum",
    "MethodType",
    "Struct",
    "attrgetter",
    "bisect_right",
    "coroutine",
    "deque",
    "heapify",
    "heappop",
    "heappush",
    "length_hint",
    "ne",
    "or_",
    "partial",
    "reduce",
    "signal",
]

CO_ITERABLE_COROUTINE = 0x100  # inspect's name for it


class TableOfNames(type):
    """The type of enumerations: their public names become their members."""

    members: dict[Any, Any]  # by value, in the order of the source

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> None:
        cls.members = {}
        for key, value in namespace.items():
            if not key.startswith("_"):
                member: Any = cls.__new__(cls, value) if issubclass(cls, int) else cls.__new__(cls)
                member.name, member.value = key, value
                cls.members[value] = member
                setattr(cls, key, member)

    def __call__(cls, value: object) -> Any:
        """The member with a value. ValueError: there is none."""
        try:
            return cls.members[value]
        except KeyError:
            raise ValueError(f"{value!r} is not a valid {cls.__qualname__}") from None

    def __iter__(cls) -> Iterator[Any]:
        return iter(cls.members.values())

    def __len__(cls) -> int:
        return len(cls.members)


if not TYPE_CHECKING:

    class Enum(metaclass=TableOfNames):
        """Names for a set of values; `name` and `value` are a member's two sides."""

        def __repr__(self) -> str:
            return f"<{type(self).__name__}.{self.name}: {self.value!r}>"

    class IntEnum(int, Enum):
        """The same for numbers: each member is one."""

        __repr__ = Enum.__repr__
        __str__ = int.__repr__

    MethodType = type(Enum.__iter__)  # a function that is bound to an object

    def coroutine(function):
        """Lets a generator be awaited (types.coroutine)."""
        code = function.__code__
        function.__code__ = code.replace(co_flags=code.co_flags | CO_ITERABLE_COROUTINE)
        return function
