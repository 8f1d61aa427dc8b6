# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu-img snapshot`: snapshots within an image (img_snapshot).

No format has them here yet: each action is refused in QEMU's words for a format without.
"""

from __future__ import annotations

import errno
import os

from block.core import flags as f
from miniqemu.cli.getopt import Words

from .common import SHARED, img_open, options_of
from .errors import Failure, misused

ACTIONS = "lacd"
# The formats that have them in QEMU, but not here.
UNKNOWN_HERE = ("qcow2",)


def run(program: str, argv: list[str]) -> int:
    """Runs the command; the exit status."""
    words = Words(argv, "la:c:d:hqU", SHARED)
    given: dict[str, str] = {}
    action, name = "", ""
    for option, value in options_of(program, words):
        if option in ACTIONS:
            if action:
                raise misused(program, "Cannot mix '-l', '-a', '-c', '-d'")
            action, name = option, value
        given[option] = value
    if len(words.rest) != 1:
        raise misused(program, "Expecting one image file name")
    flags = 0 if action == "l" else f.BDRV_O_RDWR
    image_opts = "image-opts" in given
    blk = img_open(words.rest[0], None, flags, image_opts=image_opts, force_share="U" in given)
    with blk:
        assert blk.bs is not None
        assert blk.bs.drv is not None
        refuse(action, name, blk.bs.drv.format_name)
    return 0


def refuse(action: str, name: str, fmt: str) -> None:
    """Says that there are none; listing those of a format without prints nothing."""
    if action == "l" and fmt in UNKNOWN_HERE:
        raise Failure(f"Block driver '{fmt}' does not support internal snapshots")
    reason = os.strerror(errno.ENOTSUP)
    complaints = {
        "c": f"Could not create snapshot '{name}': -{errno.ENOTSUP} ({reason})",
        "a": f"Could not apply snapshot '{name}': Block driver does not support snapshots",
        "d": f"Could not delete snapshot '{name}': snapshot not found",
    }
    if action in complaints:
        raise Failure(complaints[action])
