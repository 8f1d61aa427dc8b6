# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu-img compare`: whether two images hold the same (img_compare).

The exit status is 0 where they do, 1 where they do not, and more where that could not be told.
"""

from __future__ import annotations

from block.ops.compare import CompareFailed, Comparison, Difference
from miniqemu.cli.getopt import Words
from miniqemu.cli.output import write

from .common import SHARED, cache_flags, img_open, options_of
from .errors import Failure, misused
from .progress import Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.backend import BlockBackend

FOUND = {
    "size": "Strict mode: Image size mismatch!\n",
    "status": "Strict mode: Offset {} block status mismatch!\n",
    "content": "Content mismatch at offset {}!\n",
}


def run(program: str, argv: list[str]) -> int:
    """Runs the command; the exit status."""
    words = Words(argv, "hf:F:T:pqsU", SHARED)
    given = dict(options_of(program, words, status=2))
    if len(words.rest) != 2:
        raise misused(program, "Expecting two image file names")
    quiet = "q" in given
    with Progress("p" in given and not quiet, 2.0, "compare") as progress:
        return compare(words.rest, given, quiet, progress)


def compare(names: list[str], given: dict[str, str], quiet: bool, progress: Progress) -> int:
    """Opens both images and compares them."""
    flags, writethrough = cache_flags(given.get("T", "writeback"), "source cache", status=2)

    def say(line: str) -> None:
        if not quiet:
            write(1, line)

    def opened(name: str, fmt: str | None) -> BlockBackend:
        return img_open(
            name,
            fmt,
            flags,
            image_opts="image-opts" in given,
            writethrough=writethrough,
            force_share="U" in given,
            status=2,
        )

    with opened(names[0], given.get("f")) as first, opened(names[1], given.get("F")) as second:
        progress(0)
        comparison = Comparison(
            first,
            second,
            "s" in given,
            progress,
            lambda: say("Warning: Image size mismatch!\n"),
        )
        try:
            difference = comparison.run()
        except CompareFailed as error:
            raise failure(error, names) from error
    say(verdict(difference))
    return 0 if difference is None else 1


def verdict(difference: Difference | None) -> str:
    """The line that tells the outcome."""
    if difference is None:
        return "Images are identical.\n"
    return FOUND[difference.kind].format(difference.offset)


def failure(error: CompareFailed, names: list[str]) -> Failure:
    """What to say where an image could not be read."""
    name = names[error.which]
    if error.offset is None:
        return Failure(f"Sector allocation test failed for {name}", status=3)
    return Failure(f"Error while reading offset {error.offset} of {name}: {error}", status=4)
