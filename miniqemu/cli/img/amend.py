# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu-img amend`: changes options of an image that is there (img_amend).

No format can do that here yet; it is refused in QEMU's words.
"""

from __future__ import annotations

from block.core import flags as f
from block.core.registry import find_row
from miniqemu.cli.getopt import Words

from .common import IMAGE, add_options, cache_flags, has_help_option, img_open, options_of
from .errors import Failure, misused

LONG = {**IMAGE, "force": ("force", False)}


def run(program: str, argv: list[str]) -> int:
    """Runs the command; the exit status."""
    words = Words(argv, "ho:f:t:pq", LONG)
    given: dict[str, str] = {}
    options: list[str] = []
    for option, value in options_of(program, words):
        if option == "o":
            add_options(options, value)
        given[option] = value
    if not options:
        raise misused(program, "Must specify options (-o)")
    fmt = given.get("f")
    if fmt is not None and has_help_option(options):
        if find_row(fmt) is None:
            raise Failure(f"Unknown file format '{fmt}'")
        raise unsupported(fmt)
    if len(words.rest) != 1:
        raise Failure("Expecting one image file name")
    flags, writethrough = cache_flags(given.get("t", "writeback"))
    blk = img_open(
        words.rest[0],
        fmt,
        flags | f.BDRV_O_RDWR | f.BDRV_O_RESIZE,
        image_opts="image-opts" in given,
        writethrough=writethrough,
    )
    with blk:
        assert blk.bs is not None
        assert blk.bs.drv is not None
        raise unsupported(blk.bs.drv.format_name)


def unsupported(fmt: str) -> Failure:
    """What QEMU says of a format whose options cannot be changed."""
    return Failure(f"Format driver '{fmt}' does not support option amendment")
