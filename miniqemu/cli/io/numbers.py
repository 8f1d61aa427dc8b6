# SPDX-License-Identifier: GPL-2.0-only
"""Numbers as people type them, and sizes, times and rates as miniqemu-io prints them.

Pure functions; any thread. Source: qemu-io-cmds.c (cvtnum, cvtstr, timestr, print_report).
"""

from __future__ import annotations

from block.core import flags as f
from block.core.options import c_integer, size_of_text

from .session import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .session import Session

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
NS = 10**9


def cvtnum(text: str) -> int:
    """A number of bytes, from 0 to 2^63 - 1 (cvtnum). Raises Failed."""
    size = size_of_text(text)
    if size is None:
        raise Failed(
            "Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- " + text
        )
    if size > f.INT64_MAX:
        raise Failed(f"Parsing error: argument too large -- {text}")
    return size


def request_length(text: str, hint: str = "") -> int:
    """The length of a request (the check against BDRV_REQUEST_MAX_BYTES). Raises Failed, with a
    hint what else there is."""
    count = cvtnum(text)
    if count > f.REQUEST_MAX_BYTES:
        raise Failed(f"length cannot exceed {f.REQUEST_MAX_BYTES}{hint}, given {text}")
    return count


def refuse_part_of_sector(offset: int, count: int) -> None:
    """Raises Failed where a request is no whole number of sectors."""
    for value, name in ((offset, "offset"), (count, "count")):
        if value % f.SECTOR_SIZE:
            raise Failed(f"{value} is not a sector-aligned value for '{name}'")


def parse_pattern(text: str) -> int:
    """The byte that a buffer is filled with (parse_pattern). Raises Failed."""
    pattern = c_integer(text)
    if pattern is None or not 0 <= pattern <= 255:
        raise Failed(f"{text} is not a valid pattern byte")
    return pattern


def cvtstr(value: float) -> str:
    """A size: '64 KiB', '1.500 MiB', '0.5 bytes' has six digits (cvtstr)."""
    exponent = len(UNITS) - 1
    while exponent and value < 1 << 10 * exponent:
        exponent -= 1
    text = f"{value / (1 << 10 * exponent):.3f}" if exponent else f"{value:.6f}"
    whole, _, fraction = text.partition(".")
    return f"{whole if fraction.startswith('000') else text} {UNITS[exponent]}"


def timestr(ns: int, verbose: bool = False) -> str:
    """A time: '00.02 sec', from a second on and when `verbose` '0:00:01.50' (timestr)."""
    seconds, ns = divmod(ns, NS)
    if not verbose and not seconds:
        return f"{ns / NS:05.2f} sec"
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60 + ns / NS:05.2f}"


def rate(value: int, ns: int) -> float:
    """How much a second that was (tdiv)."""
    if ns:
        return value / (ns / NS)
    return float("inf") if value else float("nan")


def print_report(
    session: Session, what: str, ns: int, offset: int, count: int, machine_readable: bool
) -> None:
    """Says what a request did, and how fast: for people, or as numbers (print_report)."""
    if machine_readable:
        numbers = f"{rate(count, ns):.3f},{rate(1, ns):.3f}"
        session.say(f"{count},1,{timestr(ns, True)},{numbers}")
        return
    session.say(f"{what} {count}/{count} bytes at offset {offset}")
    speed = f"{cvtstr(rate(count, ns))}/sec and {rate(1, ns):.4f} ops/sec"
    session.say(f"{cvtstr(count)}, 1 ops; {timestr(ns)} ({speed})")
