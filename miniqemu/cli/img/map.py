# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu-img map`: where the data of an image is (img_map, dump_map_entry)."""

from __future__ import annotations

from block.ops.map import walk_map
from miniqemu.cli.getopt import Words
from miniqemu.cli.output import write

from .common import FORMAT, OUTPUT, SHARED, cvtnum, img_open, one_image, options_of, wants_json
from .errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.ops.map import MapEntry

LONG = {
    **SHARED,
    **FORMAT,
    **OUTPUT,
    "start-offset": ("s", True),
    "max-length": ("l", True),
}
NUMBERS = {"s": "start offset", "l": "max length"}


class Printer:
    """Prints extents, many lines at a time; `lost` is 1 where that failed."""

    AT_ONCE = 1000

    def __init__(self, line: Callable[[MapEntry, MapEntry | None], str]) -> None:
        self.line = line
        self.lines: list[str] = []
        self.lost = 0

    def __call__(self, entry: MapEntry, following: MapEntry | None) -> None:
        self.lines.append(self.line(entry, following))
        if len(self.lines) >= self.AT_ONCE:
            self.flush()

    def flush(self) -> None:
        self.lost |= write(1, "".join(self.lines))
        self.lines.clear()


def run(program: str, argv: list[str]) -> int:
    """Runs the command; the exit status."""
    words = Words(argv, "f:s:l:hU", LONG)
    given: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for option, value in options_of(program, words):
        given[option] = value
        if option in NUMBERS:
            numbers[option] = cvtnum(NUMBERS[option], value)
    name = one_image(program, words)
    as_json = wants_json(given.get("output"))
    blk = img_open(
        name,
        given.get("f"),
        0,
        image_opts="image-opts" in given,
        force_share="U" in given,
    )
    with blk:
        start, end = numbers.get("s", 0), blk.length
        if "l" in numbers:
            end = min(end, start + numbers["l"])
        printer = Printer(json_line if as_json else human_line)
        printer.lines.append("[" if as_json else HEAD)
        try:
            assert blk.bs is not None
            walk_map(blk.bs, start, end, printer)
            printer.lines += ["]\n"] if as_json else []
        except OSError as error:
            raise Failure(f"Failed to read image metadata: {error.strerror}") from error
        finally:
            printer.flush()
    return printer.lost


HEAD = f"{'Offset':<16}{'Length':<16}{'Mapped to':<16}File\n"


def human_line(entry: MapEntry, following: MapEntry | None) -> str:
    """A line for a person: only what holds data that are no zeroes.

    Zeroes are all one here, so the next extent forgets how it came to be some: it may then be
    continued by more.
    """
    if entry.data and entry.offset is None:
        raise Failure("File contains external, encrypted or compressed clusters.")
    if following is not None and (not following.data or following.zero):
        following.data, following.zero = False, True
    if not entry.data or entry.zero:
        return ""
    # As C's %#x: zero has no prefix.
    start = f"{entry.start:#x}" if entry.start else "0"
    place = f"{entry.offset:#x}" if entry.offset else "0"
    return f"{start:<16}{entry.length:<#16x}{place:<16}{entry.filename}\n"


def json_line(entry: MapEntry, following: MapEntry | None) -> str:
    """An element of the JSON list."""
    comma = ",\n" if following is not None else ""
    place = "" if entry.offset is None else f', "offset": {entry.offset}'
    return (
        f'{{ "start": {entry.start}, "length": {entry.length}, "depth": {entry.depth}, '
        f'"present": {_word(entry.present)}, "zero": {_word(entry.zero)}, '
        f'"data": {_word(entry.data)}{place}}}{comma}'
    )


def _word(value: bool) -> str:
    return "true" if value else "false"
