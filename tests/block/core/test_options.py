# SPDX-License-Identifier: GPL-2.0-only
"""Values of options, nested and flat forms (block/core/options.py)."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from block.core import options as opt
from block.core.error import BlockError
from block.core.options import Option


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("4k", 4096),
        ("4K", 4096),
        ("1M", 1 << 20),
        ("1G", 1 << 30),
        ("1T", 1 << 40),
        ("1P", 1 << 50),
        ("1e", 1 << 60),
        ("7b", 7),
        ("1.5k", 1536),
        ("0.1K", 102),
        ("1.K", 1024),
        ("0x10", 16),
        ("0x10k", 16384),
        ("0x1E", 30),
        (" 1", 1),
        ("+1", 1),
        ("010", 10),
        ("18446744073709551615", (1 << 64) - 1),
    ],
)
def test_a_size_is_read_as_qemu_reads_it(text: str, size: int) -> None:
    assert opt.parse_size("size", text) == size


@pytest.mark.parametrize(
    "text",
    [
        *("", "k", "1.5", "1.5b", "1e3", "-1", "-0", "1KB", "1k1", ".5M", "1..5k", "1_0"),
        *("0x", "0x1.5", "0x-10", "0x+10", "0x0x10", "0x 10", "0x_10", "+ 1", "++1", "٣"),
    ],
)
def test_what_is_no_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(BlockError) as caught:
        opt.parse_size("size", text)
    assert str(caught.value) == "Parameter 'size' expects a non-negative number below 2^64"
    assert caught.value.hint.startswith("Optional suffix k, M, G, T, P or E means")


MANY = "9" * 5000
"""More digits than Python's int() takes."""


@pytest.mark.parametrize("text", ["16E", "18446744073709551616", MANY], ids=lambda t: t[:20])
def test_a_size_from_2_to_the_64_on_is_out_of_range(text: str) -> None:
    with pytest.raises(BlockError, match=f"^Value '{text}' is out of range for parameter 'size'$"):
        opt.parse_size("size", text)


@pytest.mark.parametrize(
    ("text", "size"), [("0x1K", 1 << 10), (" 0x2m", 2 << 20), ("0XeT", 14 << 40)]
)
def test_a_hexadecimal_size_with_a_suffix_is_a_size_and_warned_of(
    text: str, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert opt.parse_size("size", text) == size
    said = f"warning: Using a multiplier suffix on hex numbers is deprecated: {text}\n"
    assert capsys.readouterr().err == said
    assert opt.parse_size("size", "0x1E") == 30
    assert opt.parse_size("size", "0x1B") == 27
    assert not capsys.readouterr().err


def test_a_fraction_may_have_any_number_of_digits() -> None:
    assert opt.parse_size("size", "1.5" + "0" * 5000 + "k") == 1536
    assert opt.parse_size("size", "1." + "3" * 5000 + "k") == 1365


@given(st.integers(0, (1 << 64) - 1))
def test_every_size_reads_back(size: int) -> None:
    assert opt.parse_size("size", str(size)) == size
    assert opt.parse_size("size", hex(size)) == size
    assert opt.parse_size("size", size) == size


@pytest.mark.parametrize(
    ("value", "number"),
    [("1", 1), ("0x10", 16), ("010", 8), (" 1", 1), ("0", 0), (7, 7), ("-1", (1 << 64) - 1)],
)
def test_a_number_is_read_as_strtoull_reads_it(value: object, number: int) -> None:
    assert opt.parse_number("n", value) == number


@pytest.mark.parametrize(
    "value",
    ["", "1k", "1.5", "x", "1_0", "1 ", "08", "0o17", "0b1", "0x", "+-1", "- 1", True, None],
)
def test_what_is_no_number_is_refused_by_name(value: object) -> None:
    with pytest.raises(BlockError, match=r"^Parameter 'n' expects a number$"):
        opt.parse_number("n", value)


def test_a_number_above_64_bits_is_too_large() -> None:
    with pytest.raises(BlockError, match=r"is too large for parameter 'n'$"):
        opt.parse_number("n", "99999999999999999999999")
    with pytest.raises(BlockError, match=r"is too large for parameter 'n'$"):
        opt.parse_number("n", MANY)


@given(st.integers())
def test_c_reads_its_own_notations_and_signs(number: int) -> None:
    digits = f"{abs(number)}"
    sign = "-" if number < 0 else "+"
    assert opt.c_integer(f" {number}") == opt.c_integer(f"{sign}{digits}") == number
    assert opt.c_integer(f"{sign}{abs(number):#X}") == number
    assert opt.c_integer(f"{sign}0{abs(number):o}") == number


@pytest.mark.parametrize(
    ("value", "truth"),
    [
        *((word, True) for word in ("on", "yes", "true", "y", True)),
        *((word, False) for word in ("off", "no", "false", "n", False)),
    ],
)
def test_a_boolean_is_on_or_off_or_jsons(value: object, truth: bool) -> None:
    assert opt.parse_bool("b", value) is truth


@pytest.mark.parametrize("value", ["ON", "maybe", "1", "", 1, None])
def test_no_other_word_is_a_boolean(value: object) -> None:
    with pytest.raises(BlockError, match=r"^Parameter 'b' expects 'on' or 'off'$"):
        opt.parse_bool("b", value)


def test_an_enumeration_takes_its_words_only() -> None:
    assert opt.parse_enum("aio", "native", ("threads", "native"), "threads") == "native"
    assert opt.parse_enum("aio", None, ("threads", "native"), "threads") == "threads"
    with pytest.raises(BlockError, match=r"^Parameter 'aio' does not accept value 'x'$"):
        opt.parse_enum("aio", "x", ("threads", "native"), "threads")


def test_declared_options_are_taken_and_others_stay() -> None:
    declared = (Option("size", "size"), Option("on", "bool", default=True), Option("s", "string"))
    options: dict[str, object] = {"size": "4k", "other": "x", "s": 5}
    assert opt.take_options(options, declared) == {"size": 4096, "on": True, "s": "5"}
    assert options == {"other": "x"}


def test_the_options_below_a_key_are_taken_with_their_prefix_cut() -> None:
    options: dict[str, object] = {"file.filename": "a", "file.x.y": 1, "file": "n", "filex": 2}
    assert opt.take_sub_options(options, "file") == {"filename": "a", "x.y": 1}
    assert options == {"file": "n", "filex": 2}


def test_flattening_writes_dots_and_numbers() -> None:
    nested = {"file": {"driver": "x", "server": [{"host": "a"}, "b"]}, "backing": None, "e": {}}
    assert opt.flatten(nested) == {
        "file.driver": "x",
        "file.server.0.host": "a",
        "file.server.1": "b",
        "backing": None,
        "e": {},
    }


keys = st.text("abc", min_size=1, max_size=3)
trees = st.recursive(
    st.integers() | st.booleans() | st.text(max_size=3),
    lambda inner: st.dictionaries(keys, inner, min_size=1) | st.lists(inner, min_size=1),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(keys, trees))
def test_crumpling_undoes_flattening(nested: dict[str, object]) -> None:
    assert opt.crumple(opt.flatten(nested)) == nested


def test_a_name_cannot_be_a_value_and_a_tree() -> None:
    with pytest.raises(BlockError, match=r"^Parameters 'file\.\*' used inconsistently$"):
        opt.crumple({"file": "a", "file.x": 1})


def test_a_list_has_no_gaps() -> None:
    with pytest.raises(BlockError, match=r"^Parameter 'a\.1' missing$"):
        opt.crumple({"a.0": 1, "a.2": 1})


def test_help_lists_options_sorted_and_aligned() -> None:
    lines = opt.format_help((Option("size", "size", "Virtual disk size"), Option("b", "bool")))
    assert lines == ["  b=<bool (on/off)>", "  size=<size>            - Virtual disk size"]
