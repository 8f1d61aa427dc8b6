# SPDX-License-Identifier: GPL-2.0-only
"""Options of a command line as glibc's getopt_long reads them (glibc, posix/getopt.c).

    words = Words(["info", "disk.img", "--output=json"], "f:hU", {"output": ("output", True)})
    for option, value in words:     # ("output", "json")
    words.rest                      # ["disk.img"]

R1  Options may stand behind operands, unless `in_order`, or where the environment has
    POSIXLY_CORRECT; what follows `--` is operands.
R2  A long option may be shortened as long as it stays the only one; '=' or the next word gives
    its value. Short ones may be written together, the last with its value behind it.
R3  A mistake is told as QEMU's tools tell it, who print argv[optind - 1]. Inside of short
    options written together that is the word before them. It looks odd, and it is what they
    print; so the words are moved about here just as there.

Python's own getopt knows no R3, and argparse costs 8 ms. Pure; any thread.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    # A long option's name -> the name it is reported by, and whether it takes a value.
    LongOptions = Mapping[str, tuple[str, bool]]


class UnknownOption(Exception):
    """There is no such option; the arguments are the word that messages of QEMU's name, and what
    getopt itself says of it."""


class MissingArgument(Exception):
    """An option's value is missing; the arguments are as UnknownOption's."""


class Words:
    """A command line; `argv[0]` is the command itself. Iterate, then look at `rest`."""

    def __init__(
        self, argv: list[str], short: str, long: LongOptions, in_order: bool = False
    ) -> None:
        self.argv = list(argv)
        self.short = short
        self.long = long
        self.in_order = in_order or "POSIXLY_CORRECT" in os.environ
        self.at = 1  # C's optind
        self._rest_of_word = ""
        self._operands = (1, 1)  # those that were skipped over: first, and behind the last

    @property
    def rest(self) -> list[str]:
        """The operands; of use after the last option."""
        return self.argv[self.at :]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        while self._rest_of_word or self._find_option():
            if not self._rest_of_word and self.argv[self.at].startswith("--"):
                yield self._long_option()
            else:
                yield self._short_option()

    def _find_option(self) -> bool:
        """Goes to the next word that is an option; False where there is none."""
        if not self.in_order:
            self._move_operands_back()
            while self.at < len(self.argv) and _is_operand(self.argv[self.at]):
                self.at += 1
            self._operands = (self._operands[0], self.at)
        if self.argv[self.at : self.at + 1] == ["--"]:
            self.at += 1
            self._move_operands_back()
            self._operands = (self._operands[0], len(self.argv))
            self.at = len(self.argv)
        if self.at >= len(self.argv):
            first, behind = self._operands
            if first != behind:
                self.at = first
            return False
        return not _is_operand(self.argv[self.at])

    def _move_operands_back(self) -> None:
        """Puts the operands that were skipped behind the options that came after them."""
        first, behind = self._operands
        if first != behind != self.at:
            moved = self.argv[behind : self.at] + self.argv[first:behind]
            self.argv[first : self.at] = moved
            first += self.at - behind
        elif first == behind:
            first = self.at
        self._operands = (first, self.at)

    def _long_option(self) -> tuple[str, str]:
        word = self.argv[self.at]
        name, equals, value = word[2:].partition("=")
        self.at += 1
        names = [name] if name in self.long else self._starting_with(name)
        if not names:
            raise UnknownOption(word, f"unrecognized option '{word}'")
        if len({self.long[full] for full in names}) > 1:
            those = " ".join(f"'--{full}'" for full in names)
            raise UnknownOption(word, f"option '{word}' is ambiguous; possibilities: {those}")
        option, takes_value = self.long[names[0]]
        if takes_value:
            said = f"option '--{names[0]}' requires an argument"
            return option, value if equals else self._next_word(said)
        if equals:
            raise UnknownOption(word, f"option '--{names[0]}' doesn't allow an argument")
        return option, ""

    def _starting_with(self, name: str) -> list[str]:
        return [full for full in self.long if full.startswith(name)]

    def _short_option(self) -> tuple[str, str]:
        letters = self._rest_of_word or self.argv[self.at][1:]
        letter, self._rest_of_word = letters[0], letters[1:]
        if not self._rest_of_word:
            self.at += 1
        place = self.short.find(letter) if letter not in ":;" else -1
        if place < 0:
            raise UnknownOption(self.argv[self.at - 1], f"invalid option -- '{letter}'")
        if self.short[place + 1 : place + 2] != ":":
            return letter, ""
        if not self._rest_of_word:
            return letter, self._next_word(f"option requires an argument -- '{letter}'")
        value, self._rest_of_word = self._rest_of_word, ""
        self.at += 1
        return letter, value

    def _next_word(self, said: str) -> str:
        if self.at >= len(self.argv):
            raise MissingArgument(self.argv[self.at - 1], said)
        self.at += 1
        return self.argv[self.at - 1]


def _is_operand(word: str) -> bool:
    return not word.startswith("-") or word == "-"
