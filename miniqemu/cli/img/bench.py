# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu-img bench`: how many requests an image serves (img_bench)."""

from __future__ import annotations

from block.aio.world import ClockType, the_world
from block.core import flags as f
from block.core.cache import parse_aio, parse_cache_mode
from block.core.error import BlockError
from block.ops.bench import Bench
from miniqemu.cli.getopt import Words
from miniqemu.cli.output import write

from .common import cvtnum, img_open, integer, one_image, options_of
from .errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

LONG = {
    "help": ("h", False),
    "flush-interval": ("flush", True),
    "image-opts": ("image-opts", False),
    "pattern": ("pattern", True),
    "no-drain": ("no-drain", False),
    "force-share": ("U", False),
}
INTEGERS = {
    "c": (0, f.INT_MAX, "Invalid request count specified"),
    "d": (1, f.INT_MAX, "Invalid queue depth specified"),  # QEMU's waits for ever with 0
    "flush": (0, f.INT_MAX, "Invalid flush interval specified"),
    "pattern": (0, 0xFF, "Invalid pattern byte specified"),
}
SIZES = {
    "o": ("offset", f.INT64_MAX),
    "s": ("buffer size", f.INT_MAX),
    "S": ("step_size", f.INT_MAX),
}


class Wishes:
    """What the command line asks for."""

    def __init__(self, program: str, argv: list[str]) -> None:
        words = Words(argv, "hc:d:f:ni:o:qs:S:t:wU", LONG)
        self.given: dict[str, str] = {}
        self.numbers = {"c": 75000, "d": 64, "flush": 0, "pattern": 0, "o": 0, "s": 4096, "S": 0}
        self.flags, self.writethrough = 0, False
        for option, value in options_of(program, words):
            self.given[option] = value
            self._note(option, value)
        self.name = one_image(program, words)
        if self.numbers["flush"] and "w" not in self.given:
            raise Failure("--flush-interval is only available in write tests")
        if 0 < self.numbers["flush"] < self.numbers["d"]:
            raise Failure("Flush interval can't be smaller than depth")

    def _note(self, option: str, value: str) -> None:
        if option in INTEGERS:
            self.numbers[option] = integer(value, *INTEGERS[option])
        elif option in SIZES:
            name, most = SIZES[option]
            self.numbers[option] = cvtnum(name, value, 0, most)
        elif option == "n":
            self.flags |= f.BDRV_O_NATIVE_AIO
        elif option == "w":
            self.flags |= f.BDRV_O_RDWR
        elif option == "i":
            self.flags |= _parsed(lambda: parse_aio(value), f"Invalid aio option: {value}")
        elif option == "t":
            flags, through = _parsed(lambda: parse_cache_mode(value), "Invalid cache mode")
            self.flags = self.flags & ~f.BDRV_O_CACHE_MASK | flags
            self.writethrough = through


def _parsed(parse: Callable[[], T], complaint: str) -> T:
    try:
        return parse()
    except BlockError:
        raise Failure(complaint) from None


def run(program: str, argv: list[str]) -> int:
    """Runs the command; the exit status."""
    wishes = Wishes(program, argv)
    numbers = wishes.numbers
    blk = img_open(
        wishes.name,
        wishes.given.get("f"),
        wishes.flags,
        image_opts="image-opts" in wishes.given,
        writethrough=wishes.writethrough,
        force_share="U" in wishes.given,
    )
    with blk:
        bench = Bench(blk, numbers["c"], numbers["d"], numbers["s"])
        bench.step = numbers["S"] or numbers["s"]
        bench.offset = numbers["o"]
        bench.writes = "w" in wishes.given
        bench.flush_interval = numbers["flush"]
        bench.drain = "no-drain" not in wishes.given
        bench.pattern = numbers["pattern"]
        write(1, headline(bench))
        clock = the_world()
        start = clock.clock_ns(ClockType.REALTIME)
        bench.run()
        seconds = (clock.clock_ns(ClockType.REALTIME) - start) / 1e9
    return write(1, f"Run completed in {seconds:3.3f} seconds.\n")


def headline(bench: Bench) -> str:
    """What is about to be done."""
    kind = "write" if bench.writes else "read"
    text = (
        f"Sending {bench.left} {kind} requests, {bench.size} bytes each, {bench.depth} in "
        f"parallel (starting at offset {bench.offset}, step size {bench.step})\n"
    )
    if bench.flush_interval:
        text += f"Sending flush every {bench.flush_interval} requests\n"
    return text
