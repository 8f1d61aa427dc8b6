# SPDX-License-Identifier: GPL-2.0-only
"""The texts in which options arrive (block/core/keyval.py)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from block.core import keyval
from block.core.error import BlockError


def test_pairs_come_in_order_and_a_doubled_comma_is_one() -> None:
    assert keyval.split_opts("file=a,,b.img,if=none") == [("file", "a,b.img"), ("if", "none")]


def test_the_first_value_may_leave_its_name_out() -> None:
    assert keyval.split_opts("iothread,id=t0", "qom-type") == [
        ("qom-type", "iothread"),
        ("id", "t0"),
    ]
    assert keyval.split_opts("a,,b", "file") == [("file", "a,b")]


def test_a_bare_word_is_a_flag_and_the_program_hears_of_it() -> None:
    heard: list[tuple[str, ...]] = []
    pairs = keyval.split_opts("id=x,noreadonly,snapshot", None, lambda *flag: heard.append(flag))
    assert pairs == [("id", "x"), ("readonly", "off"), ("snapshot", "on")]
    assert heard == [("noreadonly", "readonly", "off"), ("snapshot", "snapshot", "on")]


def test_a_request_for_help_is_no_flag() -> None:
    heard: list[tuple[str, ...]] = []
    assert keyval.split_opts("help", None, lambda *flag: heard.append(flag)) == [("help", "on")]
    assert heard == []


def test_of_two_settings_the_later_wins() -> None:
    assert keyval.parse_opts("a=1,a=2") == {"a": "2"}


@given(st.text(), st.text())
def test_an_escaped_value_reads_back(first: str, second: str) -> None:
    text = f"a={keyval.escape(first)},b={keyval.escape(second)}"
    assert keyval.split_opts(text) == [("a", first), ("b", second)]


def test_keyval_nests_by_dots_and_makes_lists_of_numbers() -> None:
    text = "driver=quorum,children.0.driver=raw,children.1=n1,file.filename=a,,b"
    assert keyval.parse_keyval(text) == {
        "driver": "quorum",
        "children": [{"driver": "raw"}, "n1"],
        "file": {"filename": "a,b"},
    }


def test_keyval_takes_an_implied_key_at_the_start_only() -> None:
    assert keyval.parse_keyval("iothread,id=t", "qom-type") == {"qom-type": "iothread", "id": "t"}
    with pytest.raises(BlockError, match=r"^Expected '=' after parameter 'id'$"):
        keyval.parse_keyval("iothread,id", "qom-type")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "Expected '=' after parameter 'a'"),
        ("=x", "Invalid parameter ''"),
        ("1a=x", "Invalid parameter '1a'"),
        ("a..b=x", "Invalid parameter 'a..b'"),
        ("0=x", "Invalid parameter '0'"),
        ("a=1,a.b=2", "Parameters 'a.*' used inconsistently"),
        ("a.b=1,a=2", "Parameters 'a.*' used inconsistently"),
        ("a.0=1,a.b=2", "Parameters 'a.*' used inconsistently"),
        ("a.1=1", "Parameter 'a.0' missing"),
        ("x" * 128 + "=1", f"Parameter '{'x' * 128}' is too long"),
        ("a." + "x" * 128 + "=1", f"Parameter fragment '{'x' * 128}' is too long"),
    ],
)
def test_keyval_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(BlockError) as caught:
        keyval.parse_keyval(text)
    assert str(caught.value) == message


def test_json_may_use_single_quotes() -> None:
    assert keyval.parse_json_object("{'a': \"x'y\", 'b': 'q\"r\\'s'}") == {
        "a": "x'y",
        "b": "q\"r's",
    }


@pytest.mark.parametrize("text", ["{", "x", '{"a" 1}', "[" * 100000])
def test_broken_json_is_one_clear_error(text: str) -> None:
    with pytest.raises(BlockError, match=r"^JSON parse error, "):
        keyval.parse_json_object(text)


@pytest.mark.parametrize("half", [r"\ud800", r"\uDC80", r"\udc80\ud800"])
def test_half_a_character_is_no_json(half: str) -> None:
    with pytest.raises(BlockError) as caught:
        keyval.parse_json_object(f'{{"a": "b\\\\ {half}x"}}')
    assert str(caught.value) == f"JSON parse error, {half[:6]} is not a valid Unicode character"


def test_a_character_may_be_written_in_two_halves() -> None:
    assert keyval.parse_json_object(r'{"a": "\\ud800 \ud83d\ude00"}') == {"a": "\\ud800 \U0001f600"}


def test_json_must_be_an_object() -> None:
    with pytest.raises(BlockError, match=r"^Invalid JSON object given$"):
        keyval.parse_json_object("[]")


def test_a_brace_tells_json_from_keyval() -> None:
    assert keyval.parse_either('{"driver": "raw"}') == keyval.parse_either("driver=raw")
