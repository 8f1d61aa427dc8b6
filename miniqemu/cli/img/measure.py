# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu-img measure`: how large an image would be (img_measure)."""

from __future__ import annotations

from block.ops.measure import BadOptions, measure
from miniqemu.cli.getopt import MissingArgument, UnknownOption, Words
from miniqemu.cli.output import write

from .common import OUTPUT, SHARED, add_options, cvtnum, img_open, options_of, wants_json
from .errors import Failure
from .help import help_text
from .snapshot_option import SnapshotOption

LONG = {**SHARED, **OUTPUT, "size": ("size", True)}


class Wishes:
    """What the command line asks for."""

    def __init__(self, program: str, argv: list[str]) -> None:
        words = Words(argv, "hf:O:o:l:U", LONG)
        self.given: dict[str, str] = {}
        self.options: list[str] = []
        self.size: int | None = None
        self.snapshot: SnapshotOption | None = None
        for option, value in options_of(program, words):
            self.given[option] = value
            if option == "o":
                add_options(self.options, value)
            elif option == "l":
                self.snapshot = SnapshotOption(value)
            elif option == "output":
                wants_json(value)
            elif option == "size":
                self.size = cvtnum("image size", value)
        if len(words.rest) > 1:
            raise Failure("At most one filename argument is allowed.")
        self.name = words.rest[0] if words.rest else None
        self._refuse_mistakes()

    def _refuse_mistakes(self) -> None:
        if self.name is None and {"image-opts", "f", "l"} & self.given.keys():
            raise Failure("--image-opts, -f, and -l require a filename argument.")
        if self.name is not None and self.size is not None:
            raise Failure("--size N cannot be used together with a filename.")
        if self.name is None and self.size is None:
            raise Failure("Either --size N or one filename must be specified.")


def run(program: str, argv: list[str]) -> int:
    """Runs the command; the exit status."""
    try:
        wishes = Wishes(program, argv)
    except (UnknownOption, MissingArgument) as error:
        # To this one command QEMU gives the help instead of a complaint of its own.
        write(2, f"{argv[0]}: {error.args[1]}\n")
        return write(1, help_text(program))
    info = measured(wishes)
    if wishes.given.get("output") == "json":
        from block.qapi.qjson import to_json

        return write(1, to_json(dict(info), pretty=True) + "\n")
    lines = [
        f"required size: {info['required']}\n",
        f"fully allocated size: {info['fully-allocated']}\n",
    ]
    if "bitmaps" in info:
        lines.append(f"bitmaps size: {info['bitmaps']}\n")
    return write(1, "".join(lines))


def measured(wishes: Wishes) -> dict[str, int]:
    """Opens the source, if there is one, and asks the target's format."""
    given, fmt = wishes.given, wishes.given.get("O", "raw")
    options = ",".join(wishes.options)
    try:
        if wishes.name is None:
            return measure(fmt, options, wishes.size, None)
        blk = img_open(
            wishes.name,
            given.get("f"),
            0,
            image_opts="image-opts" in given,
            force_share="U" in given,
        )
        with blk:
            assert blk.bs is not None
            if wishes.snapshot is not None:
                wishes.snapshot.load(blk.bs)
            return measure(fmt, options, None, blk.bs)
    except BadOptions as error:
        raise Failure(str(error), f"Invalid options for file format '{fmt}'") from error
