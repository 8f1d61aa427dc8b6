# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu-img amend`: changes options of an image that is there (img_amend)."""

from __future__ import annotations

from block.core import flags as f
from block.ops import amend
from miniqemu.cli.getopt import Words
from miniqemu.cli.output import write

from .common import IMAGE, add_options, cache_flags, has_help_option, img_open, options_of
from .errors import Failure, misused
from .progress import Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.backend import BlockBackend

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
    wants_help = has_help_option(options)
    if wants_help and "f" in given:
        return write(1, amend.help_text(given["f"]))
    if len(words.rest) != 1:
        raise Failure("Expecting one image file name")
    with Progress("p" in given and "q" not in given, 1.0, "amend") as progress:
        flags, writethrough = cache_flags(given.get("t", "writeback"))
        blk = img_open(
            words.rest[0],
            given.get("f"),
            flags | f.BDRV_O_RDWR | f.BDRV_O_RESIZE,
            image_opts="image-opts" in given,
            writethrough=writethrough,
        )
        with blk:
            assert blk.bs is not None
            assert blk.bs.drv is not None
            if wants_help:
                return write(1, amend.help_text(blk.bs.drv.format_name))
            change(blk, ",".join(options), progress, "force" in given)
    return 0


def change(blk: BlockBackend, text: str, progress: Progress, force: bool) -> None:
    """Changes the options that the text names."""
    bs = blk.bs
    assert bs is not None
    assert bs.drv is not None
    options = amend.parse(amend.amendable(bs.drv.format_name), text)
    progress(0)
    try:
        amend.amend(bs, options, lambda done, total: progress(100 * done / total), force)
    finally:
        progress(100)
