# SPDX-License-Identifier: GPL-2.0-only
"""A failing run as a table: it ends where the error is."""

from __future__ import annotations

from block.testing.report import Row, until
from block.testing.scheduler import MAIN

OTHER = MAIN + 1


class Broken(Exception):
    pass


def fail() -> None:
    raise Broken


def error() -> Broken:
    try:
        fail()
    except Broken as broken:
        return broken
    raise AssertionError


def row(thread: int, line: int) -> Row:
    return Row(thread, __file__, line, "", False)


RAISES = fail.__code__.co_firstlineno + 1
CALLS = error.__code__.co_firstlineno + 2


def test_a_table_ends_with_the_line_that_raised() -> None:
    rows = [row(MAIN, CALLS), row(MAIN, RAISES), row(OTHER, 1), row(MAIN, 2)]
    assert until(rows, error()) == rows[:2]


def test_it_does_so_where_another_thread_than_the_main_one_raised() -> None:
    rows = [row(MAIN, 1), row(OTHER, CALLS), row(OTHER, RAISES), row(MAIN, 2), row(OTHER, 3)]
    assert until(rows, error()) == rows[:3]


def test_where_the_raise_itself_was_not_traced_its_caller_counts() -> None:
    rows = [row(OTHER, 1), row(MAIN, CALLS), row(MAIN, 2)]
    assert until(rows, error()) == rows[:2]


def test_what_others_do_at_the_same_line_later_is_left_out() -> None:
    rows = [row(MAIN, RAISES), row(OTHER, RAISES), row(OTHER, 1)]
    assert until(rows, error()) == rows[:1]


def test_without_a_line_of_the_error_all_rows_stay() -> None:
    rows = [row(MAIN, 1), row(OTHER, 2)]
    assert until(rows, error()) == rows
