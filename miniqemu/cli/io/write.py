# SPDX-License-Identifier: GPL-2.0-only
"""write, writev and discard: bytes, zeroes, or nothing at all into the image (write_f)."""

from __future__ import annotations

from block.core import flags as f
from block.core import vmstate

from .buffers import WRITE_FILL, allocate, allocate_from_file, create_iovec
from .numbers import cvtnum, parse_pattern, print_report, refuse_part_of_sector, request_length
from .session import Failed, measured

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .session import Given, Session

REQUEST_FLAGS = {"f": f.REQ_FUA, "n": f.REQ_NO_FALLBACK, "u": f.REQ_MAY_UNMAP}
"""Options that are handed down with the request."""


def do_write(session: Session, argv: list[str]) -> None:
    """Writes a pattern, the content of a file (-s) or zeroes (-z); with -c compressed."""
    given = session.options(argv, {"P": parse_pattern}, operands=(2, 2))
    _refuse_contradictions(given)
    offset = cvtnum(given.words[0])
    if "n" in given:  # no buffer is needed, and none will be
        count = cvtnum(given.words[1])
    else:
        count = request_length(given.words[1], " without -n")
    if "b" in given or "c" in given:
        refuse_part_of_sector(offset, count)
    flags = request_flags(given)
    disk = session.disk
    if "z" in given:
        ns = measured(session, "write", lambda: disk.pwrite_zeroes(offset, count, flags))
    else:
        buffer = _content(session, given, count)
        flags |= f.REQ_WRITE_COMPRESSED if "c" in given else 0
        if "b" in given:
            ns = measured(session, "write", lambda: vmstate.save(disk, offset, [buffer]))
        else:
            ns = measured(session, "write", lambda: disk.pwrite(offset, [buffer], flags))
    _tell(session, given, "wrote", offset, count, ns)


def do_writev(session: Session, argv: list[str]) -> None:
    """Writes from as many buffers as lengths are given."""
    given = session.options(argv, {"P": parse_pattern})
    offset = cvtnum(given.words[0])
    pattern = given.number("P", WRITE_FILL)
    buffer, vector = create_iovec(session, given.words[1:], pattern)
    flags = request_flags(given)
    ns = measured(session, "writev", lambda: session.disk.pwrite(offset, vector, flags))
    _tell(session, given, "wrote", offset, len(buffer), ns)


def do_discard(session: Session, argv: list[str]) -> None:
    """Tells the image that nobody needs a range any more."""
    given = session.options(argv, operands=(2, 2))
    offset, count = cvtnum(given.words[0]), request_length(given.words[1])
    ns = measured(session, "discard", lambda: session.disk.pdiscard(offset, count))
    _tell(session, given, "discard", offset, count, ns)


def request_flags(given: Given) -> int:
    """What the options ask of the request."""
    return sum(flag for letter, flag in REQUEST_FLAGS.items() if letter in given)


def _refuse_contradictions(given: Given) -> None:
    if "b" in given and "z" in given:
        raise Failed("-b and -z cannot be specified at the same time")
    if "f" in given and ("b" in given or "c" in given):
        raise Failed("-f and -b or -c cannot be specified at the same time")
    for letter in ("n", "u"):
        if letter in given and "z" not in given:
            raise Failed(f"-{letter} requires -z to be specified")
    if sum(letter in given for letter in "zPs") > 1:
        raise Failed("Only one of -z, -P, and -s can be specified at the same time")


def _content(session: Session, given: Given, count: int) -> memoryview:
    if "s" in given:
        return allocate_from_file(session, count, str(given["s"]))
    return allocate(session, count, given.number("P", WRITE_FILL))


def _tell(session: Session, given: Given, what: str, offset: int, count: int, ns: int) -> None:
    if "q" not in given:
        print_report(session, what, ns, offset, count, "C" in given)
