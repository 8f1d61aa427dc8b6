# SPDX-License-Identifier: GPL-2.0-only
"""read and readv: bytes from the image, compared with a pattern, shown (read_f, readv_f)."""

from __future__ import annotations

from block.core import vmstate

from .buffers import READ_FILL, allocate, create_iovec, dump, verify
from .numbers import cvtnum, parse_pattern, print_report, refuse_part_of_sector, request_length
from .session import Failed, measured

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .session import Given, Session


def do_read(session: Session, argv: list[str]) -> None:
    """Reads into one buffer; with -P all or a part of it must be the pattern."""
    convert = {"l": cvtnum, "P": parse_pattern, "s": cvtnum}
    given = session.options(argv, convert, operands=(2, 2))
    offset, count = cvtnum(given.words[0]), request_length(given.words[1])
    start, length = _part_to_verify(session, argv, given, count)
    if "b" in given:
        refuse_part_of_sector(offset, count)
    buffer = allocate(session, count, READ_FILL)
    disk = session.disk
    if "b" in given:
        ns = measured(session, "read", lambda: vmstate.load(disk, offset, [buffer]))
    else:
        ns = measured(session, "read", lambda: disk.preadv_into(offset, [buffer]))
    part = buffer[start : start + length]
    fine = "P" not in given or verify(session, part, given.number("P", 0), offset + start)
    _tell(session, given, buffer, offset, ns)
    if not fine:
        raise Failed


def do_readv(session: Session, argv: list[str]) -> None:
    """Reads into as many buffers as lengths are given."""
    given = session.options(argv, {"P": parse_pattern})
    offset = cvtnum(given.words[0])
    buffer, vector = create_iovec(session, given.words[1:], READ_FILL)
    ns = measured(session, "readv", lambda: session.disk.preadv_into(offset, vector))
    fine = "P" not in given or verify(session, buffer, given.number("P", 0), offset)
    _tell(session, given, buffer, offset, ns)
    if not fine:
        raise Failed


def _part_to_verify(session: Session, argv: list[str], given: Given, count: int) -> tuple[int, int]:
    """Where the pattern is to be looked for, and for how far."""
    if "P" not in given and ("l" in given or "s" in given):
        raise session.usage(argv)
    start = given.number("s", 0)
    length = given.number("l", count - start)
    if length < 0 or start + length > count:
        raise Failed("pattern verification range exceeds end of read data")
    return start, length


def _tell(session: Session, given: Given, buffer: memoryview, offset: int, ns: int) -> None:
    """Shows what was read, and how fast."""
    if "q" in given:
        return
    if "v" in given:
        for line in dump(buffer, offset):
            session.say(line)
    print_report(session, "read", ns, offset, len(buffer), "C" in given)
