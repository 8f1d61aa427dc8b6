# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu-img bitmap`: the dirty bitmaps that an image keeps (img_bitmap).

Actions are done in the order of the command line. Where one fails, those before it stay done.
"""

from __future__ import annotations

from contextlib import ExitStack

from block.core import flags as f
from block.core.error import BlockError
from block.ops import bitmap as ops
from miniqemu.cli.getopt import Words

from .common import IMAGE, cvtnum, img_open, options_of
from .errors import Failure, because

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.node import BlockDriverState

ACTIONS = ("add", "remove", "clear", "enable", "disable", "merge")
LONG = {
    **IMAGE,
    **{action: (action, action == "merge") for action in ACTIONS},
    "granularity": ("g", True),
    "source-file": ("b", True),
    "source-format": ("F", True),
}


class Wishes:
    """What the command line asks for."""

    def __init__(self, program: str, argv: list[str]) -> None:
        words = Words(argv, "b:f:F:g:h", LONG)
        self.given: dict[str, str] = {}
        self.actions: list[tuple[str, str]] = []
        self.granularity = 0
        for option, value in options_of(program, words):
            if option in ACTIONS:
                self.actions.append((option, value))
            elif option == "g":
                self.granularity = cvtnum("granularity", value)
            self.given[option] = value
        self._refuse_mistakes()
        if len(words.rest) != 2:
            raise Failure("Expecting filename and bitmap name")
        self.filename, self.name = words.rest

    def _refuse_mistakes(self) -> None:
        """Refuses what does not go together."""
        if not self.actions:
            raise Failure(
                "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge"
            )
        if self.granularity and "add" not in self.given:
            raise Failure("granularity only supported with --add")
        if "F" in self.given and "b" not in self.given:
            raise Failure("-F only supported with -b")
        if "b" in self.given and "merge" not in self.given:
            raise Failure("Merge bitmap source file only supported with --merge")


def run(program: str, argv: list[str]) -> int:
    """Runs the command; the exit status."""
    wishes = Wishes(program, argv)
    given = wishes.given
    flags = f.BDRV_O_RDWR | f.BDRV_O_NO_BACKING
    with ExitStack() as opened:
        blk = img_open(wishes.filename, given.get("f"), flags, image_opts="image-opts" in given)
        opened.enter_context(blk)
        bs = source = blk.bs
        if "b" in given:
            other = img_open(given["b"], given.get("F"), f.BDRV_O_NO_BACKING)
            source = opened.enter_context(other).bs
        assert bs is not None
        assert source is not None
        for action, value in wishes.actions:
            try:
                _act(action, bs, wishes, source, value)
            except BlockError as error:
                prefix = f"Operation {action} on bitmap {wishes.name} failed: "
                raise because(error, prefix) from error
    return 0


def _act(
    action: str, bs: BlockDriverState, wishes: Wishes, source: BlockDriverState, value: str
) -> None:
    """Does one of the actions. Raises BlockError."""
    name = wishes.name
    if action == "add":
        # QEMU hands it on in 32 bits.
        granularity = wishes.granularity & 0xFFFF_FFFF if wishes.granularity else None
        ops.add(bs, name, granularity, persistent=True)
    elif action == "remove":
        ops.remove(bs, name)
    elif action == "clear":
        ops.clear(bs, name)
    elif action == "merge":
        ops.merge(bs, name, source, value)
    else:
        ops.enable(bs, name, action == "enable")
