# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu-img resize`: makes an image longer or shorter (img_resize)."""

from __future__ import annotations

from block.core import flags as f
from block.core.error import BlockError
from block.core.options import parse_size
from miniqemu.cli.getopt import Words
from miniqemu.cli.output import write

from .common import IMAGE, img_open, options_of
from .errors import Failure, because, misused

LONG = {**IMAGE, "preallocation": ("preallocation", True), "shrink": ("shrink", False)}
SHRINKING = (
    "Shrinking an image will delete all data beyond the shrunken image's end. Before performing "
    "such an operation, make sure there is no important data there."
)


def run(program: str, argv: list[str]) -> int:
    """Runs the command; the exit status."""
    if len(argv) < 3:
        raise misused(program, "Not enough arguments")
    # The size comes last, and is no option even where it begins with '-'.
    words = Words(argv[:-1], "f:hq", LONG)
    given: dict[str, str] = {}
    for option, value in options_of(program, words):
        given[option] = value
        if option == "preallocation" and value not in f.PREALLOC_MODES:
            raise Failure(f"Invalid preallocation mode '{value}'")
    if len(words.rest) != 1:
        raise misused(program, "Expecting image file name and size")
    sign, text = split_sign(argv[-1])
    try:
        size = parse_size("size", text)
    except BlockError as error:
        raise because(error) from error
    flags = f.BDRV_O_RDWR | f.BDRV_O_RESIZE
    blk = img_open(words.rest[0], given.get("f"), flags, image_opts="image-opts" in given)
    with blk:
        length = blk.length + sign * size if sign else size
        prealloc = given.get("preallocation", "off")
        check(program, blk.length, length, prealloc, "shrink" in given)
        blk.truncate(length, exact=True, prealloc=prealloc)
    return 0 if "q" in given else write(1, "Image resized.\n")


def split_sign(text: str) -> tuple[int, str]:
    """(1, -1 or 0, the size without its sign): longer, shorter, or exactly so long."""
    sign = {"+": 1, "-": -1}.get(text[:1], 0)
    return sign, text[1:] if sign else text


def check(program: str, current: int, length: int, prealloc: str, may_shrink: bool) -> None:
    """Refuses what would lose data without being asked to, and what makes no sense."""
    if not 0 < length <= f.INT64_MAX:
        raise Failure("New image size must be positive")
    if length <= current and prealloc != "off":
        raise Failure("Preallocation can only be used for growing images")
    if length < current and not may_shrink:
        complaint = "Use the --shrink option to perform a shrink operation."
        raise Failure(complaint, hint=f"{program}: warning: {SHRINKING}")
