# SPDX-License-Identifier: GPL-2.0-only
"""Options as glibc's getopt_long reads them; the words of a complaint are what C's programs print.

What is expected here was printed by qemu-img 7.2 for `info`, with these options.
"""

from __future__ import annotations

import pytest

from miniqemu.cli.getopt import MissingArgument, UnknownOption, Words

SHORT = "f:hU"
LONG = {
    "help": ("h", False),
    "format": ("f", True),
    "output": ("output", True),
    "object": ("object", True),
    "force-share": ("U", False),
}


def read(line: str, in_order: bool = False) -> tuple[list[tuple[str, str]], list[str]]:
    words = Words(["info", *line.split()], SHORT, LONG, in_order)
    return list(words), words.rest


@pytest.mark.parametrize(
    ("line", "options", "rest"),
    [
        ("", [], []),
        ("x -U y", [("U", "")], ["x", "y"]),
        ("-Ufraw x", [("U", ""), ("f", "raw")], ["x"]),
        ("-U -f raw x", [("U", ""), ("f", "raw")], ["x"]),
        ("x -f -U y", [("f", "-U")], ["x", "y"]),
        ("--output=json x", [("output", "json")], ["x"]),
        ("x --outp json", [("output", "json")], ["x"]),
        ("--output= x", [("output", "")], ["x"]),
        ("--force x", [("U", "")], ["x"]),
        ("x -- -U", [], ["x", "-U"]),
        ("-U x -- y -U", [("U", "")], ["x", "y", "-U"]),
        ("a -U b -U c", [("U", ""), ("U", "")], ["a", "b", "c"]),
        ("- -U", [("U", "")], ["-"]),
    ],
)
def test_options_and_operands_in_any_order(
    line: str, options: list[tuple[str, str]], rest: list[str]
) -> None:
    assert read(line) == (options, rest)


def test_a_posix_environment_wants_options_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSIXLY_CORRECT", "")
    assert read("-U x -f raw") == ([("U", "")], ["x", "-f", "raw"])


def test_in_order_the_first_operand_ends_the_options() -> None:
    assert read("-U x -f raw", in_order=True) == ([("U", "")], ["x", "-f", "raw"])


@pytest.mark.parametrize(
    ("line", "error", "word"),
    [
        ("-x", UnknownOption, "-x"),
        ("--nothing", UnknownOption, "--nothing"),
        ("--fo raw x", UnknownOption, "--fo"),  # --format or --force-share
        ("--o x", UnknownOption, "--o"),
        ("--force-share=yes", UnknownOption, "--force-share=yes"),
        ("-:", UnknownOption, "-:"),
        ("x -qz", UnknownOption, "x"),  # the word before, as -qz has not been left behind yet
        ("-qz", UnknownOption, "info"),
        ("a -U -xU", UnknownOption, "a"),
        ("-f", MissingArgument, "-f"),
        ("-Uf", MissingArgument, "-Uf"),
        ("x --output", MissingArgument, "--output"),
    ],
)
def test_a_complaint_names_the_word_that_c_would_name(
    line: str, error: type[Exception], word: str
) -> None:
    with pytest.raises(error) as caught:
        read(line)
    assert caught.value.args[0] == word


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-x", "invalid option -- 'x'"),
        ("-Uf", "option requires an argument -- 'f'"),
        ("--no=1", "unrecognized option '--no=1'"),
        ("--fo", "option '--fo' is ambiguous; possibilities: '--format' '--force-share'"),
        ("--force-share=1", "option '--force-share' doesn't allow an argument"),
        ("--outp", "option '--output' requires an argument"),
    ],
)
def test_a_complaint_has_the_words_of_c_itself(line: str, said: str) -> None:
    with pytest.raises((UnknownOption, MissingArgument)) as caught:
        read(line)
    assert caught.value.args[1] == said
