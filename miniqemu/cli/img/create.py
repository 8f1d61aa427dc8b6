# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu-img create`: makes an image (img_create)."""

from __future__ import annotations

from block.core.error import BlockError
from block.ops.create import Request, help_text, img_create
from miniqemu.cli.getopt import Words
from miniqemu.cli.output import write

from .common import HELP, add_options, cvtnum, has_help_option, options_of
from .errors import because, misused

SHORT = "F:b:f:ho:qu"


def run(program: str, argv: list[str]) -> int:
    """Runs the command; the exit status."""
    request, quiet, wants_help = parse(program, argv)
    if wants_help:
        return write(1, help_text(request.fmt, request.filename or None))
    try:
        img_create(request, lambda line: None if quiet else ignore(write(1, line)))
    except BlockError as error:
        raise because(error, f"{request.filename}: ") from error
    return 0


def ignore(_: int) -> None:
    """Nobody reads our output: the image is made all the same."""


def parse(program: str, argv: list[str]) -> tuple[Request, bool, bool]:
    """(what to make, quiet, whether the options' help is wanted)."""
    words = Words(argv, SHORT, HELP)
    flags: dict[str, str] = {}
    options: list[str] = []
    for option, value in options_of(program, words):
        if option == "o":
            add_options(options, value)
        flags[option] = value
    wants_help = has_help_option(options)
    filename, *rest = words.rest or [""]
    if not words.rest and not wants_help:
        raise misused(program, "Expecting image file name")
    size = None
    if rest and not wants_help:
        size = cvtnum("image size", rest[0])
        if rest[1:]:
            raise misused(program, f"Unexpected argument: {rest[1]}")
    request = Request(
        filename,
        flags.get("f", "raw"),
        size,
        ",".join(options),
        flags.get("b"),
        flags.get("F", ""),
        "u" in flags,
    )
    return request, "q" in flags, wants_help
