# SPDX-License-Identifier: GPL-2.0-only
"""A case that fails, or lacks something, does not take the others along."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib", reason='pip install -e ".[bench]"')
pytest.importorskip("rich", reason='pip install -e ".[bench]"')
pytest.importorskip("uvloop", reason='pip install -e ".[bench]"')

from benchmarks import __main__ as program
from benchmarks.harness import Case, Missing, Run


def case(name: str, run: Run) -> Case:
    """Returns a case without others."""
    return Case(name=name, unit="u", better="higher", ours=run, goal=1.0)


def failing(error: Exception) -> Run:
    """Returns a measurement that raises."""

    def run() -> float:
        raise error

    return run


def test_the_cases_after_a_failed_one_are_measured() -> None:
    cases = [case("bad", failing(EOFError("[the machine ended]"))), case("good", lambda: 2.0)]
    results, failed = program.run(cases, pairs=1)
    assert [row["name"] for row in results] == ["good"]
    assert failed == 1


def test_a_case_whose_program_is_missing_is_left_out_and_is_no_failure() -> None:
    results, failed = program.run([case("no", failing(Missing("qemu-img")))], pairs=1)
    assert (results, failed) == ([], 0)
