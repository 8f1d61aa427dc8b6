# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu-img dd`: copies blocks of an image into a new one (img_dd)."""

from __future__ import annotations

import os

from block.core import flags as f
from block.core.error import BlockError
from block.core.registry import find_row
from block.ops.create import Request, prepare
from block.ops.dd import DdFailed, copy_blocks
from miniqemu.cli.getopt import Words
from miniqemu.cli.output import write

from .common import SHARED, cvtnum, img_open, options_of
from .errors import Failure, because

OPERANDS = ("bs", "count", "if", "of", "skip")


class Operands:
    """bs=, count=, if=, of= and skip=; `count` and `skip` in blocks."""

    def __init__(self, words: list[str]) -> None:
        self.block_size = 512
        self.count: int | None = None  # all there are
        self.skip = 0
        self.names: dict[str, str] = {}
        for word in words:
            name, equals, value = word.partition("=")
            if not equals or name not in OPERANDS:
                raise Failure(f"unrecognized operand {name}")
            self._take(name, value)
        if len(self.names) < 2:
            raise Failure("Must specify both input and output files")

    def _take(self, name: str, value: str) -> None:
        if name == "bs":
            self.block_size = cvtnum("bs", value, 1, f.INT_MAX)
        elif name == "count":
            self.count = cvtnum("count", value)
        elif name == "skip":
            self.skip = cvtnum("skip", value)
        else:
            self.names[name] = value

    def part_of(self, length: int) -> tuple[int, int]:
        """Where the part of an image begins that is copied, and where it ends.

        As in QEMU `count` counts from the image's first block, also where some are skipped.
        """
        if self.count is not None:
            length = min(length, self.count * self.block_size)
        return self.skip * self.block_size, length


def run(program: str, argv: list[str]) -> int:
    """Runs the command; the exit status."""
    words = Words(argv, "hf:O:U", SHARED)
    given = dict(options_of(program, words))
    operands = Operands(words.rest)
    name, target_name = operands.names["if"], operands.names["of"]
    fmt = given.get("O", "raw")
    source = img_open(
        name, given.get("f"), 0, image_opts="image-opts" in given, force_share="U" in given
    )
    with source:
        start, end = operands.part_of(source.length)
        make_target(target_name, fmt, max(0, end - start))
        with img_open(target_name, fmt, f.BDRV_O_RDWR) as target:
            if start > end:  # like dd: a warning, and an empty image
                write(2, f"{program}: {name}: cannot skip to specified offset\n")
                return 0
            try:
                copy_blocks(source, target, start, end, operands.block_size)
            except DdFailed as error:
                reason = os.strerror(error.errno)
                raise Failure(f"error while {error.what} image file: {reason}") from error
    return 0


def make_target(name: str, fmt: str, size: int) -> None:
    """Makes the new image."""
    if find_row(fmt) is None:
        raise Failure("Unknown file format")
    driver, values = prepare(Request(name, fmt, size))
    try:
        driver.create(name, values)
    except BlockError as error:
        raise because(error, f"{name}: error while creating output image: ") from error
