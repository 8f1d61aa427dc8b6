# SPDX-License-Identifier: GPL-2.0-only
"""Explorations as tests: what is tried is counted, and a failure prints its table of threads."""

from __future__ import annotations

from collections.abc import Callable

from block.testing.explore import Result, explore
from block.testing.world import DeterministicWorld

PATIENCE = 100.0  # for a machine that does much else; each takes a tenth of it alone


def must_hold(
    scenario: Callable[[DeterministicWorld], object],
    preemptions: int = 2,
    watched: tuple[str, ...] = (),
    steps: tuple[str, ...] = ("block.aio",),
) -> Result:
    """Explores a scenario: every order within the limit must be tried, and pass."""
    result = explore(scenario, preemptions, PATIENCE, watched=watched, steps=steps)
    print(result)
    assert result.failure is None, str(result.failure)
    assert result.complete, f"the space is too large: {result}"
    return result
