# SPDX-License-Identifier: GPL-2.0-only
"""What every test may ask for, and last words about what was explored and what was skipped.

guest_elf        the toy kernel, built if its sources are newer
leaves_nothing   the test must leave no open descriptor and no thread behind
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import descriptors, needs

KERNEL = "Linux AIO and io_uring complete when the kernel likes"
PROCESSOR = "a guest, or a driver in its stead, runs on a real processor"
KERNEL_QUEUES = ("native", "io_uring")  # what names of parameters begin with
# Why tests stay in the real world with --seed (block/testing/pytest_plugin.py), by place.
REAL_WORLD = {
    "tests/benchmarks/": "measures the machine",
    "tests/block/aio/test_kernel_queue.py": KERNEL,
    "tests/block/protocols/file/test_kernel.py": KERNEL,
    "tests/block/testing/": "makes deterministic worlds of its own",
    "tests/conformance/": "its threads move trees as fast as they can",
    "tests/explore/": "makes deterministic worlds of its own, for each order one",
    "tests/guest/": PROCESSOR,
    "tests/matrix/": PROCESSOR,
    "tests/miniqemu/accel/": PROCESSOR,
    "tests/miniqemu/hw/hostile/": PROCESSOR,
    "tests/miniqemu/hw/test_dataplane.py": "its driver is a real thread",
    "tests/miniqemu/machine/test_biglock.py": "real threads wait for the big lock",
    "tests/miniqemu/machine/test_endurance.py": PROCESSOR,
    "tests/miniqemu/machine/test_machine.py": PROCESSOR,
    "tests/miniqemu/machine/test_microvm.py": PROCESSOR,
    "tests/tutorials/": "makes deterministic worlds of its own",
}
ALIKE = "tests/block/testing/"  # a deterministic world has poll and pipes on Linux, too
SPACES = Path(__file__).parent / "explore" / "spaces.json"
PATIENCE = 5.0
TEARDOWN_SECONDS = 120.0
STDERR = pytest.StashKey[int]()  # the real one, whatever a test's output is captured in


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--portable",
        action="store_true",
        help="tests/block without what only Linux has (tests/support/portable.py)",
    )
    parser.addoption(
        "--keep-spaces",
        action="store_true",
        help="keep the counts of tests/explore in its spaces.json, for the documentation",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[STDERR] = os.dup(2)
    if config.getoption("--portable"):
        from tests.support.portable import leave_linux

        leave_linux()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --portable, tests of Linux's own things are left out, and those that would do the same
    without it; others of --portable without.

    With --seed, tests of some places stay in the real world.
    """
    for item in items:
        reason = _why_real(item)
        if reason:
            item.add_marker(pytest.mark.real_world(reason))
    left_out = [item for item in items if _is_left_out(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not _is_left_out(item)]


def _is_left_out(item: pytest.Item) -> bool:
    if not item.config.getoption("--portable"):
        return item.get_closest_marker("portable") is not None
    return item.get_closest_marker("linux") is not None or item.nodeid.startswith(ALIKE)


def _why_real(item: pytest.Item) -> str:
    """Returns why a test stays in the real world with --seed; "" if it does not."""
    for place, reason in REAL_WORLD.items():
        if item.nodeid.startswith(place):
            return reason
    parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
    if any(isinstance(each, str) and each.startswith(KERNEL_QUEUES) for each in parameters):
        return KERNEL
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What the mark `linux` names must be there."""
    for mark in item.iter_markers("linux"):
        for name in mark.args:
            needs.feature(name)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """A teardown that hangs tells where, and ends the run.

    pytest-timeout interrupts a test once, and pytest's own watch (faulthandler_timeout) ends when
    a test fails: what the failure leaves in disorder would hang for ever.
    """
    stderr = item.config.stash[STDERR]
    faulthandler.dump_traceback_later(TEARDOWN_SECONDS, exit=True, file=stderr)


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[STDERR])


@pytest.fixture(scope="session")
def guest_elf() -> Path:
    """The path of guest/guest.elf, up to date."""
    from tests.support.boot import built_elf

    return built_elf()


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    """Fails a test that leaves descriptors open or threads running."""
    gc.collect()
    before, threads = descriptors.described(), set(threading.enumerate())
    yield
    gc.collect()
    left = set(threading.enumerate()) - threads
    for thread in left:
        thread.join(PATIENCE)
    assert not [thread.name for thread in left if thread.is_alive()]
    assert {fd: what for fd, what in descriptors.described().items() if fd not in before} == {}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI nothing may be skipped, by whatever way (tests/support/needs.py)."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what was explored, and what was skipped and how to get what it needs."""
    _tell_explored(terminalreporter)
    _tell_skipped(terminalreporter)


def _tell_explored(reporter: pytest.TerminalReporter) -> None:
    """How large the spaces of tests/explore were; with --keep-spaces, for the docs, too."""
    reports = [report for each in reporter.stats.values() for report in each]
    told = [pair for report in reports for pair in getattr(report, "user_properties", ())]
    spaces = {space.pop("name"): space for key, space in told if key == "explored"}
    if not spaces:
        return
    reporter.section("explored")
    for name, space in spaces.items():
        reporter.line(
            f"{space['orders']:6} orders, {space['beginnings']:6} beginnings, "
            f"{space['preemptions']} preemptions, {space['seconds']:5.1f} s  {name}"
        )
    seconds = sum(space["seconds"] for space in spaces.values())
    reporter.line(f"{len(spaces)} explorations in {seconds:.0f} s")
    if reporter.config.getoption("--keep-spaces"):
        SPACES.write_text(json.dumps(spaces, indent=1) + "\n")


def _tell_skipped(reporter: pytest.TerminalReporter) -> None:
    reasons: Counter[str] = Counter()
    for report in reporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple):
            reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1
    if reasons:
        reporter.section("skipped, and what would run it")
        for reason, count in reasons.most_common():
            reporter.line(f"{count:5} {reason}")
