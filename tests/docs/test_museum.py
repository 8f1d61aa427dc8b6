# SPDX-License-Identifier: GPL-2.0-only
"""The pages of the bug museum: the story of each piece, its functions, and its picture."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest

from block.testing.explore import Failure
from docs.hooks import museum as hook
from docs.tools import interleaving, museum
from tutorials.museum.pieces import Piece, names

SVG = "{http://www.w3.org/2000/svg}"
each_piece = pytest.mark.parametrize("name", names())


@pytest.fixture(scope="module")
def failure() -> Failure:
    found = Piece("bh_ctx").search(True).failure
    assert found is not None
    return found


@each_piece
def test_a_story_has_a_short_title_and_places_for_what_is_generated(name: str) -> None:
    lines = museum.story(name).splitlines()
    assert lines[0].startswith("# ")
    assert len(museum.title(name)) <= 40, "the navigation shows it"
    marks = [line for line in lines if "[[museum:" in line]
    assert sorted(marks) == [museum.DIFFERENCE, museum.INTERLEAVING]


@each_piece
def test_the_difference_shows_every_function_of_then(name: str) -> None:
    piece = Piece(name)
    text = museum.difference(piece)
    for key in piece.forms:
        assert f'title="{key.partition(":")[2]}, then"' in text
    assert text.count("\n```python") == text.count("\n```\n")
    assert "FORMS" not in text


def test_lines_that_differ_are_marked_and_comments_are_not() -> None:
    then = "def f(self):\n    # as it was\n    a()\n    b()"
    now = "def f(self):\n    # first b\n    b()\n    a()"
    assert museum.marked(then, now) == ([4], [3])


def test_where_nearly_all_has_changed_nothing_is_marked() -> None:
    assert museum.marked("a\nb\nc\nd", "a\nx\ny\nz") == ([], [])


def test_code_is_broken_where_a_person_would_break_it() -> None:
    assert interleaving.wrapped("if a:", 20) == ["if a:"]
    assert interleaving.wrapped("loop.ctx.schedule(loop.request_is_done)", 20) == [
        "loop.ctx.schedule(",
        "    loop.",
        "    request_is_done)",
    ]
    assert interleaving.wrapped("a = b, c", 6) == ["a = b,", "    c"]


def test_a_function_is_shown_without_its_docstring_and_the_type_of_self() -> None:
    piece = Piece("bh_ctx")
    [form] = piece.forms.values()
    assert museum.plain(form).startswith("def schedule(self) -> None:\n    if self.state:")
    assert '"""' not in museum.plain(Piece.search)


def test_a_function_of_nothing_but_a_docstring_stays_a_function() -> None:
    def nothing() -> None:
        """Does nothing."""

    assert museum.plain(nothing) == "def nothing() -> None:\n    pass"


def test_a_page_says_in_how_many_orders_the_program_runs() -> None:
    assert "runs this program once. " in museum.see(Piece("leaked_bh"))
    assert "runs this program in every order that matters. " in museum.see(Piece("bh_ctx"))


def test_what_a_piece_brings_along_is_shown_too() -> None:
    assert museum.helpers(Piece("dispatching")).startswith("_dispatching: dict[WakeUp, bool] = {}")
    assert museum.helpers(Piece("bh_ctx")).startswith("def context_of(")
    assert museum.helpers(Piece("lost_notify")) == ""


def test_a_page_has_the_title_the_plate_and_the_picture() -> None:
    page = museum.page(Piece("bh_ctx"))
    assert f"\n# {museum.title('bh_ctx')}\n" in page
    assert "**Mended**: 3 June 2014, QEMU's commit [`924fe1293c`]" in page
    assert "A turn is taken away once.</figcaption>" in page
    assert "[[museum:" not in page
    figure = page[page.index("<figure") : page.index("</figure>")]
    assert "\n\n" not in figure, "a blank line would end the HTML block"


def test_a_picture_marks_what_was_done_by_force(failure: Failure) -> None:
    drawn = interleaving.picture("bh_ctx", failure)
    assert drawn.svg().count("the turn is taken away") == failure.preemptions == 1
    assert f"{type(failure.error).__name__}: " in drawn.svg()
    for row in failure.rows:
        assert not row.file or interleaving.function_at(row.file, row.line) in drawn.svg()


def test_a_picture_keeps_all_within_its_frame(failure: Failure) -> None:
    drawn = interleaving.picture("bh_ctx", failure)
    root = ElementTree.fromstring(drawn.svg())
    for rect in root.iter(f"{SVG}rect"):
        x, y, width, height = (float(rect.attrib[k]) for k in ("x", "y", "width", "height"))
        assert min(x, y) >= 0
        assert x + width <= drawn.width
        assert y + height <= drawn.height


def test_a_turn_is_all_that_a_thread_does_with_nobody_in_between(failure: Failure) -> None:
    turns = interleaving.turns_of(failure.rows)
    assert sum(len(rows) for rows in turns) == len(failure.rows)
    threads = [rows[0].thread for rows in turns]
    assert all(a != b for a, b in pairwise(threads))


def test_the_place_of_a_line_is_its_innermost_function() -> None:
    line = interleaving.picture.__code__.co_firstlineno
    assert interleaving.function_at(interleaving.__file__, line + 2) == "picture"
    words = interleaving.Words.__init__.__code__.co_firstlineno
    assert interleaving.function_at(interleaving.__file__, words) == "Words.__init__"
    assert interleaving.function_at(interleaving.__file__, 1) == "interleaving"


def test_the_hall_leads_to_every_piece() -> None:
    hall = hook.on_page_markdown(f"a\n\n{hook.MARK}\n\nb")
    assert re.findall(r"\]\((\w+)\.md\)", hall) == [piece.name for piece in museum.pieces()]


def test_the_pieces_stand_behind_the_hall_in_the_navigation() -> None:
    home = {"Home": "index.md"}
    section = [{"The hall": hook.HALL}]
    hook.add_pieces([home, {"The bug museum": section}])
    assert home == {"Home": "index.md"}
    addresses = [address for entry in section for address in entry.values()]
    assert addresses == [hook.HALL, *(f"museum/{piece.name}.md" for piece in museum.pieces())]
