# SPDX-License-Identifier: GPL-2.0-only
"""How figures, ranges and goals are written, on the terminal and in the documentation."""

from __future__ import annotations

from benchmarks.harness import Result


def figure(value: float | None) -> str:
    """Prints a figure with three significant digits, as a person writes it."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spread(result: Result) -> str:
    """Prints the range of the pairs."""
    low, high = result["spread"] or (0.0, 0.0)
    return f"{figure(low)}..{figure(high)}"


def goal(result: Result) -> str:
    """Prints the goal with its direction."""
    if result["goal"] is None:
        return ""
    return f"{'≥' if result['better'] == 'higher' else '≤'} {figure(result['goal'])}"
