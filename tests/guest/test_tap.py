# SPDX-License-Identifier: GPL-2.0-only
"""The reader of TAP reports: it must not take a bad report for a good one."""

from __future__ import annotations

from tests.support.boot import parse_tap

REPORT = """\
miniqemu guest
TAP version 13
1..3
ok 1 - first
# status is 0x1, expected 0x0
not ok 2 - second
ok 3 - third # SKIP not offered
"""


def test_each_outcome_is_counted_as_what_it_is() -> None:
    tap = parse_tap(REPORT)

    assert (tap.passed, tap.failed, tap.skipped) == (
        ["first"],
        ["second"],
        {"third": "not offered"},
    )
    assert tap.complete


def test_a_report_that_breaks_off_is_not_complete() -> None:
    assert not parse_tap(REPORT.rsplit("ok 3", 1)[0]).complete


def test_no_report_is_not_complete() -> None:
    assert not parse_tap("1..0\n").complete
    assert not parse_tap("panic: trap\n").complete
