# SPDX-License-Identifier: GPL-2.0-only
"""Every piece of the museum: the mistake is found where it was put back, and nowhere else."""

from __future__ import annotations

import inspect
import re

import pytest

from block.testing.replaced import owner_of, replaced
from tutorials.museum import __main__ as command
from tutorials.museum import pieces
from tutorials.museum.pieces import Piece

PATIENCE = 90.0  # 30 on a machine of its own


@pytest.fixture(params=pieces.names())
def piece(request: pytest.FixtureRequest) -> Piece:
    return Piece(request.param)


@pytest.mark.timeout(240)
def test_the_mistake_is_found_when_it_is_put_back(piece: Piece) -> None:
    result = piece.search(mistaken=True, seconds=PATIENCE)
    print(result, result.failure, sep="\n")
    assert piece.is_found(result.failure), "found something else, or nothing"


@pytest.mark.full
@pytest.mark.timeout(240)
def test_the_mended_code_passes_in_every_order(piece: Piece) -> None:
    result = piece.search(mistaken=False, seconds=PATIENCE)
    print(result)
    assert result.failure is None, str(result.failure)
    assert result.complete, "the space is too large to be searched"


def test_the_functions_of_then_have_the_arguments_of_today(piece: Piece) -> None:
    for key, form in piece.forms.items():
        owner, name = owner_of(key)
        today = inspect.getattr_static(owner, name)
        today = getattr(today, "fget", None) or getattr(today, "__func__", today)
        assert list(inspect.signature(form).parameters) == list(
            inspect.signature(today).parameters
        ), key


def test_a_form_is_put_in_place_and_taken_out_again(piece: Piece) -> None:
    def there() -> list[object]:
        return [inspect.getattr_static(*owner_of(key)) for key in piece.forms]

    before = there()
    with replaced(piece.forms):
        assert all(now is not then for now, then in zip(there(), before, strict=True))
    assert there() == before


def test_each_piece_says_what_it_is(piece: Piece) -> None:
    assert len(piece.fix) == 10
    assert piece.text
    assert piece.mistake
    assert piece.seen


def test_a_piece_may_have_all_its_lines_in_the_table() -> None:
    failure = Piece("early_callback").search(mistaken=True).failure
    assert failure is not None
    shown = [row.text for row in failure.rows]
    order = ["self.callback()", "self.request = None", "request = self.request"]
    assert [text for text in shown if text in order] == order


def test_the_command_shows_one_piece_with_what_goes_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.main(["bh_ctx"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^bh_ctx +2014-06-03 .* found +\| .* all pass$", said, re.M)
    assert "\nUsedAfterFree: " in said
    assert "self.state = SCHEDULED" in said
    assert "leaked_bh" not in said


def test_the_command_says_which_pieces_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["bh_ctx", "nonsense"]) == 2
    assert capsys.readouterr().out.startswith("no such piece: nonsense; there are: early_callback,")


def test_the_command_fails_where_a_mistake_is_not_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Piece, "is_found", lambda self, failure: False)
    assert command.main(["leaked_bh"]) == 1
    assert "NOT FOUND" in capsys.readouterr().out


def test_there_are_pieces() -> None:
    assert len(pieces.pieces()) >= 3
