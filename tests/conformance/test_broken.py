# SPDX-License-Identifier: GPL-2.0-only
"""The suite finds what it is for: each broken driver is named, with kind and line."""

from __future__ import annotations

import gc
import inspect
import re
from pathlib import Path

import pytest

from block.core import registry
from block.core.driver import BlockDriver
from tests.conformance import broken, hooks
from tests.conformance import run as run_module
from tests.conformance.cells import samples
from tests.conformance.run import Result, run
from tests.conformance.samples import NoSample, Sample, samples_of
from tests.conformance.trees import TREES

ALONE = TREES[0]
FILE = "tests/conformance/broken.py"


HANGS = (broken.MainContext, broken.LosesRequest)
"""They keep the main thread waiting for ever; what is found then does not depend on time."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "PATIENCE", 2.0)


def run_of(driver: type[broken.Memory], folder: Path, moves: int = 30) -> Result:
    """Registers a driver, and runs the suite on it."""
    name = driver.format_name
    row = registry.Row(name, broken.__name__, driver.__name__, protocol=name)
    registry.add_row(row)
    try:
        return run(Sample(name, lambda folder: {"driver": name}), ALONE, moves, folder)
    finally:
        registry.remove_row(row)


def line_of_the_mistake(driver: type[broken.Memory]) -> str:
    lines, first = inspect.getsourcelines(driver)
    return f"{FILE}:{next(n for n, line in enumerate(lines, first) if '# MISTAKE' in line)}"


def test_a_driver_that_is_right_passes(tmp_path: Path) -> None:
    result = run_of(broken.Memory, tmp_path)
    assert result.verdict == "passed"
    assert result.moves == 30
    assert result.requests > 100


@pytest.mark.parametrize(
    ("driver", "kind"),
    [
        (broken.LeavesFd, "fd"),
        (broken.LeavesTimer, "timer"),
        (broken.LeavesBh, "bh"),
        (broken.LeavesAio, "aio"),
        (broken.LeavesCoroutine, "coroutine"),
        (broken.CompletesTwice, "completed twice"),
        (broken.WrongThread, "wrong thread"),
        (broken.MainContext, "bh"),
        (broken.MainTimer, "another context"),
        (broken.OwnsNothing, "bh"),
        (broken.ForgetsWrites, "data"),
        (broken.LeavesAtClose, "timer"),
    ],
    ids=lambda value: getattr(value, "format_name", value),
)
def test_a_mistake_is_named_with_its_line(
    driver: type[broken.Memory], kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if driver in HANGS:
        request.getfixturevalue("impatient")
    finding = run_of(driver, tmp_path).findings[0]
    assert (finding.driver, finding.kind) == (driver.format_name, kind)
    assert finding.where == line_of_the_mistake(driver), finding


@pytest.mark.full
@pytest.mark.parametrize("sample", samples().values(), ids=lambda sample: sample.driver)
def test_a_driver_with_something_to_move_fails_without_its_hooks(
    sample: Sample,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """So no registered driver passes because nobody looked."""
    sample.require(tmp_path)
    moves = hooks.moves_of(sample)
    must_fail = bool(moves.idle or moves.children)
    if must_fail:
        request.getfixturevalue("impatient")
    row = registry.find_row(sample.driver.split()[0])
    assert row is not None
    for hook in ("detach_aio_context", "attach_aio_context"):
        monkeypatch.setattr(type(row.load()), hook, getattr(BlockDriver, hook))
    result = run(sample, ALONE, 30, tmp_path)
    assert bool(result.findings) == must_fail, result.verdict


@pytest.mark.usefixtures("impatient")
def test_a_request_that_nobody_answers_is_found_where_it_waits(tmp_path: Path) -> None:
    findings = run_of(broken.LosesRequest, tmp_path).findings
    where = line_of_the_mistake(broken.LosesRequest)
    assert ("loses-request", "lost", where) in {(f.driver, f.kind, f.where) for f in findings}


@pytest.mark.usefixtures("impatient")
def test_what_waits_for_ever_is_thrown_away_with_its_run(tmp_path: Path) -> None:
    gc.disable()
    try:
        before = suspended_coroutines()
        run_of(broken.LosesRequest, tmp_path)
        assert [co for co in suspended_coroutines() if co not in before] == []
    finally:
        gc.enable()


def suspended_coroutines() -> list[object]:
    """Those that Python has not collected, whoever may have forgotten them."""
    found = [each for each in gc.get_objects() if inspect.iscoroutine(each)]
    return [co for co in found if inspect.getcoroutinestate(co) == inspect.CORO_SUSPENDED]


def test_a_finding_ends_the_run_although_requests_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "HASTE", 0.5)
    result = run_of(broken.LeavesAndLoses, tmp_path)
    assert [finding.kind for finding in result.findings] == ["timer"]
    assert result.seconds < run_module.PATIENCE


def test_wrong_data_is_told_with_who_read_and_who_changed_it_last(tmp_path: Path) -> None:
    finding = run_of(broken.ForgetsWrites, tmp_path).findings[0]
    read = r"co_preadv of \d+ bytes at \d+ \(in \w+ after move \d+, tests/\S+/broken.py:\d+\)"
    assert re.search(f"is wrong at byte \\d+; read by {read}; changed last by co_pw", finding.what)
    assert finding.where in finding.what


def test_a_driver_without_a_sample_is_named() -> None:
    row = registry.Row("nobody-knows", broken.__name__, "Memory")
    with pytest.raises(NoSample, match="'nobody-knows' is registered, but has no create_opts"):
        samples_of(row)
