# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu create`: makes a disk image, in the form of `qemu-img create`.

    miniqemu create [-q] [-u] [-f FMT] [-b BACKING -F FMT] [-o OPTIONS] FILE [SIZE]
    miniqemu create --help

A thin skin over block.ops.create.
"""

from __future__ import annotations

import getopt

from block.core.error import BlockError
from block.core.options import size_of_text
from block.ops.create import Request, help_text, img_create

from .miniqemu import write

USAGE = """\
usage: {0} create [-q] [-u] [-f fmt] [-b backing_file [-F backing_fmt]] [-o options]
       filename [size]
Makes a disk image, as `qemu-img create` does

  '-h', '--help'     display this help and exit
  '-f' fmt           the image's format: raw (default) or qcow2
  '-b' backing_file  the image whose data shows where the new one has none (qcow2)
  '-F' backing_fmt   the format of the backing file
  '-o' options       options of the format, name=value[,...]; '-o help' lists them
  '-u'               do not open the backing file: it need not be there
  '-q'               print nothing but errors
  size               in bytes, or with one of the suffixes k, M, G, T, P and E; without it
                     the image is as big as its backing file
"""
BAD_SIZE = (
    "Invalid image size specified. You may use k, M, G, T, P or E suffixes for",
    "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.",
)


class Help(Exception):
    """The person asked how the command is used."""


class Mistake(Exception):
    """What is wrong with the command line; a line each."""


def main(program: str, words: list[str]) -> int:
    """Runs the command; the exit status."""
    try:
        request, quiet, wants_help = parse(words)
    except Help:
        return write(1, USAGE.format(program))
    except Mistake as error:
        write(2, "".join(f"{program}: {line}\n" for line in error.args))
        return 1
    try:
        if wants_help:
            return write(1, help_text(request.fmt, request.filename or None))
        img_create(request, lambda line: None if quiet else ignore(write(1, line)))
    except BlockError as error:
        hint = f"{error.hint}\n" if error.hint else ""
        write(2, f"{program}: {request.filename}: {error}\n{hint}")
        return 1
    return 0


def ignore(_: int) -> None:
    """Nobody reads our output: the image is made all the same."""


def parse(words: list[str]) -> tuple[Request, bool, bool]:
    """(what to make, quiet, the options' help wanted). Raises Help or Mistake."""
    try:
        given, rest = getopt.gnu_getopt(words, "f:F:b:o:quh", ["help"])
    except getopt.GetoptError as error:
        raise Mistake(f"create: {error.msg}") from None
    flags = dict(given)
    if "-h" in flags or "--help" in flags:
        raise Help
    options = [value for flag, value in given if flag == "-o"]
    wants_help = any(text in ("help", "?") for text in options)
    if not rest and not wants_help:
        raise Mistake("Expecting image file name")
    if len(rest) > 2:
        raise Mistake(f"Unexpected argument: {rest[2]}")
    request = Request(
        rest[0] if rest else "",
        flags.get("-f", "raw"),
        _size(rest[1]) if len(rest) == 2 else None,
        ",".join(text for text in options if text),
        flags.get("-b", ""),
        flags.get("-F", ""),
        "-u" in flags,
    )
    return request, "-q" in flags, wants_help


def _size(text: str) -> int:
    size = size_of_text(text)
    if size is None or size < 0:
        raise Mistake(*BAD_SIZE)
    return size
