# SPDX-License-Identifier: GPL-2.0-only
"""block/lean.py: the library's own things, and enumerations that behave as the library's."""

from __future__ import annotations

import bisect
import collections
import enum
import functools
import heapq
import operator
import signal
import struct
import subprocess
import sys
import types
from typing import Any

import pytest

from block import lean


@pytest.mark.parametrize(
    "theirs",
    [
        *(bisect.bisect_right, collections.deque, functools.partial, struct.Struct),
        *(heapq.heapify, heapq.heappop, heapq.heappush),
        *(operator.attrgetter, operator.length_hint, types.MethodType),
    ],
)
def test_what_it_has_is_what_the_library_has(theirs: Any) -> None:
    name = "MethodType" if theirs is types.MethodType else theirs.__name__
    assert getattr(lean, name) is theirs


def test_signals_are_those_of_the_library() -> None:
    assert lean.signal.SIGTERM == signal.SIGTERM
    assert lean.signal.pthread_sigmask(signal.SIG_BLOCK, set()) == signal.pthread_sigmask(
        signal.SIG_BLOCK, set()
    )


def test_a_generator_can_be_awaited() -> None:
    @lean.coroutine
    def pause() -> Any:
        return (yield 1)

    async def work() -> Any:
        return await pause()

    running = work()
    assert running.send(None) == 1
    with pytest.raises(StopIteration) as end:
        running.send(2)
    assert end.value.value == 2


def colours(base: Any) -> Any:
    class Colour(base):  # type: ignore[misc]  # made of either base
        """Some."""

        RED = 4
        BLUE = 7

    return Colour


@pytest.mark.parametrize("base", [enum.Enum, lean.Enum, enum.IntEnum, lean.IntEnum])
def test_an_enumeration_is_as_the_librarys(base: Any) -> None:
    colour = colours(base)
    assert list(colour) == [colour.RED, colour.BLUE]
    assert len(colour) == 2
    assert colour(7) is colour.BLUE
    assert isinstance(colour.RED, colour)
    assert (colour.RED.name, colour.RED.value) == ("RED", 4)
    assert repr(colour.RED) == "<Colour.RED: 4>"
    assert {colour.RED: 1}[colour.RED] == 1
    with pytest.raises(ValueError, match=r"5 is not a valid \S*Colour$"):
        colour(5)


@pytest.mark.parametrize("base", [enum.IntEnum, lean.IntEnum])
def test_a_member_of_a_number_enumeration_is_a_number(base: Any) -> None:
    colour = colours(base)
    assert colour.RED == 4
    assert colour.BLUE > colour.RED
    assert f"{colour.RED}" == "4"
    assert "abcdefgh"[colour.BLUE] == "h"


@pytest.mark.parametrize("base", [enum.Enum, lean.Enum])
def test_a_member_of_another_enumeration_is_only_itself(base: Any) -> None:
    assert colours(base).RED != 4
    assert colours(base).RED != colours(base).RED


def test_it_costs_no_module_of_the_library_that_is_written_in_python() -> None:
    code = (
        "import sys; before = set(sys.modules); import block.lean\n"
        "new = [sys.modules[name] for name in set(sys.modules) - before if name[:5] != 'block']\n"
        "print(*(it.__name__ for it in new if getattr(it, '__file__', '').endswith('.py')))"
    )
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["__future__"]
