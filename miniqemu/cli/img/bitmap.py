# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu-img bitmap`: the dirty bitmaps that an image keeps (img_bitmap).

No format keeps any here yet; each action is refused by name.
"""

from __future__ import annotations

from block.core import flags as f
from miniqemu.cli.getopt import Words

from .common import IMAGE, cvtnum, img_open, options_of
from .errors import Failure

ACTIONS = ("add", "remove", "clear", "enable", "disable", "merge")
LONG = {
    **IMAGE,
    **{action: (action, action == "merge") for action in ACTIONS},
    "granularity": ("g", True),
    "source-file": ("b", True),
    "source-format": ("F", True),
}


def run(program: str, argv: list[str]) -> int:
    """Runs the command; the exit status."""
    words = Words(argv, "b:f:F:g:h", LONG)
    given: dict[str, str] = {}
    for option, value in options_of(program, words):
        given[option] = value
        if option == "g":
            cvtnum("granularity", value)
    action = next((option for option in given if option in ACTIONS), None)
    if action is None:
        raise Failure(
            "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge"
        )
    refuse_mistakes(given)
    if len(words.rest) != 2:
        raise Failure("Expecting filename and bitmap name")
    filename, name = words.rest
    flags = f.BDRV_O_RDWR | f.BDRV_O_NO_BACKING
    with img_open(filename, given.get("f"), flags, image_opts="image-opts" in given) as blk:
        assert blk.bs is not None
        assert blk.bs.drv is not None
        fmt = blk.bs.drv.format_name
        raise Failure(
            f"Operation {action} on bitmap {name} failed: "
            f"Block driver '{fmt}' does not support persistent bitmaps"
        )


def refuse_mistakes(given: dict[str, str]) -> None:
    """Refuses what does not go together."""
    if "g" in given and "add" not in given:
        raise Failure("granularity only supported with --add")
    if "F" in given and "b" not in given:
        raise Failure("-F only supported with -b")
    if "b" in given and "merge" not in given:
        raise Failure("Merge bitmap source file only supported with --merge")
