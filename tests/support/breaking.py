# SPDX-License-Identifier: GPL-2.0-only
"""Mistakes to be put into the block layer while one of its tests runs (a plugin of pytest).

    pytest -p tests.support.breaking --recordings FOLDER --seed 1 TEST ...

Each is one line of one function, in the way of mistakes that people make: one too many, one
too few, the wrong end of a line, a wake-up that is left out, a number without its remainder.
tests/block/testing/test_replay.py has each found by its test, and found again.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import pytest

from block.testing import pytest_plugin
from block.testing.replaced import owner_of, replaced


class Mistake(NamedTuple):
    """A line of a function, and what it becomes."""

    function: str  # module:qualname
    right: str
    wrong: str


# The test that finds it -> the mistake.
MISTAKES = {
    "tests/block/core/test_keyval.py::test_an_escaped_value_reads_back": Mistake(
        "block.core.keyval:escape", '",,"', '","'
    ),
    "tests/block/qapi/test_qjson.py::test_whoever_reads_it_gets_the_same_value": Mistake(
        "block.qapi.qjson:_escaped", "04X", "03X"
    ),
    "tests/block/ops/test_sparse.py::test_all_is_told_once_and_no_data_are_left_out": Mistake(
        "block.ops.sparse:runs", "end = found[at + 1][2]", "end = found[at][2]"
    ),
    "tests/block/core/test_random_io.py::"
    "test_unaligned_writes_in_flight_together_end_as_one_order_of_them": Mistake(
        "block.core.serialise:TrackedRequest.overlaps",
        "self.overlap_offset < other",
        "self.overlap_offset + 512 < other",
    ),
    "tests/block/aio/test_co_lock.py::"
    "test_a_mutex_is_handed_over_in_the_order_of_arrival[deterministic]": Mistake(
        "block.aio.co_lock:CoMutex.unlock", "popleft", "pop"
    ),
    "tests/block/core/test_drain.py::test_iothread[drain]": Mistake(
        "block.aio.wakeup:WakeUp.notify", "if self._notify_me and", "if self._notify_me > 2 and"
    ),
    "tests/block/core/test_context.py::test_a_tree_moves_under_load_and_loses_nothing": Mistake(
        "block.aio.wakeup:WakeUp.sleep", "if self._notified:", "if self._kicked:"
    ),
    "tests/block/protocols/file/test_driver.py::test_many_writes_at_once_all_arrive": Mistake(
        "block.protocols.file.threads:contiguous_run", "write.offset != end", "write.offset < end"
    ),
    "tests/block/formats/qed/test_requests.py::"
    "test_many_requests_at_once_leave_each_its_bytes[0]": Mistake(
        "block.formats.qed.cluster:_count_contiguous", "return at - index", "return at - index + 1"
    ),
    "tests/block/filters/test_throttle_moves.py::"
    "test_two_iothreads_share_a_group_and_lose_nothing": Mistake(
        "block.objects.throttle_bucket:LeakyBucket.leak", "self.avg * delta", "2 * self.avg * delta"
    ),
}


def mutated(mistake: Mistake) -> Callable[..., Any]:
    """Returns a function with its mistake."""
    owner, name = owner_of(mistake.function)
    source = textwrap.dedent(inspect.getsource(inspect.getattr_static(owner, name)))
    assert mistake.right in source, f"{mistake.function} has no {mistake.right!r} any more"
    made: dict[str, Any] = {}
    module = sys.modules[mistake.function.partition(":")[0]]
    broken = "from __future__ import annotations\n" + source.replace(mistake.right, mistake.wrong)
    exec(compile(broken, f"<{mistake.function}>", "exec"), vars(module), made)
    function: Callable[..., Any] = made[name]
    return function


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--recordings", default=pytest_plugin.FOLDER, help="where they are kept")


def pytest_configure(config: pytest.Config) -> None:
    pytest_plugin.FOLDER = config.getoption("--recordings")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test of the table runs with its mistake."""
    mistake = MISTAKES.get(item.nodeid)
    if mistake is None:
        return (yield)
    with replaced({mistake.function: mutated(mistake)}):
        return (yield)
